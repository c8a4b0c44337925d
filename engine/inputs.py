"""Inputs: whatever `fit` takes, as a `tf.data.Dataset`, through Keras's own data adapters.

Arrays, PyDataset, generators and torch loaders become the dataset that fit makes of them, in fit's
order. A `tf.data.Dataset` stays what it is.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.src.trainers import data_adapters
from keras.src.trainers.data_adapters import array_slicing

from .arguments import data_in_words, describe
from .array_batches import ArrayBatches
from .building import spec_of_replica
from .config import TrainConfig
from .protocols import Ordered, OrderedArrays


class Inputs:
    """A dataset, and what it was made of.

    Args:
      x: What `keras.Model.fit` takes as x.
      y: Targets; None where `x` has them.
      sample_weight: A weight an example; None where `x` has them.
      batch_size: Of batches that are made of arrays; None: as in Keras, so many that there are
        `steps_per_epoch` batches, or 32.
      shuffle: As in `fit`; for arrays and PyDataset.
      class_weight: Class index to weight; a class without one weighs 1.
      steps_per_epoch: As in `fit`.

    Attributes:
      source: What was passed as `x`.
      shuffles: Whether arrays have another order than their own.
      num_batches: Of an epoch; None where only its end tells.
      is_endless: Whether it has none.

    Raises:
      ValueError: As Keras does, for what it cannot train on.
    """

    def __init__(
        self,
        x: Any,
        y: Any = None,
        sample_weight: Any = None,
        *,
        batch_size: int | None = None,
        shuffle: bool | str = False,
        class_weight: Mapping[int, float] | None = None,
        steps_per_epoch: int | None = None,
    ) -> None:
        self.source = x
        self.shuffles = bool(shuffle)
        self._adapter: Any = None
        is_dataset = data_adapters.is_tf_dataset(x) or isinstance(
            x, tf.distribute.DistributedDataset
        )
        if is_dataset and y is sample_weight is None:
            self.dataset = x
            if class_weight is not None:
                self.dataset = _weighted(x, class_weight)
        else:
            with data_in_words(x=x, y=y, sample_weight=sample_weight):
                self._adapter = data_adapters.get_data_adapter(
                    x=x,
                    y=y,
                    sample_weight=sample_weight,
                    batch_size=batch_size,
                    steps_per_epoch=steps_per_epoch,
                    shuffle=shuffle,
                    class_weight=class_weight,
                )
            self._described = {"x": x, "y": y, "sample_weight": sample_weight}
            if not self.is_of_arrays or shuffle:
                _ = self.dataset  # what is wrong with it is said here
        self.num_batches: int | None = None
        self.is_endless = False
        if self._adapter is not None:
            self.num_batches = self._adapter.num_batches
            is_indexed = isinstance(self._adapter, data_adapters.PyDatasetAdapter)
            self.is_endless = is_indexed and self.num_batches is None
        elif not self.is_of_function:
            cardinality = self.dataset.cardinality
            cardinality = int(cardinality() if callable(cardinality) else cardinality)
            self.num_batches = cardinality if cardinality >= 0 else None
            self.is_endless = cardinality == tf.data.INFINITE_CARDINALITY

    @functools.cached_property
    def dataset(self) -> Any:
        """`tf.data.Dataset` or a distributed one."""
        with data_in_words(**self._described):
            return self._adapter.get_tf_dataset()

    def array_batches(self) -> ArrayBatches | None:
        """Returns the batches, if they are slices of arrays in memory as these are now; else None.

        Context: on the host.
        """
        arrays: OrderedArrays | None = None
        if self._adapter is None:
            is_ordered = isinstance(self.dataset, Ordered)
            arrays = self.dataset.ordered_arrays() if is_ordered else None
        elif self.is_of_arrays and not self.shuffles:
            arrays = self._ordered
        return None if arrays is None else ArrayBatches.of(arrays)

    @functools.cached_property
    def _ordered(self) -> OrderedArrays | None:
        with data_in_words(**self._described):
            return _ordered(self._adapter)

    @property
    def is_of_arrays(self) -> bool:
        """Whether the dataset is made of arrays in memory."""
        return isinstance(self._adapter, data_adapters.ArrayDataAdapter)

    @property
    def is_of_function(self) -> bool:
        """Whether a function gives each worker batches of its own, as many as it has."""
        return type(self.source).__name__ == "DistributedDatasetsFromFunction"

    @property
    def gives_once(self) -> bool:
        """Whether a batch that was taken does not come again: of a Python generator."""
        return isinstance(self._adapter, data_adapters.GeneratorDataAdapter)

    @property
    def may_end_early(self) -> bool:
        """Whether the data may end before `num_batches`: it is unknown, or what a person says."""
        if self.is_endless:
            return False
        is_told = self._adapter is not None and not self.is_of_arrays
        return is_told or self.num_batches is None

    @property
    def is_distributed(self) -> bool:
        """Whether the batches are split over the replicas already."""
        return not isinstance(self.dataset, tf.data.Dataset)

    def spec_of_replica(self, num_replicas: int) -> Any:
        """Returns the spec of what one of `num_replicas` gets of a batch."""
        return spec_of_replica(
            self.dataset.element_spec, 1 if self.is_distributed else num_replicas
        )

    def on_epoch_begin(self) -> None:
        """Starts the workers of a PyDataset."""
        if self._adapter is not None:
            self._adapter.on_epoch_begin()

    def on_epoch_end(self) -> None:
        """Lets a PyDataset shuffle."""
        if self._adapter is not None:
            self._adapter.on_epoch_end()


def _ordered(adapter: Any) -> OrderedArrays | None:
    arrays = array_slicing.convert_to_sliceable(adapter._inputs, target_backend="tensorflow")
    arrays = keras.tree.lists_to_tuples(arrays)
    if not all(isinstance(one, tf.Tensor | np.ndarray) for one in tf.nest.flatten(arrays)):
        return None  # ragged, sparse or None
    tensors = tf.nest.map_structure(tf.convert_to_tensor, arrays)
    size = adapter.batch_size
    rows = None if adapter.has_partial_batch else size
    spec = tf.nest.map_structure(lambda t: tf.TensorSpec([rows, *t.shape[1:]], t.dtype), tensors)
    return OrderedArrays(tensors, size, spec, lambda raw: raw, "as they are")


def split_validation(
    arrays: Any, validation_split: float, validation_data: Any = None
) -> tuple[Any, Any]:
    """Returns what is trained on, and what is validated on, as `fit` splits them.

    Args:
      arrays: `(x, y, sample_weight)`.
      validation_split: Share of them, their end, that is validated on; 0: none.
      validation_data: Of the person, which goes before.
    """
    if not validation_split or validation_data is not None:
        return arrays, validation_data
    if not 0 < validation_split < 1:
        raise ValueError(f"validation_split={validation_split} must be between 0 and 1: 0.2.")
    split: tuple[Any, Any] = array_slicing.train_validation_split(
        arrays, validation_split=validation_split
    )
    return split


# Of `Seekable`, `Stateful` and `HasBatchSize`, which batches with weights leave as they are.
_KEPT = ("seek", "state", "restore", "global_batch_size")


def _weighted(dataset: Any, class_weight: Mapping[int, float]) -> tf.data.Dataset:
    """Returns the batches with the weights of their classes: they start where the dataset does."""
    add_weights = class_weight_map(class_weight)
    if not isinstance(dataset, tf.data.Dataset):
        raise ValueError(
            f"class_weight does not go with {describe(dataset)}, which is distributed already: "
            "return (x, y, sample_weight) from dataset.map(...) before it is distributed (or in "
            "the function of tf.distribute.InputContext), or pass the tf.data.Dataset itself."
        )
    weighted = dataset.map(add_weights)
    for name in _KEPT:
        if hasattr(dataset, name):
            setattr(weighted, name, getattr(dataset, name))
    return weighted


def class_weight_map(class_weight: Mapping[int, float]) -> Any:
    """Returns a function for `dataset.map` that adds the weights of the classes.

    As Keras's, whose table ends with the highest class that has a weight: here, a class beyond it
    weighs 1, as for arrays.
    """
    if not isinstance(class_weight, Mapping) or not all(
        isinstance(c, int | np.integer) for c in class_weight
    ):
        raise ValueError(
            f"class_weight must be a dict of class index to weight, not {describe(class_weight)}: "
            "{0: 1.0, 1: 2.5}."
        )
    weights = [class_weight.get(label, 1.0) for label in range(max(class_weight) + 2)]
    weights[-1] = 1.0
    table = tf.convert_to_tensor(np.asarray(weights, keras.config.floatx()))

    def add_weights(*data: Any) -> tuple[Any, Any, Any]:
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(
            data[0] if len(data) == 1 else data
        )
        if sample_weight is not None:
            raise ValueError("class_weight and sample_weight: pass one of them, not both.")
        if keras.tree.is_nested(y):
            raise ValueError("class_weight is for models with a single output.")
        return x, y, tf.gather(table, tf.minimum(_classes_of(y), len(weights) - 1))

    return add_weights


def _classes_of(y: tf.Tensor) -> tf.Tensor:
    """Returns the class of each example, of class numbers or one-hot rows."""
    if y.shape.rank < 2:
        return _rounded(y)
    if y.shape[-1] is None:
        return tf.cond(tf.shape(y)[-1] > 1, lambda: _largest(y), lambda: _rounded(y[..., 0]))
    return _largest(y) if y.shape[-1] > 1 else _rounded(y[..., 0])


def _largest(y: tf.Tensor) -> tf.Tensor:
    return tf.argmax(y, axis=-1, output_type=tf.int32)


def _rounded(y: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.round(y), tf.int32)


def unpack_validation(validation_data: Any, config: TrainConfig) -> Inputs:
    """Returns validation data as `fit` takes it: a dataset, `(x, y)` or with weights."""
    if isinstance(validation_data, Inputs):
        return validation_data
    if isinstance(validation_data, tuple | list):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(tuple(validation_data))
    else:
        x, y, sample_weight = validation_data, None, None
    return Inputs(
        x,
        y,
        sample_weight,
        batch_size=config.global_batch_size,
        steps_per_epoch=config.validation_steps,
    )
