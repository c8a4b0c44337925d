"""The run folder: all files of a run in one place, never overwritten."""

from __future__ import annotations

import contextlib
import csv
import errno
import itertools
import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any, TextIO

from gradloop import lock
from gradloop.engine.runtime import describe_environment
from gradloop.engine.storage.writers import Record, read_csv
from gradloop.files import json_text, make_directory, write_atomically

from . import run_directory
from .log import Log

_SET_ASIDE = (
    "metrics.csv", "metrics.jsonl", "digests.csv", "tensorboard", "history.json", "summary.json",
)  # fmt: skip
# What a run has written when its mode begins.
_REFUSED = (run_directory.CLAIM, "config.json", "environment.json", "train.log", lock.LOCK_FILE)


class RunFolder:
    """Paths and JSON files of one run. `create` and `at` return one.

    It holds `config.json`, `environment.json`, `command.txt`, `metrics.csv`, `metrics.jsonl`,
    `history.json`, `summary.json`, `train.log`, and the directories `checkpoints/`,
    `tensorboard/`, `plots/` and `profile/`, which appear with their first file.

    Args:
      path: A folder that this process owns; no files are touched.
      suffix: In the names of JSON files, before `.json`: what is done with a run that has ended
        leaves the run's own files alone.
      writes: Whether this process writes files there: of several workers, the chief alone does.
      draws: Whether pictures are drawn.

    Attributes:
      made: Directories that were made for a run that begins here; None: it began before.
    """

    def __init__(
        self, path: Path, suffix: str = "", *, writes: bool = True, draws: bool = True
    ) -> None:
        self.path = path
        self.suffix = suffix
        self.writes = writes
        self.draws = draws
        self._written: set[str] = set()
        self.made: list[Path] | None = None

    @classmethod
    def create(
        cls,
        root: str | os.PathLike[str] = "runs",
        *,
        model: str,
        dataset: str,
        name: str | None = None,
    ) -> RunFolder:
        """Creates a new folder in `root`: see `run_directory.make_new`.

        Raises:
          ValueError: If it cannot be created.
        """
        folder = cls(run_directory.make_new(root, model=model, dataset=dataset, name=name))
        folder.made = [folder.path, folder.path.parent, Path(root)]
        folder._append_command()
        return folder

    @classmethod
    def at(
        cls, path: str | os.PathLike[str], *, resume: bool = False, suffix: str = ""
    ) -> RunFolder:
        """Creates the folder that a person names, or continues the run in it.

        Args:
          path: The folder.
          resume: Whether to continue in a folder that holds a run. Tables and logs are appended to;
            JSON files of the earlier run are kept as `<name>.1.json`, `<name>.2.json`, ...
          suffix: See the class.

        Raises:
          ValueError: If it holds a run and `resume` is false, or it cannot be written.
        """
        missing = [one for one in (Path(path), *Path(path).parents) if not one.exists()]
        directory = make_directory(path)
        folder = cls(directory, suffix)
        try:
            is_new = not run_directory.holds_run(directory)
            if resume or is_new:
                folder._append_command(must_be_new=not resume)
                folder.made = missing if is_new else None
                return folder
        except FileExistsError:  # Another process came first.
            pass
        except OSError as error:
            raise ValueError(f"cannot write to {directory}: {error}.") from error
        raise ValueError(run_directory.refusal(directory))

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
        """Returns the first free directory for a profile: `profile`, `profile-2`, ..."""
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

    @property
    def digests_csv(self) -> Path:
        """File for a StateDigest."""
        return self.path / "digests.csv"

    def write_json(self, name: str, value: Any) -> Path:
        """Writes `<name>.json` atomically; `gradloop.files.json_text` says how values are written.

        A file that this object wrote is replaced; one of an earlier run is kept under a numbered
        name.
        """
        path = self.path / f"{name}{self.suffix}.json"
        if not self.writes:
            return path
        text = json_text(value, indent=2) + "\n"
        if name not in self._written and path.exists() and path.read_text("utf-8") != text:
            shutil.copy2(path, _numbered(path))
        self._written.add(name)
        write_atomically(path, lambda file: file.write(text))
        return path

    def write_config(self, config: Any) -> Path:
        """Writes config.json from a dataclass or a dict."""
        return self.write_json("config", config)

    def write_environment(self) -> Path:
        """Writes environment.json. Initializes the devices: call it after `configure_runtime`."""
        return self.write_json("environment", describe_environment())

    def write_history(self, history: dict[str, list[float]]) -> Path:
        """Writes history.json."""
        return self.write_json("history", history)

    def write_summary(self, summary: dict[str, Any]) -> Path:
        """Writes summary.json."""
        return self.write_json("summary", summary)

    def read_records(self, log: Log) -> list[Record]:
        """Returns the records of metrics.csv; [] and a warning if it cannot be read."""
        records: list[Record] = []

        def read() -> None:
            try:
                records.extend(read_csv(self.metrics_csv))
            except (ValueError, TypeError, KeyError, csv.Error) as error:
                reason = f"it is no table of metrics ({error})"
                raise OSError(errno.EINVAL, reason, self.metrics_csv) from error

        if self.writes and self.metrics_csv.exists():
            log.attempt(read)
        return records

    def set_aside(self, name: str) -> None:
        """Gives a file or a folder of an earlier start the next free number, if there is one."""
        path = self.path / name
        if self.writes and path.exists():
            path.rename(_numbered(path))

    def set_aside_all(self) -> None:
        """Sets aside what a start has left that came to nothing, so that nothing is mixed up."""
        for name in _SET_ASIDE:
            self.set_aside(name)

    @property
    def has_only_begun(self) -> bool:
        """Whether the run began with this object, and has come to nothing yet."""
        has_results = self.checkpoints.exists() or self.metrics_csv.exists()
        return self.made is not None and not has_results

    def discard(self) -> None:
        """Removes a new run that was refused: there is nothing in it that is not in the message."""
        if not self.writes:
            return
        for name in _REFUSED:
            (self.path / name).unlink(missing_ok=True)
        for path in self.made or ():
            with contextlib.suppress(OSError):  # it is not empty
                path.rmdir()

    def open_log(self, stream: TextIO | None = None) -> Log:
        """Opens train.log for appending; for a process that does not write, the screen alone."""
        return Log(self.path / "train.log" if self.writes else None, stream)

    def _append_command(self, *, must_be_new: bool = False) -> None:
        command = shlex.join(sys.orig_argv or sys.argv)
        with (self.path / run_directory.CLAIM).open(
            "x" if must_be_new else "a", encoding="utf-8"
        ) as file:
            file.write(command + "\n")


def _numbered(path: Path) -> Path:
    """Returns the first free name of `name.1.json`, `name.2.json`, ..."""
    numbered = (path.with_suffix(f".{number}{path.suffix}") for number in itertools.count(1))
    return next(name for name in numbered if not name.exists())
