"""What a run folder holds of earlier starts, and what may change in a run that goes on."""

from __future__ import annotations

import dataclasses
import enum
import math
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

from gradloop.engine.options import ConfigError, show

from .config import JobConfig
from .config_files import read_config_file, read_saved_settings
from .flags import NOT_RESUMED
from .reading import PROG
from .run_directory import has_checkpoints, read_summary

_DONE = ("completed", "stopped")  # what summary.json says of a run with nothing left to do
_REASONS = {
    "model": "its checkpoints are of that model",
    "set": "its checkpoints are of a model, a step and data with these arguments",
    "train_step": "its checkpoints are of that step",
    "optimizer": "its checkpoints hold the slots of that optimizer",
    "momentum": "its checkpoints hold the slots of an optimizer with it",
    "ema": "its checkpoints hold the average with it",
    "schedule": "a schedule would begin anew",
    "warmup_steps": "a schedule would begin anew",
    "init_from": "its weights are its own by now",
    "exclude": "its weights are its own by now",
    "learning_rate": "its optimizer follows a schedule, which would begin anew",
}
_OTHER_EXAMPLES = "its steps would be of other examples"


class Plan(enum.Enum):
    """What to do in a run folder."""

    START = "start"
    START_ANEW = "start anew"  # after a run that was killed before its first checkpoint
    GO_ON = "go on"
    NOTHING = "nothing"  # all was done before


def make_plan(config: JobConfig) -> Plan:
    """Returns what the config's `resume` means in its folder; touches nothing.

    Raises:
      ConfigError: If the config differs from the run's in what cannot change.
    """
    if not config.resume or config.run_dir is None:
        return Plan.START
    run_dir = Path(config.run_dir)
    if config.resume == "auto" and not has_checkpoints(run_dir):
        return Plan.START_ANEW
    if config.mode == "train":
        refuse_changes(config)
    is_over = is_done(run_dir) or has_reached(config.max_steps, run_dir)
    if config.resume == "auto" and is_over and not find_changes(config):
        return Plan.NOTHING
    return Plan.GO_ON


def is_done(run_dir: Path) -> bool:
    """Returns whether the last training in a folder has ended with nothing left to do."""
    return read_summary(run_dir).get("status") in _DONE


def has_reached(max_steps: int | None, run_dir: Path) -> bool:
    """Returns whether the last training in a folder has done so many steps; None: no limit."""
    num_steps = read_summary(run_dir).get("num_steps")
    return max_steps is not None and isinstance(num_steps, int) and num_steps >= max_steps


def describe_result(config: JobConfig) -> str:
    """Returns what the run in the config's folder has found, and where it is."""
    accuracy = read_summary(Path(config.run_dir or "")).get("test_accuracy")
    found = "" if accuracy is None else f"test accuracy {100 * accuracy:.2f}%, "
    return f"{found}in {config.run_dir}"


def command_to_go_on(run_dir: Path, num_steps: int = 0) -> str:
    """Returns the command that goes on with a run, begun as this process was.

    Args:
      run_dir: Of the run.
      num_steps: That are done: where they are all that its `max_steps` allows, there is none now.

    Example:
      >>> from gradloop.cli import resuming
      >>> resuming.command_to_go_on(Path("runs/a")).endswith(" --run_dir runs/a --resume")
      True
    """
    # The name of an installed command, which Python has replaced by its path.
    is_installed = PROG == "gradloop"
    path = shutil.which(PROG) if is_installed else None
    program = [PROG] if path else sys.orig_argv[: len(sys.orig_argv) - len(sys.argv) + 1]
    most = read_saved_settings(str(run_dir)).get("max_steps") or math.inf
    more = ["--max_steps", "none"] if num_steps >= most else []
    return shlex.join([*program, "--run_dir", str(run_dir), "--resume", *more])


def recorded(config: JobConfig, plan: Plan) -> dict[str, Any]:
    """Returns the settings for config.json: a run that goes on still says where it began."""
    values = dataclasses.asdict(config)
    path = Path(config.run_dir or "", "config.json")
    if config.mode == "train" and plan is Plan.GO_ON and path.exists():
        values["checkpoint"] = read_config_file(path).get("checkpoint")
    return values


def find_changes(config: JobConfig) -> dict[str, tuple[Any, Any]]:
    """Returns each setting that differs from the run's config.json: what it was, and what it is."""
    saved = read_saved_settings(config.run_dir or "")
    names = [f.name for f in dataclasses.fields(config) if f.name not in NOT_RESUMED]
    return {
        name: (saved[name], getattr(config, name))
        for name in names
        if name in saved and saved[name] != getattr(config, name)
    }


def refuse_changes(config: JobConfig) -> None:
    """Raises ConfigError if a setting differs that cannot change in a run that goes on."""
    for name, (before, now) in find_changes(config).items():
        if _decision(name) == "refused":
            raise refusal(config, name, before, now)


def refusal(config: JobConfig, name: str, before: Any, now: Any) -> ConfigError:
    """Returns the error for a setting that cannot change, with the reason."""
    return ConfigError(
        f"{name}={show(now)}, but the run in {config.run_dir} has {show(before)}, and "
        f"{_REASONS.get(name, _OTHER_EXAMPLES)}: leave it out, or name another folder for a new "
        "run."
    )


def describe_changes(config: JobConfig) -> list[str]:
    """Returns a line for each setting that differs from the run's: applied, or warned about."""
    lines = []
    for name, (before, now) in find_changes(config).items():
        line = f"{name}={show(now)} from here on, {show(before)} before"
        if _decision(name) == "warned":
            line += ": the numbers are no longer equal to those of a run without the change"
        if name in ("epochs", "max_steps") and config.schedule is not None:
            line += f"; the schedule {config.schedule} goes over the new number of updates"
        lines.append(line)
    return lines


def _decision(name: str) -> str:
    fields = {field.name: field for field in dataclasses.fields(JobConfig)}
    return str(fields[name].metadata["on_resume"])
