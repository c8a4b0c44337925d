"""A folder of images with a folder for each class."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from ..splits import Split, Splits
from . import kept
from .errors import FileError, shown, unreadable
from .image_header import read_header
from .loading import to_memory
from .options import COLOR_MODES, FileOptions

EXTENSIONS = (".png", ".jpg", ".jpeg")
PART_FOLDERS = {
    "train": ("train", "training"),
    "test": ("test",),
    "val": ("val", "valid", "validation"),
}


class _Images(NamedTuple):
    """The images of one part: paths below the folder, and class numbers."""

    paths: list[str]
    y: npt.NDArray[np.int32]


def load_folder(path: Path, options: FileOptions) -> Splits:
    """Returns the splits of a folder: `train/`, `test/` and `val/` of classes, or classes alone.

    Raises:
      FileError: If a class or the folder is empty, or an image is bad or differs in size.
    """
    options.refuse_others(("image_size", "color_mode", "in_memory"), f"{path}, a folder of images")
    roots = _part_roots(path)
    class_names = _class_names(roots["train"])
    parts = {part: _list_images(path, root, class_names) for part, root in roots.items()}
    shape = _common_shape(path, [p for images in parts.values() for p in images.paths], options)
    num_bytes = np.prod(shape) * sum(len(images.paths) for images in parts.values())
    decode = functools.partial(_decode, str(path), shape, options.image_size)
    made = {
        part: Split(
            np.array([os.fsencode(p) for p in images.paths]), images.y, len(class_names), decode,
            shape,
        )
        for part, images in parts.items()
    }  # fmt: skip
    if options.fits(float(num_bytes)):
        made = {
            part: to_memory(split, functools.partial(_name, path, parts[part].paths))
            for part, split in made.items()
        }
    return Splits(made["train"], made.get("test"), made.get("val"), class_names)


def _name(path: Path, paths: list[str], number: int) -> str:
    return str(path / paths[number])


def _part_roots(path: Path) -> dict[str, Path]:
    names = {folder.name: folder for folder in _folders(path)}
    found = {
        part: names[word] for part, words in PART_FOLDERS.items() for word in words if word in names
    }
    if not found:
        return {"train": path}
    if "train" not in found:
        raise FileError(f"{path} has {shown(names)}, but no folder train/: name it so.")
    others = sorted(set(names) - {folder.name for folder in found.values()})
    if others:
        raise FileError(
            f"{path} has {shown(others)} beside train/: expected train/, test/ and val/ alone, "
            "or a folder for each class."
        )
    return found


def _folders(path: Path) -> list[Path]:
    try:
        found = [f for f in path.iterdir() if f.is_dir() and not f.name.startswith(".")]
    except OSError as error:
        raise unreadable(path, error) from error
    return sorted(found)


def _class_names(root: Path) -> tuple[str, ...]:
    names = tuple(folder.name for folder in _folders(root))
    loose = next((f for f in sorted(root.iterdir()) if f.suffix.lower() in EXTENSIONS), None)
    if loose is not None:
        raise FileError(f"{loose} lies in no folder of a class: move it into one.")
    if len(names) < 2:
        raise FileError(
            f"{root} has {len(names)} folders of a class: expected two or more, each with the "
            f"images of one class ({', '.join(EXTENSIONS)})."
        )
    return names


def _list_images(path: Path, root: Path, class_names: tuple[str, ...]) -> _Images:
    paths, labels = [], []
    for folder in _folders(root):
        if folder.name not in class_names:
            raise FileError(
                f"{folder} is of a class that is not in training: {shown(class_names)}."
            )
        found = sorted(str(image.relative_to(path)) for image in _walk(folder))
        if not found:
            raise FileError(
                f"{folder} has no image ({', '.join(EXTENSIONS)}): add some, or remove the folder."
            )
        paths += found
        labels += [class_names.index(folder.name)] * len(found)
    if not paths:
        raise FileError(f"{root} has no folder of a class: add some, or remove the folder.")
    return _Images(paths, np.array(labels, np.int32))


def _walk(folder: Path) -> Iterator[Path]:
    for where, folders, names in os.walk(folder, followlinks=True):
        folders.sort()
        yield from (
            Path(where, n) for n in names if Path(n).suffix.lower() in EXTENSIONS and n[0] != "."
        )


def _common_shape(path: Path, paths: list[str], options: FileOptions) -> tuple[int, int, int]:
    files = [path / p for p in paths]

    def read_headers(folder: Path) -> None:
        np.save(folder / "headers.npy", np.array([read_header(f) for f in files], np.int32))

    headers = np.load(kept.keep(files, "headers of images", read_headers) / "headers.npy")
    sizes, channels = headers[:, :2], headers[:, 2]
    other = np.flatnonzero((sizes != sizes[0]).any(1))
    if options.image_size is None and other.size:
        (h, w), (other_h, other_w) = sizes[0], sizes[other[0]]
        raise FileError(
            f"{path}: images differ in size: {paths[0]} has {h} x {w} (height x width), and "
            f"{paths[other[0]]} has {other_h} x {other_w}: pass --image_size {h},{w} to resize "
            "them."
        )
    height, width = options.image_size or sizes[0].tolist()
    mode = options.color_mode or ("grayscale" if channels.max() <= 2 else "rgb")
    jpeg = next((p for p in paths if not p.lower().endswith(".png")), None)
    if mode == "rgba" and jpeg is not None:
        raise FileError(f"color_mode='rgba' is for PNG images, and {jpeg} is none: use 'rgb'.")
    return height, width, COLOR_MODES[mode]


def _decode(
    root: str, shape: tuple[int, int, int], size: tuple[int, int] | None, paths: Any, y: Any
) -> tuple[Any, Any]:
    """Returns images, uint8 `[n, height, width, channels]`, and `y`. Context: graph."""

    def decode_one(path: tf.Tensor) -> tf.Tensor:
        content = tf.io.read_file(tf.strings.join([root, path], separator=os.sep))
        image = tf.io.decode_image(content, shape[-1], expand_animations=False)
        if size is not None:
            # As keras.utils.image_dataset_from_directory does it, rounded to whole pixels.
            image = tf.cast(tf.round(tf.image.resize(image, size)), tf.uint8)
        return tf.ensure_shape(image, shape)

    return tf.map_fn(decode_one, paths, fn_output_signature=tf.TensorSpec(shape, tf.uint8)), y
