"""StateDigest: a digest of the state each N steps, by which two runs are compared."""

from __future__ import annotations

import contextlib
import hashlib
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradloop.files import make_directory

from ..variables import METRICS_PREFIX
from .base import Hook, HookInfo, check_period

if TYPE_CHECKING:
    from ..state import TrainState

HEADER = "step,sha256\n"


def digest_of_state(state: TrainState) -> str:
    """Returns the SHA-256 of all variables but metrics: place, dtype, shape and bytes of each.

    Context: cross-replica, on the host. Where replicas hold other bits than the first, theirs too.
    Names do not count: Keras numbers them by how many models a process made.
    """
    sha256 = hashlib.sha256()
    named = [(n, v) for n, v in state.named_variables() if not n.startswith(METRICS_PREFIX)]
    for place, (_, values) in enumerate(state.saved_values(named)):
        for replica, value in enumerate(values):
            sha256.update(f"{place} {replica} {value.dtype.name} {value.shape}\n".encode())
            sha256.update(value.tobytes())
    return sha256.hexdigest()


class StateDigest(Hook):
    """Writes a digest of the state each N steps to a table: `step,sha256`.

    `python -m benchmarks.chaos --compare RUN_A RUN_B` finds the first step at which two runs
    differ. A run that is resumed continues the table: no row is there twice, and none is missing.

    Args:
      path: The table. Its directory is created; the file comes when training begins.
      every_steps: Period in steps of the run: the loop ends an execution at each multiple of it.

    Raises:
      ValueError: If `every_steps` is not an integer above 0, or the directory cannot be written.

    Example:
      >>> hook = engine.StateDigest(tmp_path / "digests.csv", every_steps=2)
      >>> history = engine.fit(state, train_ds, config, hooks=[hook])
      >>> [line.split(",")[0] for line in (tmp_path / "digests.csv").read_text().splitlines()]
      ['step', '2', '4']
    """

    def __init__(self, path: str | os.PathLike[str], *, every_steps: int) -> None:
        check_period("every_steps", every_steps)
        self.path = make_directory(Path(path).parent) / Path(path).name
        self.every_steps: int = every_steps
        self._writes = True
        self._num_rows = 0
        self._unwritten: list[str] = []
        self._is_torn = False  # the last write failed, maybe within a row

    def on_train_begin(self, info: HookInfo) -> None:
        """Cuts off the rows of steps that will be done again.

        Raises:
          ValueError: If the file is another table.
        """
        now = info.progress.num_steps_completed
        self._writes = info.state.writes
        self._unwritten = []
        self._cut(lambda rows: [row for row in rows if int(row.split(",")[0]) <= now])

    def on_execution_end(self, info: HookInfo) -> None:
        """Writes a row at each multiple of `every_steps`; if that fails, with the next one."""
        step = info.progress.num_steps_completed
        if step % self.every_steps == 0:
            row = f"{step},{digest_of_state(info.state)}\n"  # on all workers
            if self._writes:
                self._unwritten.append(row)
                self._write()

    def state(self) -> dict[str, Any]:
        """Returns how many rows are safe from a power cut, and those that could not be written."""
        if not self._writes:
            return {}
        self._write()
        with contextlib.suppress(OSError), self.path.open("rb") as file:
            os.fsync(file.fileno())
        return {"num_rows": self._num_rows, "unwritten": list(self._unwritten)}

    def restore(self, state: dict[str, Any]) -> None:
        """Cuts off later rows, and warns if rows are missing."""
        if not self._writes:
            return
        num_rows = state["num_rows"]
        self._unwritten = list(state["unwritten"])
        self._cut(lambda rows: rows[:num_rows])
        if self._num_rows < num_rows:
            warnings.warn(
                f"{self.path} has {self._num_rows} of the {num_rows} rows that the run had "
                "written: the others are lost, and the table goes on without them.",
                stacklevel=2,
            )

    def _write(self) -> None:
        try:
            if self._is_torn:  # It may have written some of the rows, which come again.
                num_rows = self._num_rows
                self._cut(lambda rows: rows[:num_rows])
            with self.path.open("a", encoding="utf-8", newline="") as file:
                file.write("".join([HEADER if file.tell() == 0 else "", *self._unwritten]))
        except OSError as error:
            if not self._is_torn:
                warnings.warn(
                    f"cannot write to {self.path}: {error.strerror or error}. Training goes on, "
                    "and the rows are written when that is possible again.",
                    stacklevel=2,
                )
            self._is_torn = True
        else:
            self._num_rows += len(self._unwritten)
            self._unwritten, self._is_torn = [], False

    def _cut(self, choose: Callable[[list[str]], list[str]]) -> None:
        """Leaves the first rows of the table, as chosen, without a torn one."""
        if not self._writes:
            return
        text = self.path.read_text(encoding="utf-8") if self.path.exists() else ""
        if not text.startswith(HEADER) and not HEADER.startswith(text):
            raise ValueError(
                f"{self.path} exists and is not a table of digests: name another file, or move "
                "this one."
            )
        rows = choose([row for row in text.splitlines(keepends=True)[1:] if row.endswith("\n")])
        whole = HEADER + "".join(rows) if text.startswith(HEADER) else ""
        if whole != text:  # Cutting takes no room, where a disk may be full.
            os.truncate(self.path, len(whole.encode()))
        self._num_rows = len(rows)
