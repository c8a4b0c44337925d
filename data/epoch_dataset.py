"""EpochDataset: one iterator is one epoch, and an epoch can start at any of its steps.

The pieces that `pipeline` puts together: an order of the examples for each epoch, a `Position` that
says where the next iterator starts, and a batch for each step. Where the compiled loop makes the
batches, it does so with `resident`.
"""

from __future__ import annotations

import uuid
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from .resident import Epoch, OrderedArrays, ResidentBatches
from .stored_arrays import StoredArrays

ORDERS = ("stateless", "keras")


class EpochDataset(tf.data.Dataset):  # type: ignore[misc]
    """A dataset in which each iterator is the next epoch; `seek` chooses where that one starts.

    `pipeline.make_dataset` makes one.

    Args:
      dataset: Takes the position when an iterator starts, which moves it to the next epoch.
      position: Where the next iterator starts.
      arrays: What an iterator takes when it starts.
      prepare: Maps `(x, y, sample_weight)` to arrays of the same kind, or raises a ValueError. The
        other arguments become the attributes.

    Attributes:
      global_batch_size: Examples in each batch; a partial last batch has fewer.
      num_examples: Rows of the arrays, including those that `drop_remainder` leaves out.
      num_batches: Batches in an epoch, which is also the cardinality.
      resident: The same batches, made by the graph that trains on them. Batches that are decoded do
        not have the attribute: a graph of one thread would wait for each.
      finish: Function of rows of the arrays, as they lie, to a batch, and what tells it from other
        such functions; None: the batches are not slices of the arrays in their order.
      slices: Function of `tf.distribute.InputContext` to a dataset of what a worker needs of them;
        None: each worker makes whole batches.

    Example:
      >>> dataset = pipeline.make_dataset(np.arange(6), global_batch_size=2)
      >>> dataset.seek(epoch=0, step=1)
      >>> [batch.tolist() for batch in dataset.take(2).as_numpy_iterator()]
      [[2, 3], [4, 5]]
    """

    def __init__(
        self,
        dataset: tf.data.Dataset,
        position: Position,
        *,
        arrays: StoredArrays,
        prepare: Callable[[Any, Any, Any], Any],
        global_batch_size: int,
        num_examples: int,
        resident: ResidentBatches | None,
    ) -> None:
        self._dataset = dataset
        self._position = position
        self._arrays = arrays
        self._prepare = prepare
        self.global_batch_size = global_batch_size
        self.num_examples = num_examples
        self.num_batches = int(dataset.cardinality())
        if resident is not None:
            self.resident = resident
        self.finish: tuple[Callable[[Any], Any], str] | None = None
        self.slices: Callable[[Any], tf.data.Dataset] | None = None
        super().__init__(dataset._variant_tensor)

    def seek(self, epoch: int, step: int = 0) -> None:
        """Makes the next iterator start at a step of an epoch; the one after it is `epoch + 1`.

        That iterator still has `num_batches` elements: it wraps around to the first steps of the
        epoch, so take only `num_batches - step`. Existing iterators do not move. Context: on the
        host.

        Args:
          epoch: Index of the epoch, from 0.
          step: Batches of that epoch to leave out.

        Raises:
          ValueError: If the epoch is negative, or has no such step.
        """
        if epoch < 0:
            raise ValueError(f"epoch: expected 0 or more, got {epoch}")
        if not 0 <= step < self.num_batches:
            raise ValueError(
                f"step: expected 0 to {self.num_batches - 1}, got {step}; after the last step, "
                f"use seek({epoch + 1})"
            )
        self._position.write(epoch, step)

    def replace(self, x: Any, y: Any = None, *, sample_weight: Any = None) -> None:
        """Puts new examples in place of the old ones; a compiled function stays as it is.

        The new arrays are prepared as `make_dataset` prepared the first ones, with its
        `num_classes` and `class_weight`, and copied. An iterator that has given a batch goes on
        with the old arrays to its end, as does an epoch of `fit` that has begun; the next one takes
        the new arrays. The order of the epochs goes on. A dataset that was mapped or distributed
        from this one follows it.
        Context: on the host; with several workers, on each of them with the same arrays.

        Args:
          x: As in `make_dataset`, with the structure, shapes and dtypes of the first `x`.
          y: Likewise.
          sample_weight: Likewise.

        Raises:
          ValueError: If an array is missing or has another shape or dtype, or if `make_dataset`
            would refuse it. The old arrays stay.

        Example:
          >>> dataset = pipeline.make_dataset(np.arange(3), global_batch_size=3)
          >>> dataset.replace(np.arange(3) * 10)
          >>> [batch.tolist() for batch in dataset.as_numpy_iterator()]
          [[0, 10, 20]]
        """
        self._arrays.write(self._prepare(x, y, sample_weight))
        if hasattr(self, "resident"):
            self.resident.follow()

    def ordered_arrays(self) -> OrderedArrays | None:
        """Returns the arrays as they are now, if a batch is a slice of them; else None.

        Context: on the host.
        """
        if self.finish is None:
            return None
        tensors = self._arrays.read()
        return OrderedArrays(tensors, self.global_batch_size, self.element_spec, *self.finish)

    @property
    def element_spec(self) -> Any:
        """The structure, shapes and dtypes of a batch."""
        return self._dataset.element_spec

    def _inputs(self) -> list[tf.data.Dataset]:
        return [self._dataset]


