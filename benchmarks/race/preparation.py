"""Writes the directory that all arms of a race share: data, order of the examples, initial weights.

`benchmarks.race.workloads` lists its files.
"""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import numpy.typing as npt

from benchmarks.race import keras_models, weights
from benchmarks.race.workloads import Workload
from gradloop import data
from gradloop.data import pipeline
from gradloop.data.sets import synthetic

# Accuracy is not measured on synthetic data.
_NUM_SYNTHETIC_TEST_EXAMPLES = 16

Array = npt.NDArray[np.generic]


def prepare(workload: Workload, directory: Path, *, seed: int = 0) -> None:
    """Writes the files of a workload into an existing directory.

    Sets Keras's global seed, so that the same seed gives the same weights.

    Raises:
      ValueError: If the dataset has too few examples, or the last batch would be partial.
    """
    if workload.num_examples % workload.global_batch_size:
        raise ValueError(
            f"num_examples={workload.num_examples} is not a multiple of "
            f"global_batch_size={workload.global_batch_size}: the last batch would be partial."
        )
    for name, array in _load_arrays(workload).items():
        np.save(directory / f"{name}.npy", array)
    np.save(directory / "order.npy", examples_order(workload, seed))
    keras.utils.set_random_seed(seed)
    weights.save(directory / "initial.npz", keras_models.build(workload).get_weights())


def examples_order(workload: Workload, seed: int) -> npt.NDArray[np.int64]:
    """Returns the order in which a seeded `keras.Model.fit` takes arrays, the same in each epoch.

    Shape `[num_examples]`.
    """
    dataset = pipeline.make_dataset(
        np.arange(workload.num_examples),
        global_batch_size=workload.global_batch_size,
        shuffle=True,
        seed=seed,
        order="keras",
    )
    batches = [batch[0] if isinstance(batch, tuple) else batch for batch in dataset]
    return np.concatenate([np.asarray(batch) for batch in batches]).astype(np.int64)


def _load_arrays(workload: Workload) -> dict[str, Array]:
    num = workload.num_examples
    if workload.dataset == "synthetic":
        (x_train, y_train), (x_test, y_test) = synthetic.load_data(
            workload.input_shape, workload.num_classes, num, _NUM_SYNTHETIC_TEST_EXAMPLES
        )
    else:
        x_train, y_train, x_test, y_test, _ = data.load_arrays(workload.dataset)
    if len(x_train) < num:
        raise ValueError(f"{workload.dataset} has {len(x_train)} examples, fewer than {num}.")
    return {
        "x_train": _shape_x(x_train[:num], workload),
        "y_train": y_train[:num].astype(np.int64),
        "x_test": _shape_x(x_test, workload),
        "y_test": y_test.astype(np.int64),
    }


def _shape_x(x: Array, workload: Workload) -> Array:
    # Examples with one axis are text: their bytes are token ids.
    dtype = np.int32 if len(workload.input_shape) == 1 else np.uint8
    return x.reshape(len(x), *workload.input_shape).astype(dtype)
