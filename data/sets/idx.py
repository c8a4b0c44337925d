"""The four IDX files of MNIST and of datasets like it: reading, writing, verifying.

Whatever a source gives (IDX, gzipped IDX, `.npz`, a pickle), it is converted to the canonical
uncompressed IDX bytes, and their SHA-256 is compared with a pinned one. So one check covers every
source, and nothing that fails it becomes an array.
"""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

UInt8Array = npt.NDArray[np.uint8]
Split = tuple[UInt8Array, UInt8Array]
RawFiles = Mapping[str, bytes | bytearray]

IDX_SHAPES: dict[str, tuple[int, ...]] = {
    "train-images-idx3-ubyte": (60_000, 28, 28),
    "train-labels-idx1-ubyte": (60_000,),
    "t10k-images-idx3-ubyte": (10_000, 28, 28),
    "t10k-labels-idx1-ubyte": (10_000,),
}
NPZ_KEYS = dict(zip(IDX_SHAPES, ("x_train", "y_train", "x_test", "y_test"), strict=True))
_UBYTE_MAGIC = 0x0800
# Several times the largest file. Stops a small .gz that would unpack to more than the memory.
_MAX_BYTES = 2**28
_UNREADABLE = (OSError, EOFError, zlib.error)


class Arrays(NamedTuple):
    """The verified arrays, in the order of `IDX_SHAPES`."""

    x_train: UInt8Array
    y_train: UInt8Array
    x_test: UInt8Array
    y_test: UInt8Array


class BadFileError(Exception):
    """A file that exists but is not what it should be.

    Args:
      path: The file, so that the caller can set it aside.
      reason: What is wrong with it.
    """

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


class Fetched(NamedTuple):
    """The raw files of a source, not yet verified.

    Attributes:
      files: IDX file name to uncompressed bytes.
      origin: The archive or folder that they come from.
    """

    files: RawFiles
    origin: Path


@dataclasses.dataclass(frozen=True)
class Source:
    """One place to get the raw files from.

    Attributes:
      title: Its name on the screen and in errors.
      fetch: Called with an empty scratch folder; returns the files, not yet verified. Raises
        `BadFileError`, or `OSError` with the reason why it has no files.
    """

    title: str
    fetch: Callable[[Path], Fetched]


@dataclasses.dataclass(frozen=True)
class RawDataset:
    """A dataset of four IDX files.

    Attributes:
      name: Also the name of its folder in the cache.
      sha256: IDX file name to SHA-256 of the uncompressed file, as `hashes` makes it.
      sources: Tried in this order if the cache lacks the files.
    """

    name: str
    sha256: Mapping[str, str]
    sources: tuple[Source, ...]


def hashes(*in_order: str) -> Mapping[str, str]:
    """Returns a mapping of IDX file name to hash; the hashes come in the order of `IDX_SHAPES`."""
    return dict(zip(IDX_SHAPES, in_order, strict=True))


def encode(array: UInt8Array) -> bytes:
    """Returns the IDX file of an array: magic number, big-endian dimensions, then the bytes."""
    header = struct.pack(f">I{array.ndim}I", _UBYTE_MAGIC + array.ndim, *array.shape)
    return header + array.tobytes()


def verify(spec: RawDataset, name: str, data: bytes | bytearray, path: Path) -> UInt8Array:
    """Returns one IDX file as an array, if it is the published file.

    Args:
      spec: The dataset that the file should belong to.
      name: One of `IDX_SHAPES`.
      data: The uncompressed file. A bytearray becomes the memory of the array, without a copy.
      path: Where the bytes come from; named in the error.

    Raises:
      BadFileError: If the SHA-256 is not the pinned one.
    """
    actual, expected = hashlib.sha256(data).hexdigest(), spec.sha256[name]
    if actual != expected:
        raise BadFileError(path, _fault(name, data, expected, actual))
    shape = IDX_SHAPES[name]
    # An array over bytes would be read-only; the arrays of keras.datasets are writable.
    buffer = data if isinstance(data, bytearray) else bytearray(data)
    return np.frombuffer(buffer, np.uint8, offset=4 + 4 * len(shape)).reshape(shape)


def decode(spec: RawDataset, fetched: Fetched) -> Arrays:
    """Verifies the four files of a source and returns them as arrays.

    Raises:
      BadFileError: If a file is missing or is not the published one.
    """
    files, origin = fetched
    for name in IDX_SHAPES:
        if name not in files:
            raise BadFileError(origin, f"holds no {name}")
    paths = present_files(spec.name, origin)
    archive = paths.get(f"{spec.name}.npz", origin)
    return Arrays(
        *(verify(spec, name, files[name], paths.get(name, archive)) for name in IDX_SHAPES)
    )


def _fault(name: str, data: bytes | bytearray, expected: str, actual: str) -> str:
    """Returns what is wrong with a file: its format, its shape, its length or its content."""
    want = IDX_SHAPES[name]
    header_size = 4 + 4 * len(want)
    size = header_size + int(np.prod(want))
    digests = f"SHA-256 expected {expected}, actual {actual}"
    if len(data) >= header_size:
        magic, *shape = struct.unpack(f">I{len(want)}I", data[:header_size])
        if magic != _UBYTE_MAGIC + len(want):
            return f"{name} is not an IDX file of {len(want)}-dimensional bytes; {digests}"
        if tuple(shape) != want:
            return f"{name} has the wrong shape: expected {want}, actual {tuple(shape)}; {digests}"
    if len(data) < size:
        return f"{name} is truncated: expected {size} bytes, actual {len(data)}; {digests}"
    return f"{name} is altered, or belongs to another dataset; {digests}"


def present_files(dataset: str, folder: Path) -> dict[str, Path]:
    """Returns the files of a dataset that a folder holds: name without `.gz` to path.

    Of a file that is there twice, gzipped and not, it returns the one that is not.
    """
    names = (*IDX_SHAPES, f"{dataset}.npz")
    candidates = [(name, folder / f"{name}{suffix}") for name in names for suffix in (".gz", "")]
    return {name: path for name, path in candidates if path.is_file()}


def read_folder(dataset: str, folder: Path) -> Fetched | None:
    """Reads the four IDX files of a folder, each gzipped or not, or its `.npz` file.

    Returns:
      The files, not yet verified; None if the folder holds no complete dataset.

    Raises:
      BadFileError: If a file cannot be read.
    """
    paths = present_files(dataset, folder)
    if paths.keys() >= IDX_SHAPES.keys():
        return Fetched({name: _read_idx(paths[name]) for name in IDX_SHAPES}, folder)
    npz = paths.get(f"{dataset}.npz")
    return None if npz is None else Fetched(_read_npz(npz), npz)


def _read_idx(path: Path) -> bytearray:
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            return bytearray(file.read(_MAX_BYTES))
    except _UNREADABLE as error:
        raise BadFileError(path, f"cannot be read: {error}") from error


def _read_npz(path: Path) -> RawFiles:
    """Returns the arrays of a `keras.datasets` archive as IDX files, without unpickling."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: _encode_any(archive[key]) for name, key in NPZ_KEYS.items()}
    # TypeError: the file holds a single array, as .npy files do.
    except (*_UNREADABLE, KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
        raise BadFileError(path, f"cannot be read: {error}") from error


def _encode_any(array: npt.NDArray[np.generic]) -> bytes:
    if array.dtype != np.uint8:
        raise ValueError(f"expected arrays of uint8, got {array.dtype}")
    return encode(array.view(np.uint8))
