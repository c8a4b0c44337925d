"""Arrays in a zip of .npy entries, as `np.load` reads it: written one by one, read with bounds.

What is read may be damaged, or made to do harm. Nothing is unpacked, parsed beyond a few bytes or
given memory before its size is known to be no more than the file's.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import hashlib
import io
import os
import stat
import zipfile
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np

_CHUNK_BYTES = 4 << 20  # written at once: more takes several times as long on Linux
_MAX_HEADER_BYTES = 1 << 12
_SUFFIX = ".npy"
SHA256 = "sha256:"


class CheckpointError(ValueError):
    """A checkpoint is missing, damaged, or belongs to another model."""


class DamagedError(CheckpointError):
    """A file is no checkpoint, or not as it was written."""


@dataclasses.dataclass(frozen=True)
class Described:
    """What is known of an array before it is read.

    Attributes:
      dtype: Name, such as "float32" or "bfloat16".
      shape: As of the array.
      digest: Of the entry: its CRC-32 in the zip, which is made in any case, and the sum of the
        64-bit words of the array, which costs next to nothing; both as hexadecimal digits. In
        format 1, `sha256:` and the SHA-256 of the bytes, which took most of the time of a save.
    """

    dtype: str
    shape: tuple[int, ...]
    digest: str


class ArrayWriter:
    """Writes arrays one after another.

    Args:
      file: Where the zip goes; open for writing, and able to seek.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._zip = zipfile.ZipFile(file, "w", zipfile.ZIP_STORED)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        with contextlib.suppress(*([] if error is None else [Exception])):
            self._zip.close()  # of a file that is given up too, or its destructor would do it

    def add(self, name: str, array: np.ndarray) -> Described:
        """Writes an array, and takes no memory for it if it lies in one piece in C order."""
        array = np.asarray(array, order="C")
        # .npy files know no bfloat16 or float8 (kind V, from ml_dtypes): store their bits.
        stored = array.view(f"u{array.itemsize}") if array.dtype.kind == "V" else array
        data = _bytes_of(stored)
        # One date for all: equal states become equal files.
        entry = zipfile.ZipInfo(name + _SUFFIX)
        with self._zip.open(entry, "w", force_zip64=True) as opened:
            opened.write(_npy_header(stored))
            for start in range(0, len(data), _CHUNK_BYTES):
                opened.write(data[start : start + _CHUNK_BYTES])
        return Described(array.dtype.name, array.shape, _digest(entry, data))


