"""Arrays of one's own: those of a .npz file, and those that somebody's function returns."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gradloop.usage import did_you_mean

from ..batches import PIXEL_RANKS
from ..conversion import to_arrays
from ..splits import Split, Splits
from . import targets
from .blobs import Rows
from .errors import FileError, shown, unreadable
from .options import FileOptions

_PARTS = {"train": ("x_train", "y_train"), "val": ("x_val", "y_val"), "test": ("x_test", "y_test")}
_ALONE = ("x", "y")
# What Python raises for a file that is damaged, encrypted, or packed in another way.
_DAMAGES = (
    OSError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError,
)  # fmt: skip
# What a graph can read from a file.
_DTYPES = (
    "bool", "uint8", "int8", "uint16", "int16", "int32", "int64", "float16", "float32", "float64",
)  # fmt: skip
_LEGAL = (*_ALONE, *(name for pair in _PARTS.values() for name in pair), "class_names")


def load_npz(path: Path, options: FileOptions) -> Splits:
    """Returns the splits of a .npz file: `x_train`, `y_train` and so on, or `x` and `y`.

    Raises:
      FileError: If it cannot be read, or lacks what is needed.
    """
    options.refuse_others(("target_type", "in_memory"), f"{path}, which has arrays")
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        fits = options.fits(sum(info.file_size for info in members.values()))
        with np.load(path, allow_pickle=False) as file:
            _check_names(file.files, str(path))
            named = {k: file[k] for k in file.files if fits or not k.startswith("x")}
        if not fits:
            named |= {k: _map(path, members[k]) for k in members if k.startswith("x")}
    except FileError:
        raise
    except _DAMAGES as error:
        raise unreadable(path, error) from error
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise unreadable(path, error) from error
        raise FileError(
            f"{path} holds Python objects, which can run any code when they are loaded: save "
            "arrays of numbers or strings, of one shape an example."
        ) from error
    return from_named(named, str(path), options)


def from_named(named: Mapping[str, Any], where: str, options: FileOptions) -> Splits:
    """Returns the splits of arrays by name.

    Args:
      named: `x_train`, `y_train`, `x_test`, ... or `x` and `y`; `class_names` if there are any.
      where: What they come from, for messages.
      options: Of which `target_type` counts.

    Raises:
      FileError: If a name is missing or unknown, or arrays do not go together.
    """
    _check_names(named, where)
    pairs = {"train": _ALONE} if "x" in named else _PARTS
    pairs = {part: pair for part, pair in pairs.items() if pair[0] in named}
    inputs, raw_targets = {}, []
    for part, (x_name, y_name) in pairs.items():
        inputs[part], y = _checked(named, x_name, y_name, where)
        raw_targets.append(y)
    class_names = named.get("class_names")
    found = targets.encode(raw_targets, f"{where}: y", options.target_type, class_names)
    _check_shapes(inputs, where)
    made = {
        part: _split(inputs[part], y, found.num_classes)
        for part, y in zip(pairs, found.parts, strict=True)
    }
    return Splits(made["train"], made.get("test"), made.get("val"), found.class_names)


def _check_names(names: Any, where: str) -> None:
    names = list(names)
    for name in names:
        if name not in _LEGAL:
            raise FileError(
                f"{where} has {name!r}; legal are {', '.join(_LEGAL)}.{did_you_mean(name, _LEGAL)}"
            )
    pairs = [_ALONE, *_PARTS.values()]
    for pair in pairs:
        missing = [name for name in pair if name not in names]
        if len(missing) == 1:
            raise FileError(f"{where} has {shown(names)}, but no {missing[0]!r}: add it.")
    if ("x" in names) == ("x_train" in names):
        what = "both of" if "x" in names else "neither of"
        raise FileError(
            f"{where} has {what} x and x_train: expected x and y, or x_train, y_train and, if "
            f"there are any, x_test, y_test, x_val, y_val; it has {shown(names) or 'nothing'}."
        )


def _checked(named: Mapping[str, Any], x_name: str, y_name: str, where: str) -> tuple[Any, Any]:
    x, y = named[x_name], named[y_name]
    try:
        x = x if isinstance(x, _Mapped) else to_arrays(x, x_name)
        y = np.asarray(y) if isinstance(y, list) else to_arrays(y, y_name)
    except ValueError as error:
        raise FileError(f"{where}: {error}") from error
    if isinstance(y, np.ndarray) and y.dtype.kind == "O":  # strings, as pandas has them
        y = np.array(y.tolist())
    if not isinstance(y, np.ndarray):
        raise FileError(f"{where}: {y_name}: expected one array, got a {type(y).__name__}.")
    lengths = {len(array) for array in _leaves(x)}
    if lengths != {len(y)} or not len(y):
        counts = " and ".join(str(length) for length in sorted(lengths))
        raise FileError(
            f"{where}: {x_name} has {counts} examples, and {y_name} has {len(y)}: expected as "
            "many, one row an example."
        )
    return x, y


def _check_shapes(inputs: Mapping[str, Any], where: str) -> None:
    expected = _describe_examples(inputs["train"])
    for part, x in inputs.items():
        found = _describe_examples(x)
        if found != expected:
            raise FileError(
                f"{where}: an example of x_{part} is {shown(found)}, and one of x_train "
                f"{shown(expected)}: expected the same."
            )


def _describe_examples(x: Any) -> list[str]:
    named = sorted(x.items()) if isinstance(x, Mapping) else [("", one) for one in _leaves(x)]
    return [f"{name} {_kind_of(one)} of shape {one.shape[1:]}".strip() for name, one in named]


def _kind_of(array: Any) -> str:
    # Bytes of images are scaled, and nothing else is.
    is_scaled = array.dtype == np.uint8 and len(array.shape) in PIXEL_RANKS
    return "bytes" if is_scaled else "numbers"


def _leaves(x: Any) -> list[Any]:
    if isinstance(x, Mapping):
        return [*x.values()]
    return [*x] if isinstance(x, tuple) else [x]


def _split(x: Any, y: Any, num_classes: int | None) -> Split:
    return x.split(y, num_classes) if isinstance(x, _Mapped) else Split(x, y, num_classes)


class _Mapped:
    """An array that stays in its file."""

    def __init__(self, path: Path, start: int, shape: tuple[int, ...], dtype: Any) -> None:
        self._num_rows, self.dtype = shape[0], np.dtype(dtype)
        is_gray = self.dtype == np.uint8 and len(shape) == 3
        self.shape = (*shape, 1) if is_gray else shape
        self._rows = Rows(path, start, self.shape[1:], dtype)

    def __len__(self) -> int:
        return self._num_rows

    def split(self, y: Any, num_classes: int | None) -> Split:
        numbers = np.arange(self._num_rows)
        return Split(numbers, y, num_classes, self._rows.decode, self.shape[1:])


def _map(path: Path, info: zipfile.ZipInfo) -> _Mapped:
    if info.compress_type != zipfile.ZIP_STORED:
        raise FileError(
            f"{path} is compressed, so that its rows cannot be read from the disk as they are "
            "asked for: write it with numpy.savez, or pass --in_memory true."
        )
    with path.open("rb") as file:
        # Of the header before the member, the last fields are the sizes of its name and extra.
        file.seek(info.header_offset + 26)
        sizes = np.frombuffer(file.read(4), "<u2")
        file.seek(info.header_offset + 30 + int(sizes.sum()))
        version = np.lib.format.read_magic(file)
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }
        shape, is_fortran, dtype = read[version](file)
        if is_fortran or dtype.hasobject:
            raise FileError(
                f"{path}: {info.filename}: expected numbers in C order, so that an example lies in "
                "one piece: save numpy.ascontiguousarray of it."
            )
        if not shape or dtype.newbyteorder("=").name not in _DTYPES:
            raise FileError(
                f"{path}: {info.filename} is of dtype {dtype} and shape {shape}: expected examples "
                f"of one of {shown(_DTYPES)}, or pass --in_memory true."
            )
        return _Mapped(path, file.tell(), shape, dtype)
