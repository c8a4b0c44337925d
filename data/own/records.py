"""TFRecord files of `tf.train.Example`, with a spec in JSON."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from ..splits import Split, Splits
from . import kept, targets
from .blobs import Blobs
from .errors import FileError
from .loading import to_memory
from .options import FileOptions
from .spec import RecordSpec, read_spec

# Of a record: the length and its checksum come before the bytes, and another checksum after them.
_BEFORE, _AFTER = 12, 4
_CHUNK = 1024
_GZIP = b"\x1f\x8b"


def load_records(parts: dict[str, list[Path]], options: FileOptions) -> Splits:
    """Returns the splits of TFRecord files.

    Args:
      parts: "train", "test" and "val" to the files of each.
      options: Of which `target_type` and `in_memory` count.

    Raises:
      FileError: If a file is damaged, or does not hold what the spec says.
    """
    first = parts["train"][0]
    options.refuse_others(("target_type", "in_memory"), f"{first}, which has records")
    spec = read_spec(first)
    indices = {part: _index(files, spec) for part, files in parts.items()}
    found = targets.Targets([])
    if _is_single(spec):
        raw_targets = [np.load(folder / "y.npy") for folder in indices.values()]
        where = f"{first}: {spec.y}"
        found = targets.encode(raw_targets, where, options.target_type, spec.class_names)
    made = {}
    for number, (part, files) in enumerate(parts.items()):
        y = found.parts[number] if found.parts else None
        made[part] = _split(files, indices[part], spec, y, found.num_classes)
    size = sum(spec.features[name].num_bytes for name in spec.inputs)
    if options.fits(size * sum(split.num_examples for split in made.values())):
        made = {
            part: to_memory(s, functools.partial(_name, parts[part])) for part, s in made.items()
        }
    return Splits(made["train"], made.get("test"), made.get("val"), found.class_names)


def _is_single(spec: RecordSpec) -> bool:
    """Returns whether an example has one target, which an index can hold."""
    return spec.features[spec.y].shape in ((), (1,))


def _name(files: list[Path], number: int) -> str:
    return f"{files[0].parent if len(files) > 1 else files[0]}: record {number + 1}"


def _split(
    files: list[Path], index: Path, spec: RecordSpec, y: Any, num_classes: int | None
) -> Split:
    places = np.load(index / "places.npy", mmap_mode="r")
    blobs = Blobs(files, lambda numbers: places[numbers].tolist())
    names = spec.inputs if y is not None else (*spec.inputs, spec.y)

    def decode(numbers: tf.Tensor, y: Any) -> tuple[Any, Any]:
        found = spec.parse(blobs.read(numbers), names)
        x = found[spec.x] if isinstance(spec.x, str) else {n: found[n] for n in spec.x}
        return x, found.get(spec.y, y)

    shapes = {name: spec.features[name].shape for name in spec.inputs}
    shape = shapes[spec.x] if isinstance(spec.x, str) else shapes
    split = Split(np.arange(len(places)), y, num_classes, decode, shape)
    try:
        split.take([0])
    except tf.errors.OpError as error:
        raise _unlike_spec(files[0], error) from error
    return split


def _unlike_spec(file: Path, error: tf.errors.OpError) -> FileError:
    # Lines that begin with [[ name nodes of the graph.
    lines = [s.strip() for s in error.message.splitlines() if s.strip() and "[[" not in s]
    reason = re.sub(r"\{\{.*?\}\}|\[Op:.*", "", lines[-1] if lines else "").strip()
    return FileError(f"{file} does not hold what its spec says: {reason[:300]}")


def _index(files: list[Path], spec: RecordSpec) -> Path:
    """Returns a folder with the place of each record, and with the targets if they are single."""
    has_targets = _is_single(spec)

    def write(folder: Path) -> None:
        found = [_scan(file, n, spec, has_targets) for n, file in enumerate(files)]
        np.save(folder / "places.npy", np.concatenate([places for places, _ in found]))
        np.save(folder / "y.npy", np.concatenate([y for _, y in found]), allow_pickle=False)

    return kept.keep(files, ["records", repr(spec.features[spec.y]), spec.y], write)


def _scan(
    file: Path, number: int, spec: RecordSpec, has_targets: bool
) -> tuple[npt.NDArray[np.int64], npt.NDArray[Any]]:
    """Reads a file once: number of the file, offset and length of each record; the targets."""
    with file.open("rb") as opened:
        if opened.read(len(_GZIP)) == _GZIP:
            raise FileError(
                f"{file} is compressed, so that no record can be read alone: write it without "
                "compression."
            )
    lengths, found = [], []
    try:
        for records in tf.data.TFRecordDataset(str(file)).batch(_CHUNK):
            lengths.append(tf.strings.length(records).numpy())
            if has_targets:
                found.append(spec.parse(records, (spec.y,))[spec.y].numpy())
    except tf.errors.DataLossError as error:
        num_read = sum(len(part) for part in lengths)
        raise FileError(
            f"{file} is damaged or ends early, after record {num_read} or a little later: write it "
            "again."
        ) from error
    except tf.errors.InvalidArgumentError as error:
        raise _unlike_spec(file, error) from error
    if not lengths:
        raise FileError(f"{file} has no records.")
    return _places(np.concatenate(lengths), number), _joined(found)


def _places(lengths: npt.NDArray[Any], number: int) -> npt.NDArray[np.int64]:
    lengths = lengths.astype(np.int64)
    ends = np.cumsum(lengths + _BEFORE + _AFTER)
    offsets = ends - lengths - _AFTER
    return np.stack([np.full_like(lengths, number), offsets, lengths], axis=1)


def _joined(found: list[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    if not found:
        return np.empty(0, np.int64)
    y = np.concatenate(found)
    return y.astype(bytes) if y.dtype.kind == "O" else y
