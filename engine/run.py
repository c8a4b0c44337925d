"""The run folder: all that a run leaves behind, in one place, never overwritten."""

from __future__ import annotations

import datetime
import itertools
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from engine.files import json_text, make_directory, write_atomically

# The file that a run makes first: whoever makes it owns the folder.
_CLAIM = "command.txt"
_RUN_FILES = (_CLAIM, "config.json", "environment.json", "history.json", "summary.json")
_BIT_CHANGING_VARIABLES = (
    "TF_ENABLE_ONEDNN_OPTS",
    "TF_DETERMINISTIC_OPS",
    "TF_CUDNN_DETERMINISTIC",
    "NVIDIA_TF32_OVERRIDE",
    "TF_NUM_INTRAOP_THREADS",
    "TF_NUM_INTEROP_THREADS",
    "TF_XLA_FLAGS",
    "XLA_FLAGS",
    "TF_CONFIG",
    "CUDA_VISIBLE_DEVICES",
    "OMP_NUM_THREADS",
)
_CONTROL = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f]")


class RunFolder:
    """Paths and JSON files of one run.

    `config.json`, `environment.json`, `command.txt`, `metrics.csv`, `metrics.jsonl`,
    `history.json`, `summary.json`, `train.log`, and the directories `checkpoints/`, `tensorboard/`,
    `plots/`, `profile/`, which come into being when something is put there. Make one with `create`
    or `at`.
    """

    def __init__(self, path: Path) -> None:
        """Takes a folder that this process owns; no files are touched."""
        self.path = path
        self._written: set[str] = set()

    @classmethod
    def create(
        cls, root: str | os.PathLike[str] = "runs", *, model: str, dataset: str
    ) -> RunFolder:
        """Makes `<root>/<model>-<dataset>/<YYYYmmdd-HHMMSS>-<n>/`, which no other process has.

        Raises:
          ValueError: If it cannot be made.
        """
        parent = make_directory(Path(root) / f"{_file_name(model)}-{_file_name(dataset)}")
        now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
        for number in itertools.count(1):
            path = parent / f"{now}-{number}"
            try:
                path.mkdir()  # Succeeds in one process only.
            except FileExistsError:
                continue
            folder = cls(path)
            folder._append_command()
            return folder
        raise AssertionError("count() does not end")

    @classmethod
    def at(cls, path: str | os.PathLike[str], *, resume: bool = False) -> RunFolder:
        """Makes or takes the folder that a person names.

        Args:
          path: The folder.
          resume: Whether to go on in a folder that holds a run. Tables and logs are appended to;
            JSON files of the earlier run are kept as `<name>.1.json`, `<name>.2.json`, ...

        Raises:
          ValueError: If it holds a run and `resume` is false, or cannot be written.
        """
        directory = make_directory(path)
        folder = cls(directory)
        holds_run = any((directory / name).exists() for name in _RUN_FILES)
        try:
            if resume or not holds_run:
                folder._append_command(must_be_new=not resume)
                return folder
        except FileExistsError:  # Another process came first.
            pass
        raise ValueError(
            f"{directory} holds a run already: pass --resume to go on with it, or name another "
            "folder."
        )

    @property
    def checkpoints(self) -> Path:
        """Directory for checkpoints."""
        return self.path / "checkpoints"

    @property
    def tensorboard(self) -> Path:
        """Directory for TensorBoard's files."""
        return self.path / "tensorboard"

    @property
    def plots(self) -> Path:
        """Directory for pictures."""
        return self.path / "plots"

    def new_profile(self) -> Path:
        """Returns a directory for a profile that no earlier one has: `profile`, `profile-2`, ..."""
        names = itertools.chain(["profile"], (f"profile-{n}" for n in itertools.count(2)))
        return next(path for name in names if not (path := self.path / name).exists())

    @property
    def metrics_csv(self) -> Path:
        """File for a CSVWriter."""
        return self.path / "metrics.csv"

    @property
    def metrics_jsonl(self) -> Path:
        """File for a JSONLinesWriter."""
        return self.path / "metrics.jsonl"

    def write_json(self, name: str, value: Any) -> Path:
        """Writes `<name>.json` in one go; see `engine.files.json_text` for what JSON lacks.

        What this object wrote is replaced; what an earlier run wrote is kept under a numbered name.
        """
        path = self.path / f"{name}.json"
        text = json_text(value, indent=2) + "\n"
        if name not in self._written and path.exists() and path.read_text("utf-8") != text:
            _set_aside(path)
        self._written.add(name)
        write_atomically(path, lambda file: file.write(text))
        return path

    def write_config(self, config: Any) -> Path:
        """Writes config.json from a dataclass or a dict."""
        return self.write_json("config", config)

    def write_environment(self) -> Path:
        """Writes environment.json. Initialises the devices: call it after `configure_runtime`."""
        return self.write_json("environment", describe_environment())

    def write_history(self, history: dict[str, list[float]]) -> Path:
        """Writes history.json."""
        return self.write_json("history", history)

    def write_summary(self, summary: dict[str, Any]) -> Path:
        """Writes summary.json."""
        return self.write_json("summary", summary)

    def open_log(self, stream: TextIO | None = None) -> Log:
        """Opens train.log, at its end."""
        return Log(self.path / "train.log", stream)

    def _append_command(self, *, must_be_new: bool = False) -> None:
        command = shlex.join(sys.orig_argv or sys.argv)
        with (self.path / _CLAIM).open("x" if must_be_new else "a", encoding="utf-8") as file:
            file.write(command + "\n")


