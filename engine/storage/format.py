"""The file of a checkpoint: what is in it, and how every byte of it is verified.

It is one zip of arrays, never of pickles, so that a file from a stranger can do no more than hold
wrong numbers. Each variable is there as `replica<i>/<name>`: one array where the replicas agree,
one for each where they do not (BatchNorm statistics). The arrays of the run's other parts are
`tree/<i>`. The entry `metadata`, the last one, is JSON: the format, the progress, the dtype, shape
and digests of each array, and the tree itself.

Format 1 had no tree, and other digests. Every version reads it.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import IO, Any, Self, TypeVar

import numpy as np

from ..history import Progress
from . import trees
from .archive import SHA256, ArrayReader, ArrayWriter, CheckpointError, DamagedError, Described
from .matching import Trait

__all__ = ["Checkpoint", "CheckpointError", "CheckpointFile", "DamagedError", "load", "write"]

FORMAT = 2
_READABLE = (1, 2)
_METADATA = "metadata"
MAX_METADATA_BYTES = 32 << 20

Values = Iterable[tuple[str, list[np.ndarray]]]
_Result = TypeVar("_Result")


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """The verified contents of a file.

    Attributes:
      progress: Of the run when it was saved.
      values: Variable name to its arrays, one for each replica or one for all.
      tree: What `state.resumption.capture` returned.
    """

    progress: Progress
    values: dict[str, list[np.ndarray]]
    tree: dict[str, Any]


def write(file: IO[bytes], progress: Progress, values: Values, tree: Mapping[str, Any]) -> None:
    """Writes a checkpoint, one variable after another: no more than one is in memory.

    Args:
      file: Open for writing bytes.
      progress: Of the run.
      values: Variable name and its arrays, made when they are asked for.
      tree: Of the other parts of the run, as `trees` has it.

    Raises:
      TypeError: If the tree holds what a checkpoint cannot.
    """
    arrays: list[np.ndarray] = []
    encoded = trees.encode(tree, arrays)
    with ArrayWriter(file) as writer:
        variables = {
            name: _joined([writer.add(f"replica{i}/{name}", v) for i, v in enumerate(replicas)])
            for name, replicas in values
        }
        metadata = {
            "format": FORMAT,
            "progress": dataclasses.asdict(progress),
            "variables": variables,
            "arrays": [_joined([writer.add(f"tree/{i}", a)]) for i, a in enumerate(arrays)],
            "tree": encoded,
        }
        text = json.dumps(metadata, allow_nan=False).encode()
        if len(text) > MAX_METADATA_BYTES:
            raise TypeError(
                f"the state of the run beside its arrays has {len(text)} bytes of JSON, more than "
                f"{MAX_METADATA_BYTES}: keep long lists as NumPy arrays."
            )
        writer.add(_METADATA, np.frombuffer(text, np.uint8))


def load(path: str | os.PathLike[str]) -> Checkpoint:
    """Reads a file and verifies every byte that counts.

    Raises:
      CheckpointError: If the file is missing, damaged, or of another format; names the reason.
    """
    with CheckpointFile(path) as file:
        return Checkpoint(file.progress, file.read(file.traits), file.read_tree())


class CheckpointFile:
    """A checkpoint that is opened once. What it says of itself is checked before it is believed.

    Args:
      path: A file, or a link to one.

    Attributes:
      progress: Of the run when it was saved.
      traits: Variable name to dtype and shape.

    Raises:
      CheckpointError: If the file is missing, not a regular file, cannot be read or is of a later
        format.
      DamagedError: If it is none that `write` wrote.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._reader = self._guarded(lambda: ArrayReader(self.path))
        try:
            self._guarded(self._read_metadata)
        except BaseException:
            self._reader.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.close()

    @property
    def traits(self) -> dict[str, Trait]:
        """Variable name to dtype and shape."""
        return {n: Trait(one[0].dtype, one[0].shape) for n, one in self._variables.items()}

    def read(self, names: Iterable[str]) -> dict[str, list[np.ndarray]]:
        """Returns the verified arrays of variables."""
        return self._guarded(lambda: {name: self._read_replicas(name) for name in names})

    def read_tree(self) -> dict[str, Any]:
        """Returns the verified tree of the run's other parts."""

        def read() -> dict[str, Any]:
            arrays = [self._reader.read(f"tree/{i}", d) for i, d in enumerate(self._arrays)]
            tree = trees.decode(self._tree, arrays)
            _require(isinstance(tree, dict), "its tree is no dict")
            return dict(tree)

        return self._guarded(read)

    def verify(self) -> None:
        """Reads all and keeps nothing.

        Raises:
          DamagedError: If a byte that counts is not as it was written.
        """
        for name in self._variables:
            self.read([name])
        self.read_tree()

    def _read_replicas(self, name: str) -> list[np.ndarray]:
        described = self._variables[name]
        return [self._reader.read(f"replica{i}/{name}", d) for i, d in enumerate(described)]

    def _read_metadata(self) -> None:
        size = self._reader.size(_METADATA)
        _require(size > 0, "it has no metadata")
        _require(size <= MAX_METADATA_BYTES, f"its metadata have {size} bytes")
        metadata = json.loads(self._reader.read(_METADATA).tobytes())
        if metadata["format"] not in _READABLE:
            raise CheckpointError(
                f"{self.path} has format {metadata['format']}; this version reads formats "
                f"{', '.join(map(str, _READABLE))}: take a later version of gradloop."
            )
        self.progress = checked_progress(metadata["progress"])
        variables = metadata["variables"]
        self._variables = {name: _described(one) for name, one in variables.items()}
        self._arrays = [_described(one)[0] for one in metadata.get("arrays", [])]
        self._tree = metadata.get("tree", {})
        names = {f"replica{i}/{n}" for n, one in self._variables.items() for i in range(len(one))}
        names |= {f"tree/{i}" for i in range(len(self._arrays))} | {_METADATA}
        _require(names == self._reader.names, "its entries are not those of its metadata")

    def _guarded(self, read: Callable[[], _Result]) -> _Result:
        """Calls what reads, and says of which file an error is."""
        try:
            return read()
        except DamagedError as error:
            raise DamagedError(f"{self.path} is damaged ({error}).") from error
        except (CheckpointError, MemoryError):
            raise
        except OSError as error:  # The disk, not the file.
            reason = error.strerror or error
            raise CheckpointError(f"cannot read {self.path}: {reason}.") from error
        # Bytes that nobody wrote make zipfile, json and numpy raise nearly anything.
        except Exception as error:
            # zipfile takes a disk that cannot be read for a file that is no zip.
            if isinstance(error.__context__, OSError):
                reason = error.__context__.strerror or error.__context__
                raise CheckpointError(f"cannot read {self.path}: {reason}.") from error
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise DamagedError(f"{self.path} is damaged, or no checkpoint ({reason}).") from error


def _joined(replicas: Collection[Described]) -> dict[str, Any]:
    first = next(iter(replicas))
    digests = [one.digest for one in replicas]
    return {"dtype": first.dtype, "shape": list(first.shape), "digests": digests}


def _described(described: Any) -> list[Described]:
    dtype, shape = described["dtype"], described["shape"]
    is_format_1 = "sha256" in described
    digests, prefix = (described["sha256"], SHA256) if is_format_1 else (described["digests"], "")
    _require(isinstance(dtype, str), f"a dtype is {_short(dtype)}")
    is_shape = isinstance(shape, list) and all(map(_is_count, shape))
    _require(is_shape, f"a shape is {_short(shape)}")
    are_digests = isinstance(digests, list) and len(digests) > 0
    are_digests = are_digests and all(isinstance(one, str) for one in digests)
    _require(are_digests, f"digests are {_short(digests)}")
    return [Described(dtype, tuple(shape), prefix + one) for one in digests]


def checked_progress(fields: Any) -> Progress:
    """Returns the progress of these fields.

    Raises:
      DamagedError: If no run can be there; names the field.
    """
    names = {field.name for field in dataclasses.fields(Progress)}
    _require(isinstance(fields, dict) and set(fields) == names, f"progress is {_short(fields)}")
    for name, value in fields.items():
        is_legal = _is_count(value) or (name == "steps_per_epoch" and value is None)
        _require(is_legal, f"{name} is {_short(value)}")
    progress = Progress(**fields)
    where = f"epoch is {progress.epoch} after {progress.num_epochs_completed} completed ones"
    _require(progress.num_epochs_completed - progress.epoch in (0, 1), where)
    limit = progress.num_steps_completed
    if progress.steps_per_epoch is not None:
        limit = min(limit, progress.steps_per_epoch)
    _require(progress.step <= limit, f"step is {progress.step}, more than {limit}")
    return progress


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 53


def _short(value: Any) -> str:
    return repr(value)[:60]


def _require(is_legal: bool, fault: str) -> None:
    if not is_legal:
        raise DamagedError(fault)
