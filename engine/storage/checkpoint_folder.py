"""CheckpointFolder: the checkpoints of a run, of which damaged ones never count.

A checkpoint is `ckpt-<num_steps_completed>.npz`. A folder has one writer at a time.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from gradloop.files import link_atomically, write_atomically

from ..variables import NamedValues, have_same_bytes
from .format import CheckpointError, CheckpointFile, DamagedError
from .snapshot import Snapshot, capture

if TYPE_CHECKING:
    from ..state import TrainState

BEST, FINAL = "best.npz", "final.npz"
QUARANTINE = "quarantine"

_FILE_NAME = re.compile(r"ckpt-(\d+)\.npz")
_LEFTOVER_NAME = re.compile(r"(ckpt-\d+|best|final)\.npz\.\d+\.tmp")
_Result = TypeVar("_Result")


class CheckpointFolder:
    """The checkpoints in a directory.

    A file is *good* if this object has written or verified it, and its size and time are the same
    since. A damaged one is moved into `quarantine/`, where nothing is ever overwritten, and named
    on stderr. Files of other names, and what is not a regular file, are left alone.

    Args:
      directory: It need not exist before the first `save`.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self.directory = Path(directory)
        self._good: dict[str, tuple[int, int]] = {}  # name to size and time

    def save(self, state: TrainState, name: str | None = None) -> Path:
        """Has the chief write a checkpoint, named after the progress by default; returns its path.

        Context: on all workers, which wait for it.

        Raises:
          OSError: If it cannot be written.
          ValueError: If the directory cannot, or the progress is impossible.
        """
        snapshot = capture(state)
        state.peers.on_chief(lambda: self.write(snapshot, name))
        return self.directory / (name or _name_of(snapshot))

    def write(self, snapshot: Snapshot, name: str | None = None) -> Path:
        """Writes a snapshot, under a name of its own if there is one."""
        name = name or _name_of(snapshot)
        path = self.directory / name
        snapshot.write(path)
        self._good[name] = _stamp(path)
        return path

    def read_newest(self, read: Callable[[CheckpointFile], _Result]) -> tuple[Path, _Result] | None:
        """Reads the newest good checkpoint, and each newer one once, which is then damaged.

        Args:
          read: Called with the open file.

        Returns:
          Its path and what `read` returned; None if there is no good one.

        Raises:
          CheckpointError: If one that is newer cannot be read for another reason than damage, so
            that going back to an older one could lose work.
        """
        for path in self.by_age():
            try:
                with CheckpointFile(path) as file:
                    result = read(file)
            except DamagedError as error:
                self.set_aside(path, error)
            else:
                self._good[path.name] = _stamp(path)
                return path, result
        return None

    def newest(self) -> Path | None:
        """Returns the newest good checkpoint, None if there is none."""
        paths = self.by_age()
        if paths and self._is_known(paths[0]):
            return paths[0]
        found = self.read_newest(CheckpointFile.verify)
        return None if found is None else found[0]

    def what_stays(self) -> str:
        """Returns a sentence on what there is, for a warning that a save has come to nothing."""
        try:
            newest = self.newest()
        except CheckpointError as error:  # which is raised where the file is needed
            return f"{error}"
        return "There is no checkpoint yet." if newest is None else f"{newest} stays."

    def is_good(self, path: Path) -> bool:
        """Returns whether a file is intact; reads it if that is not known. Moves a damaged one."""
        if self._is_known(path):
            return True
        try:
            with CheckpointFile(path) as file:
                file.verify()
        except DamagedError as error:
            self.set_aside(path, error)
            return False
        except CheckpointError as error:
            _say(f"skipped: {error}")
            return False
        self._good[path.name] = _stamp(path)
        return True

    def retain(self, max_to_keep: int) -> list[Path]:
        """Removes what is older than the newest good checkpoints, and what killed writers left.

        Args:
          max_to_keep: How many good ones stay.

        Returns:
          The checkpoints that were removed.
        """
        num_good = 0
        removed = []
        for path in self.by_age():
            if num_good == max_to_keep:
                removed.append(path)
            else:
                num_good += self.is_good(path)
        leftovers = [p for p in self.directory.iterdir() if _LEFTOVER_NAME.fullmatch(p.name)]
        for path in [*removed, *leftovers]:
            path.unlink(missing_ok=True)
        return removed

    def check_none_beyond(self, num_steps: int) -> None:
        """Raises ValueError if there is a good checkpoint of more than `num_steps` steps."""
        for path in self.by_age():
            if num_steps_of(path) <= num_steps:
                return
            if self.is_good(path):
                raise ValueError(
                    f"{path} is from a run that went further than this one, at step {num_steps}: "
                    "resume that run, or name another directory."
                )

    def name_best(self, path: Path) -> None:
        """Makes a checkpoint `best.npz` too: a second name of the file, or a copy of it."""
        best = self.directory / BEST
        try:
            link_atomically(path, best)
        except OSError:  # FAT and some network file systems have no links
            with path.open("rb") as file:
                write_atomically(best, lambda copy: shutil.copyfileobj(file, copy), mode="wb")

    def mend_best(self, num_steps: int) -> None:
        """Names the best checkpoint, of that step, if a kill came between writing and naming it."""
        path = self.directory / f"ckpt-{num_steps}.npz"
        if path.exists() and self.is_good(path):
            self.name_best(path)

    def by_age(self) -> list[Path]:
        """Newest first, by the number in the name: clocks and copies make file times unreliable."""
        paths = [path for path in self.directory.glob("ckpt-*.npz") if _is_checkpoint(path)]
        return sorted(paths, key=num_steps_of, reverse=True)

    def set_aside(self, path: Path, error: DamagedError) -> None:
        """Moves a damaged file into the quarantine, if that is possible, and says so."""
        quarantine = path.parent / QUARANTINE
        with contextlib.suppress(OSError):
            quarantine.mkdir(exist_ok=True)
            names = (f"{path.name}.{i}" if i else path.name for i in range(sys.maxsize))
            target = next(t for name in names if not (t := quarantine / name).exists())
            path.rename(target)
            _say(f"set aside: {error} It is now {target}.")
            return
        _say(f"skipped: {error}")

    def _is_known(self, path: Path) -> bool:
        try:
            return self._good.get(path.name) == _stamp(path)
        except OSError:
            return False


def _name_of(snapshot: Snapshot) -> str:
    return f"ckpt-{snapshot.progress.num_steps_completed}.npz"


def has_values(path: Path, values: NamedValues) -> bool:
    """Returns whether a checkpoint has these values of variables.

    Raises:
      CheckpointError: If it cannot be read.
    """
    with CheckpointFile(path) as file:
        return all(
            name in file.traits and have_same_bytes(file.read([name])[name], arrays)
            for name, arrays in values
        )


def num_steps_of(path: Path) -> int:
    """Returns the steps of a checkpoint, by its name."""
    match = _FILE_NAME.fullmatch(path.name)
    assert match is not None, path
    return int(match[1])


def _say(line: str) -> None:
    print(line, file=sys.stderr)


def _is_checkpoint(path: Path) -> bool:
    try:
        is_regular = stat.S_ISREG(path.stat().st_mode)
    except OSError:  # a link to nothing, or a file that is gone by now
        is_regular = False
    return is_regular and _FILE_NAME.fullmatch(path.name) is not None


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns
