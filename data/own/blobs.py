"""Blobs: bytes of examples in files, by their number, for tf.data.

TensorFlow reads records and rows from the start of a file to its end. An order that is a
permutation asks for any of them next: one call a batch takes each from where the index says it
lies.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from .errors import unreadable

Int64Array = npt.NDArray[np.int64]


# Files of a dataset that stay open: of more, each read opens one, since a process may have 1,024.
_MAX_OPEN = 256


class Blobs:
    """Bytes of examples.

    Args:
      files: Where they lie.
      locate: Maps numbers of examples to the number of the file, the offset and the size in bytes
        of each.
    """

    def __init__(
        self, files: list[Path], locate: Callable[[Int64Array], Iterable[tuple[int, int, int]]]
    ) -> None:
        self._files = files
        self._locate = locate
        self._descriptors: dict[int, int] = {}
        self._lock = threading.Lock()

    def read(self, numbers: tf.Tensor) -> tf.Tensor:
        """Returns the bytes of some examples, string `[n]`. Context: graph, on the host's CPU."""
        blobs = tf.numpy_function(self._read, [numbers], tf.string, stateful=False)
        return tf.ensure_shape(blobs, numbers.shape)

    def _read(self, numbers: Int64Array) -> npt.NDArray[np.object_]:
        return np.array([self._read_one(*place) for place in self._locate(numbers)], dtype=object)

    def _read_one(self, file: int, offset: int, length: int) -> bytes:
        if len(self._files) > _MAX_OPEN:
            descriptor = _open(self._files[file])
            try:
                found = os.pread(descriptor, length, offset)
            finally:
                os.close(descriptor)
        else:
            found = os.pread(self._descriptor(file), length, offset)
        if len(found) < length:
            raise EOFError(f"{self._files[file]} has become shorter since it was indexed.")
        return found

    def _descriptor(self, file: int) -> int:
        if file not in self._descriptors:
            with self._lock:
                if file not in self._descriptors:
                    self._descriptors[file] = _open(self._files[file])
        return self._descriptors[file]

    def __del__(self) -> None:
        for descriptor in self._descriptors.values():
            os.close(descriptor)


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise unreadable(path, error) from error


class Rows:
    """Rows of an array in a file, as `numpy.save` writes it.

    Args:
      path: The file.
      start: Where the first row begins.
      shape: Of one row.
      dtype: Of its elements.
    """

    def __init__(self, path: Path, start: int, shape: tuple[int, ...], dtype: Any) -> None:
        self._shape, self._dtype = shape, np.dtype(dtype)
        size = int(np.prod(shape, dtype=np.int64)) * self._dtype.itemsize
        self._blobs = Blobs(
            [path], lambda rows: [(0, start + size * n, size) for n in rows.tolist()]
        )

    def read(self, numbers: tf.Tensor) -> tf.Tensor:
        """Returns rows, stacked. Context: graph."""
        is_little = self._dtype.newbyteorder("<") == self._dtype
        blobs = self._blobs.read(numbers)
        values = tf.io.decode_raw(blobs, self._dtype.newbyteorder("="), little_endian=is_little)
        num_rows = numbers.shape[0]
        rows = tf.reshape(values, [-1 if num_rows is None else num_rows, *self._shape])
        is_float = self._dtype.kind == "f"
        return tf.cast(rows, keras.config.floatx()) if is_float else rows

    def decode(self, numbers: tf.Tensor, y: Any) -> tuple[tf.Tensor, Any]:
        """Returns rows, and `y` as it is. Context: graph."""
        return self.read(numbers), y
