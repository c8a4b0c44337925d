"""`--num_workers N`: the same command, run by N workers on this machine."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gradloop import lock, signals
from gradloop.files import explain, make_directory
from gradloop.machine import num_cores
from gradloop.usage import EXIT_USAGE

from .. import run_directory
from .processes import Workers, visible_gpus
from .supervisor import supervise

DEFAULT_MAX_RESTARTS = 3
MAX_WORKERS_PER_CORE = 4
LOGS = "workers"  # in the run folder
_FLAG = "--num_workers"


def launch(command: Sequence[str], settings: Mapping[str, Any], *, prog: str) -> int:
    """Runs a command of `train.py` with several workers.

    Args:
      command: Program and arguments, as a new process takes them.
      settings: Of that command; `num_workers` is a number.
      prog: Name of the program in messages.

    Returns:
      The exit code, as `supervise` describes it.
    """
    number = signals.number()
    if number is not None:
        return 128 + number
    try:
        check(settings, os.environ)
        run_dir, made = _claim(settings)
    except (ValueError, OSError) as error:
        print(f"{prog}: error: {explain(error) or error}", file=sys.stderr)
        return EXIT_USAGE
    code = _run([*command, *_flags(settings, run_dir)], settings, run_dir, prog)
    if code == EXIT_USAGE or settings["mode"] == "check":
        _remove(made)
    return code


def check(settings: Mapping[str, Any], environment: Mapping[str, str]) -> None:
    """Raises ValueError if the workers cannot run on this machine."""
    num_workers, most = settings["num_workers"], MAX_WORKERS_PER_CORE * num_cores()
    if "TF_CONFIG" in environment:
        raise ValueError(
            f"num_workers={num_workers} starts workers on this machine, and TF_CONFIG says that "
            "this process is one of a cluster: leave num_workers out, or unset TF_CONFIG."
        )
    if num_workers > most:
        raise ValueError(
            f"num_workers={num_workers} on {num_cores()} cores: ask for {most} or fewer, "
            f"{MAX_WORKERS_PER_CORE} a core."
        )
    gpus = visible_gpus()
    if gpus and num_workers > len(gpus):
        raise ValueError(
            f"num_workers={num_workers}, and there are {len(gpus)} GPUs to share out: ask for "
            f"{len(gpus)} or fewer, or set CUDA_VISIBLE_DEVICES= to train without them."
        )


def _claim(settings: Mapping[str, Any]) -> tuple[Path, list[Path]]:
    """Returns the run folder, with a directory for logs, and what of both was made here.

    Raises:
      ValueError: If the folder cannot be used.
    """
    named = settings["run_dir"]
    if named is None:
        model, dataset = settings["model"], settings["dataset"]
        run_dir = run_directory.make_new(
            "runs", model=model, dataset=dataset, name=settings["run_name"]
        )
        made = [run_dir.parent, run_dir]
    else:
        run_dir = Path(named)
        made = [] if run_dir.exists() else [run_dir]
        _check_free(make_directory(run_dir), resumes=bool(settings["resume"]))
    if not (run_dir / LOGS).exists():
        made.append(make_directory(run_dir / LOGS))
    return run_dir, made


def _remove(made: Sequence[Path]) -> None:
    """Removes what was made for workers that were refused: they have left nothing else there."""
    for path in reversed(made):
        with contextlib.suppress(OSError):  # the folder is not empty
            shutil.rmtree(path) if path.name == LOGS else path.rmdir()


def _check_free(run_dir: Path, *, resumes: bool) -> None:
    """Raises ValueError if the chief could not use the folder: nothing is written there then."""
    if not resumes and run_directory.holds_run(run_dir):
        raise ValueError(run_directory.refusal(run_dir))
    with contextlib.suppress(lock.NoLock), lock.locked(run_dir):
        pass


def _flags(settings: Mapping[str, Any], run_dir: Path) -> list[str]:
    """Returns what each worker gets beside the flags of the command: the last one wins."""
    flags = [_FLAG, "none", "--run_dir", str(run_dir)]
    if settings["max_restarts"] is not None:
        flags += ["--max_restarts", "none"]
    # Not intra_op_threads: the bits of a convolution depend on them, and would not be mirrored's.
    if settings["inter_op_threads"] is None:
        flags += ["--inter_op_threads", str(max(1, num_cores() // settings["num_workers"]))]
    return flags


def _run(command: Sequence[str], settings: Mapping[str, Any], run_dir: Path, prog: str) -> int:
    is_training = settings["mode"] == "train"
    max_restarts = settings["max_restarts"]

    def start(num_restarts: int) -> Workers:
        flags = ["--resume", "auto"] if num_restarts else []
        gpus = visible_gpus()
        return Workers([*command, *flags], settings["num_workers"], run_dir / LOGS, gpus)

    def may_restart() -> bool:
        return run_directory.read_summary(run_dir).get("status") != "diverged"

    def say(line: str) -> None:
        print(f"{prog}: {line}", file=sys.stderr, flush=True)

    if max_restarts is None:
        max_restarts = DEFAULT_MAX_RESTARTS if is_training else 0
    return supervise(start, max_restarts=max_restarts, may_restart=may_restart, say=say)
