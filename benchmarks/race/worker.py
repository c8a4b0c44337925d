"""Hosts one arm in a process of its own; the harness talks to it in lines of JSON.

    python -m benchmarks.race.worker --arm keras_fit

The first line on stdin is the task. Each further line is a command: {"do": "setup"} (for an arm
with settings that were found before, {"do": "setup", "found": {}}), {"do": "run", "num_epochs": 1},
{"do": "weights", "path": "x.npz"}, {"do": "plain"} (an epoch of a new arm, without dropout),
{"do": "stop"}. Each command gets one line as its answer, on the original
stdout; what the arm prints goes to stderr. This module imports the standard library and NumPy
alone: the arm brings its framework, and the peers' environment has no TensorFlow.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib
import importlib.metadata
import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from benchmarks.arms import ArmProtocol, TooSlow
from benchmarks.race import weights
from benchmarks.race.workloads import Task
from gradloop.machine import peak_memory_bytes

_FRAMEWORKS = (
    "tensorflow", "keras", "torch", "lightning", "jax", "jaxlib", "optax", "numpy",
)  # fmt: skip
# An import of these that fails is a bug, not a missing framework.
_OWN_PACKAGES = ("benchmarks", "gradloop", "tests")


class ArmHost:
    """Builds the arm and carries out commands on it.

    Args:
      module: Dotted name; imported by the command "setup".
      task: What the arm does.
    """

    def __init__(self, module: str, task: Task) -> None:
        self._module = module
        self._task = task
        self._arm: ArmProtocol | None = None

    def answer(self, command: Mapping[str, Any]) -> dict[str, Any]:
        """Carries out a command and returns its answer, or the error."""
        try:
            match command["do"]:
                case "setup":
                    return self._set_up(command.get("found"))
                case "run":
                    return self._run(int(command["num_epochs"]))
                case "weights":
                    return self._save_weights(Path(command["path"]))
                case "plain":
                    return self._train_without_dropout()
                case "stop":
                    return {}
            raise ValueError(f"unknown command {command!r}")
        except Exception as error:
            return describe_error(error)

    def _set_up(self, found: Mapping[str, Any] | None) -> dict[str, Any]:
        started_at = time.perf_counter()
        arm_class = importlib.import_module(self._module).Arm
        imported_at = time.perf_counter()
        self._arm = arm = _make(arm_class, self._task, found)
        setup_secs = time.perf_counter() - imported_at
        return {
            "import_secs": imported_at - started_at,
            "setup_secs": setup_secs,
            "settings": arm.settings,
            "bits_of": arm.bits_of,
            "found": getattr(arm, "found", None),
            "is_ceiling": getattr(arm, "is_ceiling", False),
            "versions": versions(),
            "peak_memory_bytes": peak_memory_bytes(),
        }

    def _run(self, num_epochs: int) -> dict[str, Any]:
        assert self._arm is not None, "setup comes first"
        started_at = time.perf_counter()
        loss = self._arm.run(num_epochs)
        secs = time.perf_counter() - started_at
        return {"secs": secs, "loss": float(loss), "peak_memory_bytes": peak_memory_bytes()}

    def _save_weights(self, path: Path) -> dict[str, Any]:
        assert self._arm is not None, "setup comes first"
        weights.save(path, [np.asarray(array) for array in self._arm.weights()])
        # Read again, because an arm may choose its settings in its first run.
        return {"settings": self._arm.settings, "bits_of": self._arm.bits_of}

    def _train_without_dropout(self) -> dict[str, Any]:
        assert self._arm is not None, "setup comes first"
        # What the arm found by trial is not looked for again.
        found = getattr(self._arm, "found", None)
        arm = _make(type(self._arm), dataclasses.replace(self._task, dropout=False), found)
        return {"loss": float(arm.run(1))}


def _make(arm_class: Any, task: Task, found: Mapping[str, Any] | None) -> ArmProtocol:
    arm: ArmProtocol = arm_class(task) if found is None else arm_class(task, found)
    return arm


def describe_error(error: Exception) -> dict[str, Any]:
    """Returns the answer for an error: its message in one line, its kind and its traceback."""
    kind = "failed"
    if isinstance(error, NotImplementedError):
        kind = "not_implemented"
    elif isinstance(error, TooSlow):
        kind = "too_slow"
    elif isinstance(error, ImportError) and _is_foreign(error):
        kind = "not_installed"
    lines = str(error).strip().splitlines() or [""]
    text = lines[0] if kind != "failed" else f"{type(error).__name__}: {lines[0]}"
    return {"error": text, "kind": kind, "traceback": traceback.format_exc()}


def _is_foreign(error: ImportError) -> bool:
    return bool(error.name) and str(error.name).split(".")[0] not in _OWN_PACKAGES


def versions() -> dict[str, str]:
    """Returns the versions of the frameworks that are loaded, and of Python."""
    found = {"python": sys.version.split()[0]}
    for name in _FRAMEWORKS:
        if name in sys.modules:
            with contextlib.suppress(importlib.metadata.PackageNotFoundError):
                found[name] = importlib.metadata.version(name)
    return found


def take_streams() -> tuple[TextIO, TextIO]:
    """Returns private streams for commands and answers, which no `print` and no child can touch.

    Afterwards stdin is empty and stdout is stderr, also for C++ code and child processes.
    """
    commands = os.fdopen(os.dup(0), "r", encoding="utf-8")
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.dup2(2, 1)
    return commands, answers


def serve(module: str, commands: TextIO, answers: TextIO) -> None:
    """Answers commands until "stop" or the end of the stream.

    Args:
      module: Of the arm, dotted.
      commands: Lines from the harness.
      answers: Lines to the harness.
    """
    host = ArmHost(module, Task.from_dict(json.loads(commands.readline())))
    for line in iter(commands.readline, ""):
        command = json.loads(line)
        answers.write(json.dumps(host.answer(command)) + "\n")
        answers.flush()
        if command["do"] == "stop":
            break


def end_with_parent() -> None:
    """Starts a thread that ends this process once its parent is gone.

    A trial of an arm has a session of its own, so that nothing else ends it with the arm.
    """
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def main(argv: Sequence[str] | None = None) -> None:
    """Serves one arm."""
    parser = argparse.ArgumentParser(
        description="Hosts one arm of benchmarks.throughput, which starts it."
    )
    parser.add_argument(
        "--arm", required=True, help="name of a file in benchmarks/arms, or a dotted module"
    )
    name = parser.parse_args(argv).arm
    end_with_parent()
    serve(name if "." in name else f"benchmarks.arms.{name}", *take_streams())


if __name__ == "__main__":
    main()