class Log:
    """Shows lines to a person and keeps them in a file, without control characters."""

    def __init__(self, path: str | os.PathLike[str], stream: TextIO | None = None) -> None:
        """Opens the file at its end.

        Args:
          path: The file; its directory is made.
          stream: Default: what `sys.stdout` is at the time of writing.
        """
        self.path = make_directory(Path(path).parent) / Path(path).name
        self._stream = stream
        self._file = self.path.open("a", encoding="utf-8", buffering=1)

    def line(self, text: str = "", *, stream: TextIO | None = None) -> None:
        """Writes a line to both; a progress bar on the same stream stays whole.

        Args:
          text: Without the newline at its end.
          stream: Default: the log's own.
        """
        stream = stream or self._stream or sys.stdout
        tqdm.write(text, file=stream)
        stream.flush()
        self._file.write(_CONTROL.sub("", text) + "\n")

    def close(self) -> None:
        """Closes the file; may be called twice."""
        self._file.close()

    def __enter__(self) -> Log:
        """Returns itself."""
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Closes the file."""
        self.close()


def describe_environment() -> dict[str, Any]:
    """Returns what bits and speed depend on: versions, machine, devices, threads, flags, code.

    Initialises TensorFlow's devices: call it after `configure_runtime`.
    """
    commit, is_dirty = _git_state(Path(__file__).parent)
    return {
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "numpy": np.__version__,
        "platform": platform.platform(),
        "processor": processor_name(),
        "num_cores": num_cores(),
        "physical_devices": [_describe_device(d) for d in tf.config.list_physical_devices()],
        "logical_devices": [device.name for device in tf.config.list_logical_devices()],
        # 0 means that TensorFlow chooses: one for each core.
        "intra_op_threads": tf.config.threading.get_intra_op_parallelism_threads(),
        "inter_op_threads": tf.config.threading.get_inter_op_parallelism_threads(),
        "op_determinism": _is_op_determinism_enabled(),
        "dtype_policy": keras.config.dtype_policy().name,
        "variables": {name: os.environ.get(name) for name in _BIT_CHANGING_VARIABLES},
        "git_commit": commit,
        "git_has_changes": is_dirty,
    }


def _describe_device(device: Any) -> dict[str, Any]:
    details = tf.config.experimental.get_device_details(device)
    return {"name": device.name, "model": details.get("device_name")}


def processor_name() -> str:
    """Returns the processor's name as the machine tells it."""
    try:
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:  # Not Linux.
        pass
    return platform.processor() or platform.machine()


def num_cores() -> int:
    """Returns how many cores this process may use."""
    # The cores that this process may use: in a container fewer than the machine has.
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _is_op_determinism_enabled() -> bool:
    # TensorFlow has a public setter and no public getter.
    from tensorflow.python.framework import config as framework_config

    return bool(framework_config.is_op_determinism_enabled())


def _git_state(directory: Path) -> tuple[str | None, bool | None]:
    """Returns the commit of the checkout that the engine runs from, and whether it has changes."""
    try:
        outputs = [
            subprocess.run(
                ["git", "-C", str(directory), *arguments],
                capture_output=True,
                text=True,
                timeout=10,
                check=True,
            ).stdout.strip()
            for arguments in (["rev-parse", "HEAD"], ["status", "--porcelain"])
        ]
    except (OSError, subprocess.SubprocessError):  # No git, or no checkout.
        return None, None
    return outputs[0], bool(outputs[1])


def _set_aside(path: Path) -> None:
    numbered = (path.with_suffix(f".{number}.json") for number in itertools.count(1))
    shutil.copy2(path, next(name for name in numbered if not name.exists()))


def _file_name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "_", text).lstrip(".") or "_"
