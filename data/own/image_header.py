"""Size and channels of a PNG or JPEG image from its first bytes, without decoding it."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import BinaryIO, NamedTuple

from .errors import FileError, unreadable

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8"
_PNG_CHANNELS = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}
# Start of frame, in all its kinds; the others in this range are tables.
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
# How far before its end a whole file has its last marker: programs append their own data.
_TAIL = 4096


class Header(NamedTuple):
    """What the first bytes of an image say of it."""

    height: int
    width: int
    channels: int


def read_header(path: Path) -> Header:
    """Returns what an image says of itself.

    Raises:
      FileError: If it is neither PNG nor JPEG, or a part of it is missing.
    """
    try:
        with path.open("rb") as file:
            magic = file.read(len(_PNG))
            if magic == _PNG:
                return _read(file, path, b"IEND", _png_header)
            if magic.startswith(_JPEG):
                return _read(file, path, b"\xff\xd9", _jpeg_header)
    except OSError as error:
        raise unreadable(path, error) from error
    what = "is empty" if not magic else "is neither a PNG nor a JPEG image"
    raise FileError(f"{path} {what}: take it out of the folder, or convert it.")


def _read(file: BinaryIO, path: Path, end: bytes, read: object) -> Header:
    assert callable(read)
    try:
        header = Header(*read(file))
        file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
        if end in file.read():
            return header
    except (struct.error, KeyError):
        pass
    raise FileError(f"{path} is damaged, or ends early: take it out of the folder, or replace it.")


def _png_header(file: BinaryIO) -> tuple[int, int, int]:
    file.seek(16)
    width, height, _, kind = struct.unpack(">IIBB", file.read(10))
    return height, width, _PNG_CHANNELS[kind]


def _jpeg_header(file: BinaryIO) -> tuple[int, int, int]:
    file.seek(len(_JPEG))
    while True:
        mark, kind, length = struct.unpack(">BBH", file.read(4))
        if mark != 0xFF:
            raise struct.error("no marker")
        if kind in _FRAMES:
            _, height, width, channels = struct.unpack(">BHHB", file.read(6))
            return height, width, channels
        file.seek(length - 2, os.SEEK_CUR)