class ArrayReader:
    """Reads arrays by name, in any order, from one opening of a file.

    A symbolic link to a file is followed. What is not a regular file (a pipe, a device, a
    directory) is refused, and opening it never waits.

    Args:
      path: The file.

    Raises:
      CheckpointError: If the file is missing, not a regular file, or cannot be read.
      DamagedError: If it is not a zip of entries that are stored as they are, each once.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = _open_regular(path)
        try:
            self._zip = zipfile.ZipFile(self._file)
            self._entries = {entry.filename: entry for entry in self._zip.infolist()}
            self._check_entries(os.fstat(self._file.fileno()).st_size)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    @property
    def names(self) -> set[str]:
        """Of all arrays."""
        return {name.removesuffix(_SUFFIX) for name in self._entries}

    def size(self, name: str) -> int:
        """Returns the bytes of an entry, 0 if there is none."""
        entry = self._entries.get(name + _SUFFIX)
        return 0 if entry is None else entry.file_size

    def read(self, name: str, described: Described | None = None) -> np.ndarray:
        """Reads an array.

        Args:
          name: Of the entry.
          described: What it must be; None: one-dimensional uint8 of any length.

        Raises:
          DamagedError: If the entry is another array than described, or has other bytes.
        """
        entry = self._entries[name + _SUFFIX]
        with self._zip.open(entry) as stream:
            stored, shape = _read_npy_header(stream)
            num_bytes = self.size(name) - stream.tell()
            dtype = np.dtype(np.uint8) if described is None else numpy_dtype(described.dtype)
            expected = (num_bytes,) if described is None else described.shape
            bits = np.dtype(f"u{dtype.itemsize}") if dtype.kind == "V" else dtype
            if (stored, shape) != (bits, expected) or num_bytes != _num_bytes(dtype, expected):
                raise DamagedError(f"another array under {name} than the metadata say")
            array = np.empty(expected, dtype)
            _fill(array, stream)
        if described is not None and not _has_digest(described.digest, entry, _bytes_of(array)):
            raise DamagedError(f"other bytes in {name} than were saved")
        return array

    def _check_entries(self, num_bytes: int) -> None:
        entries = self._zip.infolist()
        if len(self._entries) != len(entries):
            raise DamagedError("an entry is there twice")
        for entry in entries:
            is_plain = entry.compress_type == zipfile.ZIP_STORED and not entry.flag_bits & 1
            if not is_plain or entry.compress_size != entry.file_size:
                raise DamagedError(f"{entry.filename} is compressed or encrypted")
            if not entry.filename.endswith(_SUFFIX):
                raise DamagedError(f"{entry.filename} is no array")
        if sum(entry.file_size for entry in entries) > num_bytes:
            raise DamagedError("its entries claim to be larger than the file")


def numpy_dtype(name: str) -> np.dtype[Any]:
    """Returns the dtype of a name, of numbers alone; TensorFlow's import registers bfloat16.

    Raises:
      DamagedError: If the name is of something else.
    """
    try:
        dtype = np.dtype(name)
    except TypeError:
        dtype = np.dtype(object)
    if dtype.kind not in "biufcV" or dtype.name != name or dtype.names or dtype.hasobject:
        raise DamagedError(f"unknown dtype {name!r}")
    return dtype


def _digest(entry: zipfile.ZipInfo, data: memoryview) -> str:
    num_words = len(data) // 8
    words = np.frombuffer(data, np.uint64, num_words)
    rest = int.from_bytes(data[num_words * 8 :], "little")
    return f"{entry.CRC:08x}{(int(words.sum()) + rest) % (1 << 64):016x}"


def _has_digest(expected: str, entry: zipfile.ZipInfo, data: memoryview) -> bool:
    """Returns whether an entry has a digest. That its bytes have its CRC, reading them has told."""
    if expected.startswith(SHA256):
        return expected == SHA256 + hashlib.sha256(data).hexdigest()
    return expected == _digest(entry, data)


def _open_regular(path: Path) -> IO[bytes]:
    try:
        mode = path.stat().st_mode  # Of what a link leads to. Opening a device may already do harm.
        if not stat.S_ISREG(mode):
            raise CheckpointError(f"{path} is not a regular file: name a checkpoint.")
        # Nor does a pipe that has just taken its place make the opening wait.
        return os.fdopen(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb")
    except FileNotFoundError:
        raise CheckpointError(f"there is no checkpoint {path}.") from None
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}.") from error


def _npy_header(array: np.ndarray) -> bytes:
    header = io.BytesIO()
    fields = np.lib.format.header_data_from_array_1_0(array)
    np.lib.format.write_array_header_1_0(header, fields | {"fortran_order": False})
    return header.getvalue()


def _read_npy_header(stream: IO[bytes]) -> tuple[np.dtype[Any], tuple[int, ...]]:
    version = np.lib.format.read_magic(stream)
    length = int.from_bytes(stream.read(2 if version == (1, 0) else 4), "little")
    if length > _MAX_HEADER_BYTES:
        raise DamagedError("an entry has no .npy header")
    fields = ast.literal_eval(stream.read(length).decode("latin1").strip())
    if set(fields) != {"descr", "fortran_order", "shape"} or fields["fortran_order"] is not False:
        raise DamagedError("an entry has an unknown .npy header")
    return np.dtype(fields["descr"]), fields["shape"]


def _num_bytes(dtype: np.dtype[Any], shape: tuple[int, ...]) -> int:
    num_bytes = dtype.itemsize
    for length in shape:
        num_bytes *= length
    return num_bytes


def _bytes_of(array: np.ndarray) -> memoryview:
    return array.reshape(-1).view(np.uint8).data


def _fill(array: np.ndarray, stream: IO[bytes]) -> None:
    data, position = _bytes_of(array), 0
    while chunk := stream.read(_CHUNK_BYTES):  # The last one compares the CRC of the zip.
        data[position : position + len(chunk)] = chunk
        position += len(chunk)
    if position != len(data):
        raise DamagedError("an entry ends early")