class Position:
    """Epoch and step of the next iterator, in a resource that tf.data functions can advance."""

    def __init__(self) -> None:
        # Raw operations: in `strategy.scope()` a tf.Variable would be mirrored, and tf.data
        # functions cannot read mirrored variables.
        with tf.init_scope(), tf.device("CPU:0"):
            self._handle = tf.raw_ops.VarHandleOp(
                dtype=tf.int64, shape=[2], shared_name=f"epoch_position_{uuid.uuid4().hex}"
            )
        self.write(0, 0)

    def write(self, epoch: int, step: int) -> None:
        """Sets where the next iterator starts. Context: on the host."""
        with tf.init_scope(), tf.device("CPU:0"):
            value = tf.constant([epoch, step], tf.int64)
            tf.raw_ops.AssignVariableOp(resource=self._handle, value=value)

    def take(self) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns epoch and step, int64 scalars, and moves on to the next epoch. Context: graph."""
        value = tf.raw_ops.ReadVariableOp(resource=self._handle, dtype=tf.int64)
        following = tf.stack([value[0] + 1, tf.constant(0, tf.int64)])
        tf.raw_ops.AssignVariableOp(resource=self._handle, value=following)
        return value[0], value[1]


class InlineMap(tf.data.Dataset):  # type: ignore[misc]
    """`dataset.map(function)`, run on the thread that asks for the batch.

    Args:
      dataset: Its elements are tuples, the arguments of `function`.
      function: Returns the new element. Context: graph.
    """

    def __init__(self, dataset: tf.data.Dataset, function: Callable[..., Any]) -> None:
        self._dataset = dataset
        specs = dataset.element_spec
        # Kept as long as the dataset lives: the C++ runtime knows the function only by its name.
        self._function = tf.function(function, autograph=False).get_concrete_function(*specs)
        self._element_spec = tf.nest.map_structure(
            lambda tensor: tf.TensorSpec(tensor.shape, tensor.dtype),
            self._function.structured_outputs,
        )
        outputs = tf.nest.flatten(self._element_spec)
        # Dataset.map hands each operation to a thread pool. For a few operations of microseconds
        # that halves the throughput, and no public option turns it off.
        variant = tf.raw_ops.MapDataset(
            input_dataset=dataset._variant_tensor,
            other_arguments=self._function.captured_inputs,
            f=self._function,
            output_types=[spec.dtype for spec in outputs],
            output_shapes=[spec.shape for spec in outputs],
            use_inter_op_parallelism=False,
            preserve_cardinality=True,
        )
        super().__init__(variant)

    @property
    def element_spec(self) -> Any:
        """The structure, shapes and dtypes of what the function returns."""
        return self._element_spec

    def _inputs(self) -> list[tf.data.Dataset]:
        return [self._dataset]


def map_batches(
    dataset: tf.data.Dataset, function: Callable[..., Any], parallel: int
) -> tf.data.Dataset:
    """Returns `dataset.map(function)`, in the same order: several calls at a time, or inline."""
    if parallel == 1:
        return InlineMap(dataset, function)
    return dataset.map(function, num_parallel_calls=parallel, deterministic=True)


def epoch_order(order: str | None, n: int, seed: int) -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns a function of the epoch, int64 scalar, to the order of its examples, int64 `[n]`.

    Args:
      order: One of `ORDERS`, or None for the order of the arrays.
      n: Number of examples.
      seed: Decides the order, with the epoch.
    """
    if order == "stateless":
        key = tf.constant(seed, tf.int64)
        # Philox by name: "auto_select" differs between devices, and the order must be the same.
        return lambda epoch: tf.random.experimental.stateless_shuffle(
            tf.range(n, dtype=tf.int64), tf.stack([key, epoch]), alg="philox"
        )
    fixed = _keras_order(n, seed) if order == "keras" else np.arange(n)
    resident = tf.constant(fixed, tf.int64)
    return lambda epoch: tf.identity(resident)


def _keras_order(n: int, seed: int) -> npt.NDArray[np.int64]:
    """Returns the order of a seeded `fit` on arrays, as Keras's own adapter makes it."""
    from keras.src.trainers.data_adapters import array_data_adapter

    # In a graph of its own: a seed that is set there leaves the seed of the process alone.
    with tf.Graph().as_default(), warnings.catch_warnings():
        # The warning says that the adapter's function uses the seed of the graph, as it should.
        warnings.filterwarnings("ignore", message="Seed .* from outer graph")
        tf.random.set_seed(seed)
        # The adapter shuffles, and then cuts batches: one of all examples is the order.
        adapter = array_data_adapter.ArrayDataAdapter(np.arange(n), batch_size=n, shuffle=True)
        whole = adapter.get_tf_dataset().get_single_element()
        config = tf.compat.v1.ConfigProto(device_count={"GPU": 0})
        # It would take as long as all the rest, for a graph that runs once.
        config.graph_options.rewrite_options.disable_meta_optimizer = True
        with tf.compat.v1.Session(config=config) as session:
            return np.asarray(session.run(whole))


def steps_dataset(
    position: Position,
    epoch_order: Callable[[tf.Tensor], tf.Tensor],
    arrays: StoredArrays,
    num_batches: int,
) -> tf.data.Dataset:
    """Returns a dataset of `(step, epoch)`, an int64 scalar and an `Epoch`.

    Each iterator takes the position and the arrays once, at its start. The steps count on beyond
    `num_batches` where an iterator starts in the middle of an epoch.
    """

    def start_epoch(_: tf.Tensor) -> tf.data.Dataset:
        number, step = position.take()
        epoch = Epoch(number, epoch_order(number), arrays.read())
        steps = tf.data.Dataset.range(step, step + num_batches)
        return tf.data.Dataset.zip(steps, tf.data.Dataset.from_tensors(epoch).repeat())

    # AutoGraph would read the source of the function, for a fifth of a second.
    start = tf.autograph.experimental.do_not_convert(start_epoch)
    cardinality = tf.data.experimental.assert_cardinality(num_batches)
    return tf.data.Dataset.from_tensors(0).flat_map(start).apply(cardinality)
