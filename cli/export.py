"""Export: a checkpoint's model as a file or a folder that others load, whole or not there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from gradloop import engine
from gradloop.data.batches import is_pixels
from gradloop.engine.variables import local_values
from gradloop.files import force_to_disk, make_directory

from .job import Job, Status
from .log import Log
from .run_folder import RunFolder
from .work.objectives import are_probabilities

SIGNATURE = "serving_default"
PROBABILITIES, OUTPUTS = "probabilities", "outputs"
# Written in here, and moved out when it is complete; what a killed process left is removed.
_UNFINISHED = "unfinished"


def export(job: Job, folder: RunFolder, log: Log) -> None:
    """Writes the model of a checkpoint to `<run folder>/export/`, in the config's `format`.

    Raises:
      ConfigError: If there is an export of that format already, or the folder cannot be written.
    """
    name, write = _FORMATS[job.config.format]
    target = folder.path / "export" / name
    if target.exists() or target.is_symlink():
        raise engine.ConfigError(
            f"{target} exists already: move it away, or name another --run_dir, with --checkpoint."
        )
    try:
        unfinished = make_directory(target.parent / _UNFINISHED)
    except ValueError as error:
        raise engine.ConfigError(str(error)) from error
    try:
        write(job, unfinished / name)
        force_to_disk(unfinished)
        os.rename(unfinished / name, target)
        force_to_disk(target.parent, recursive=False)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    log.line(f"exported to {target}")
    job.facts["export"] = str(target)
    job.end(Status.COMPLETED)


def model_on_one_device(job: Job) -> Any:
    """Returns a new Keras model with the weights of the job's, which may be distributed.

    Statistics that differ from replica to replica (of BatchNorm) are averaged.
    """
    model = job.build_model()
    if not model.built:
        model(keras.utils.unpack_x_y_sample_weight(next(iter(job.make_dataset(training=True))))[0])
    weights = zip(model.weights, job.state.model.weights, strict=True)
    for variable, trained in weights:
        values = local_values(trained)
        is_one = len(values) == 1
        variable.assign(values[0] if is_one else np.mean(values, axis=0, dtype=values[0].dtype))
    return model


def _write_saved_model(job: Job, path: Path) -> None:
    rank, trained = 1 + len(job.splits.input_shape), job.state.model
    loss = trained.loss if trained.compiled else None
    is_of_classes = job.splits.num_classes is not None
    output = PROBABILITIES if is_of_classes and are_probabilities(trained, loss) else OUTPUTS
    serving = _Serving(model_on_one_device(job), rank, output, rescale=job.config.rescale)
    function = tf.function(serving.predict, input_signature=[_input_spec(job)], autograph=False)
    serving.function = function
    signatures = {SIGNATURE: function.get_concrete_function()}
    tf.saved_model.save(serving, str(path), signatures=signatures)


def _input_spec(job: Job) -> tf.TensorSpec:
    """Returns the spec of examples as the dataset has them: its inputs before they are rescaled."""
    example, _ = job.splits.train.take([0])
    if not isinstance(example, np.ndarray):
        raise engine.ConfigError(
            "format='saved_model' is for models of one input: use format='keras'."
        )
    name = "images" if example.dtype == np.uint8 else "inputs"
    return tf.TensorSpec([None, *example.shape[1:]], example.dtype, name=name)


class _Serving(tf.Module):  # type: ignore[misc]  # TensorFlow has no types
    """From uint8 images or other inputs, as the dataset has them, to what the model gives.

    Args:
      model: Takes what the pipeline makes of images.
      rank: Of what it takes.
      output: Name of what it gives.
      rescale: Whether the pipeline divides bytes by 255; see `data.pipeline.make_dataset`.
    """

    def __init__(self, model: Any, rank: int, output: str, *, rescale: bool | None) -> None:
        super().__init__()
        self.model = model
        self._rank, self._output, self._rescale = rank, output, rescale
        # A variable: TensorFlow would make a multiplication of a division by a constant, which
        # rounds twice, and the pipeline divides.
        self.white = tf.Variable(255.0, trainable=False, name="white")
        self.function: Any = None

    def predict(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns what the model gives, by name. Context: graph.

        Raises:
          ConfigError: If that is more than one tensor.
        """
        x = images if images.shape.rank == self._rank else images[..., tf.newaxis]
        if is_pixels(x, self._rescale):
            x = tf.cast(x, tf.float32)
            x = x if self._rescale is False else x / self.white
        outputs = self.model(x, training=False)
        if not tf.is_tensor(outputs):
            raise engine.ConfigError(
                "format='saved_model' is for models of one output: use format='keras'."
            )
        return {self._output: outputs}


def _write_keras(job: Job, path: Path) -> None:
    model_on_one_device(job).save(path)


def _write_weights(job: Job, path: Path) -> None:
    model_on_one_device(job).save_weights(path)


_FORMATS: dict[str, tuple[str, Callable[[Job, Path], None]]] = {
    "saved_model": ("saved_model", _write_saved_model),
    "keras": ("model.keras", _write_keras),
    "weights": ("model.weights.h5", _write_weights),
}
