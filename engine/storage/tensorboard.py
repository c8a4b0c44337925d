"""TensorBoardWriter: curves, images, histograms and texts for TensorBoard."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from gradloop.files import make_directory

from ..hooks.base import Media
from .extras import require_extra
from .writers import Kind, Writer


class TensorBoardWriter(Writer):
    """Writes scalars for TensorBoard under `train/` and `validation/`, as Keras's callback does.

    Tags are `epoch_<metric>` over epochs and `execution_<metric>` over steps.

    Args:
      directory: Where the event files go; it is created.

    Raises:
      MissingExtra: If the package `tensorboard` is not installed.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        require_extra("tensorboard", "tensorboard")
        self.directory = make_directory(directory)
        self._writers: dict[str, Any] = {}

    def write(self, step: int, logs: Mapping[str, float], *, epoch: int, kind: Kind) -> None:
        """See `Writer.write`."""
        for name, value in logs.items():
            if np.ndim(value) > 0:  # TensorBoard draws no curve of an array.
                continue
            run = "validation" if name.startswith("val_") else "train"
            with self._open(run).as_default():
                tag = f"{kind}_{name.removeprefix('val_')}"
                tf.summary.scalar(tag, value, step=epoch if kind == "epoch" else step)

    def write_media(self, step: int, media: Media) -> bool:
        """See `Writer.write_media`."""
        with self._open("train").as_default():
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
            writer.flush()

    def close(self) -> None:
        """See `Writer.close`."""
        for writer in self._writers.values():
            writer.close()
        self._writers = {}
