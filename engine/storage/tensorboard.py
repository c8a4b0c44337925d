"""TensorBoardWriter: curves, images, histograms and texts for TensorBoard."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from gradloop.files import make_directory

from ..hooks.base import Media
from .extras import require_extra
from .records import Kind, Writer
from .writers import sync

_RUNS = ("train", "validation")


class TensorBoardWriter(Writer):
    """Writes scalars for TensorBoard under `train/` and `validation/`, as Keras's callback does.

    Tags are `epoch_<metric>` over epochs and `execution_<metric>` over steps. What cannot be
    written raises OSError, as with files, though maybe only when TensorFlow empties its queue.

    Args:
      directory: Where the event files go; it is created.

    Raises:
      MissingExtra: If the package `tensorboard` is not installed.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        require_extra("tensorboard", "tensorboard")
        self.directory = make_directory(directory)
        self._writers: dict[str, Any] = {}

    @property
    def location(self) -> str:
        """See `Writer.location`."""
        return str(self.directory)

    def write(self, step: int, logs: Mapping[str, float], *, epoch: int, kind: Kind) -> None:
        """See `Writer.write`."""
        for name, value in logs.items():
            if np.ndim(value) > 0:  # TensorBoard draws no curve of an array.
                continue
            run = "validation" if name.startswith("val_") else "train"
            with _os_errors(), self._open(run).as_default():
                tag = f"{kind}_{name.removeprefix('val_')}"
                tf.summary.scalar(tag, value, step=epoch if kind == "epoch" else step)

    def write_media(self, step: int, media: Media) -> bool:
        """See `Writer.write_media`."""
        with _os_errors(), self._open("train").as_default():
            if media.kind == "image":
                images = np.asarray(media.value)
                images = images[None] if images.ndim == 3 else images
                tf.summary.image(media.name, images, step=step, max_outputs=len(images))
            elif media.kind == "histogram":
                tf.summary.histogram(media.name, media.value, step=step)
            else:
                tf.summary.text(media.name, media.value, step=step)
        return True

    def _open(self, run: str) -> Any:
        if run not in self._writers:
            self._writers[run] = tf.summary.create_file_writer(str(self.directory / run))
        return self._writers[run]

    def flush(self) -> None:
        """See `Writer.flush`."""
        for writer in self._writers.values():
            with _os_errors():
                writer.flush()

    def close(self) -> None:
        """See `Writer.close`."""
        writers, self._writers = self._writers, {}
        with contextlib.ExitStack() as stack:
            for writer in writers.values():
                stack.enter_context(_os_errors())
                stack.callback(writer.close)

    def state(self) -> dict[str, Any]:
        """Returns the sizes of the event files in bytes, also of those from before this run."""
        self.flush()
        for path in self._event_files().values():
            sync(path)
        return {"sizes": {name: path.stat().st_size for name, path in self._event_files().items()}}

    def restore(self, state: dict[str, Any]) -> None:
        """See `Writer.restore`: cuts event files to their sizes, and deletes those of later."""
        if "sizes" not in state:
            return
        self.close()
        sizes = state["sizes"]
        files = self._event_files()
        for name, path in files.items():
            if name not in sizes:
                path.unlink()
            elif path.stat().st_size > sizes[name]:
                os.truncate(path, sizes[name])
        short = [n for n, s in sizes.items() if n not in files or files[n].stat().st_size < s]
        if short:
            warnings.warn(
                f"{self.directory}: {', '.join(short)} had more events when the run was saved: "
                "they are missing, and the run goes on behind what there is.",
                stacklevel=2,
            )

    def _event_files(self) -> dict[str, Path]:
        """Returns the event files in the folders of this writer by their names below it."""
        found = [path for run in _RUNS for path in (self.directory / run).glob("*.tfevents.*")]
        return {path.relative_to(self.directory).as_posix(): path for path in sorted(found)}


@contextlib.contextmanager
def _os_errors() -> Iterator[None]:
    """Raises TensorFlow's errors of the file system as Python's."""
    try:
        yield
    except tf.errors.OpError as error:
        raise OSError(error.message) from error
