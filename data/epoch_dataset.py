"""Data sets whose iterators are epochs: where the next one starts, and in which order it goes."""

from __future__ import annotations

import dataclasses
import uuid
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

ORDERS = ("stateless", "keras")


class EpochDataset(tf.data.Dataset):  # type: ignore[misc]
    """A data set whose iterators are epochs, and that can start at any step of any of them.

    Attributes:
      global_batch_size: Examples of every batch but a partial last one.
      num_examples: Of the arrays, so with those that `drop_remainder` leaves out.
      num_batches: Of an epoch, which is also its cardinality.
      resident: The same batches for a loop that makes them itself.
    """

    def __init__(
        self,
        dataset: tf.data.Dataset,
        position: Position,
        *,
        global_batch_size: int,
        num_examples: int,
        num_batches: int,
        resident: ResidentBatches,
    ) -> None:
        """Wraps a data set that reads and advances the position; see `make_dataset`."""
        self._dataset = dataset
        self._position = position
        self.global_batch_size = global_batch_size
        self.num_examples = num_examples
        self.num_batches = num_batches
        self.resident = resident
        super().__init__(dataset._variant_tensor)

    def seek(self, epoch: int, step: int = 0) -> None:
        """Lets the next iterator start at a step of an epoch; the one after it is `epoch + 1`.

        That iterator still has `num_batches` elements: after the last step of the epoch come its
        first ones, so take `num_batches - step`. Iterators that exist already are not moved.

        Raises:
          ValueError: If there is no such epoch or step.
        """
        if epoch < 0:
            raise ValueError(f"epoch: expected 0 or more, got {epoch}")
        if not 0 <= step < self.num_batches:
            raise ValueError(
                f"step: expected 0 to {self.num_batches - 1}, got {step}; what follows the last "
                f"step is seek({epoch + 1})"
            )
        self._position.write(epoch, step)

    @property
    def element_spec(self) -> Any:
        """The structure, shapes and dtypes of a batch."""
        return self._dataset.element_spec

    def _inputs(self) -> list[tf.data.Dataset]:
        return [self._dataset]


class Position:
    """Epoch and step of the next iterator, as a resource that tf.data functions can advance.

    Raw operations instead of a tf.Variable: inside `strategy.scope()` that would become a
    mirrored variable, which a tf.data function cannot read.
    """

    def __init__(self) -> None:
        with tf.init_scope(), tf.device("CPU:0"):
            self._handle = tf.raw_ops.VarHandleOp(
                dtype=tf.int64, shape=[2], shared_name=f"epoch_position_{uuid.uuid4().hex}"
            )
        self.write(0, 0)

    def write(self, epoch: int, step: int) -> None:
        """Sets where the next iterator starts; outside any graph."""
        with tf.init_scope(), tf.device("CPU:0"):
            value = tf.constant([epoch, step], tf.int64)
            tf.raw_ops.AssignVariableOp(resource=self._handle, value=value)

    def take(self) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns epoch and step and moves on to the next epoch; graph mode."""
        value = tf.raw_ops.ReadVariableOp(resource=self._handle, dtype=tf.int64)
        following = tf.stack([value[0] + 1, tf.constant(0, tf.int64)])
        tf.raw_ops.AssignVariableOp(resource=self._handle, value=following)
        return value[0], value[1]


@dataclasses.dataclass(frozen=True)
class Stacks:
    """How many full batches are made at once, in graph mode.

    Attributes:
      take: `(order, step, number)` to the raw examples of so many batches, `[number, batch, ...]`.
      finish: One raw batch of them to a batch.
      num_full_batches: Of an epoch: all, or all but the last.
      batch_bytes: Of one raw batch.
    """

    take: Callable[[tf.Tensor, tf.Tensor, int], Any]
    finish: Callable[[Any], Any]
    num_full_batches: int
    batch_bytes: int


class ResidentBatches:
    """The batches of an `EpochDataset`, made in the graph that trains on them.

    Without tf.data's threads and hand-overs, which cost more than a batch of a small net. The same
    operations on the same arrays: the same bits. Context: one device, the CPU; outside any
    strategy's scope.
    """

    def __init__(
        self,
        make_batch: Callable[..., Any],
        epoch_order: Callable[[tf.Tensor], tf.Tensor],
        num_batches: int,
        element_spec: Any,
        stacks: Stacks | None = None,
    ) -> None:
        """Takes the parts of the pipeline.

        Args:
          make_batch: `(step, (epoch, order))` to a batch; graph mode.
          epoch_order: Epoch to the order of its examples, int64 of shape `[num_examples]`.
          num_batches: Of an epoch.
          element_spec: Of a batch.
          stacks: Takes many full batches at once; None if they cannot be made together.
        """
        self._make_batch = make_batch
        self._epoch_order = epoch_order
        self.num_batches = num_batches
        self.stacks = stacks
        self._variables: tuple[Any, ...] | None = None
        self.element_spec = element_spec

    def seek(self, epoch: int, step: int = 0) -> None:
        """Goes to a step of an epoch; on the host."""
        number = tf.constant(epoch, tf.int64)
        values = (number, tf.constant(step, tf.int64), self._epoch_order(number))
        if self._variables is None:
            self._variables = tuple(tf.Variable(v, trainable=False) for v in values)
        for variable, value in zip(self._variables, values, strict=True):
            variable.assign(value)

    def reader(self) -> Callable[[tf.Tensor], Any]:
        """Returns offset -> the batch so many steps on, the epoch's last one at the most.

        Graph mode. Made before a loop, it reads the position once and not in each step.
        """
        epoch, start, order = self._read()

        def get(offset: tf.Tensor) -> Any:
            step = tf.minimum(start + tf.cast(offset, tf.int64), self.num_batches - 1)
            batch = self._make_batch(step, (epoch, order))
            return tf.nest.map_structure(
                lambda value, spec: tf.ensure_shape(value, spec.shape), batch, self.element_spec
            )

        return get

    def current_step(self) -> tf.Tensor:
        """Returns the next step of the epoch, int64 scalar; graph mode."""
        return self._read()[1]

    def get_stack(self, step: tf.Tensor, number: int) -> Any:
        """Returns the raw batches `step` to `step + number - 1` of the epoch in one; graph mode.

        Args:
          step: int64 scalar; all of these batches must be full.
          number: Leading dimension of what is returned, before that of the batch.
        """
        assert self.stacks is not None, "these batches cannot be stacked"
        return self.stacks.take(self._read()[2], step, number)

    def advance(self, num_steps: tf.Tensor) -> None:
        """Goes `num_steps` steps on; graph mode."""
        assert self._variables is not None, "seek() comes first"
        self._variables[1].assign_add(tf.cast(num_steps, tf.int64))

    def _read(self) -> tuple[tf.Tensor, ...]:
        assert self._variables is not None, "seek() comes first"
        return tuple(variable.read_value() for variable in self._variables)


class InlineMap(tf.data.Dataset):  # type: ignore[misc]
    """`dataset.map(function)`, run on the thread that asks for the batch.

    `Dataset.map` hands each operation to a pool of threads; for a handful of microsecond
    operations that costs half of the throughput, and no option turns it off.
    """

    def __init__(self, dataset: tf.data.Dataset, function: Callable[..., Any]) -> None:
        self._dataset = dataset
        specs = dataset.element_spec
        # Held for as long as the data set lives: the C++ side knows the function by name only.
        self._function = tf.function(function, autograph=False).get_concrete_function(*specs)
        self._element_spec = tf.nest.map_structure(
            lambda tensor: tf.TensorSpec(tensor.shape, tensor.dtype),
            self._function.structured_outputs,
        )
        outputs = tf.nest.flatten(self._element_spec)
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
        """What the function returns."""
        return self._element_spec

    def _inputs(self) -> list[tf.data.Dataset]:
        return [self._dataset]


def epoch_order(
    order: str | None, n: int, batch_size: int, seed: int
) -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns epoch -> int64 indices of `(n,)`; None is the arrays' own order."""
    if order == "stateless":
        key = tf.constant(seed, tf.int64)
        # Philox by name: "auto_select" differs between devices, and the order must not.
        return lambda epoch: tf.random.experimental.stateless_shuffle(
            tf.range(n, dtype=tf.int64), tf.stack([key, epoch]), alg="philox"
        )
    fixed = _keras_order(n, batch_size, seed) if order == "keras" else np.arange(n)
    resident = tf.constant(fixed, tf.int64)
    return lambda epoch: tf.identity(resident)


def _keras_order(n: int, batch_size: int, seed: int) -> npt.NDArray[np.int64]:
    """Asks Keras's own adapter for the order that a seeded `fit` on arrays has.

    In a graph of its own, since only there a seed can be set without touching the process's.
    """
    from keras.src.trainers.data_adapters import array_data_adapter

    with tf.Graph().as_default(), warnings.catch_warnings():
        # That the seed of the graph reaches the adapter's function is just what is wanted.
        warnings.filterwarnings("ignore", message="Seed .* from outer graph")
        tf.random.set_seed(seed)
        adapter = array_data_adapter.ArrayDataAdapter(
            np.arange(n), batch_size=batch_size, shuffle=True
        )
        whole = adapter.get_tf_dataset().unbatch().batch(n).get_single_element()
        config = tf.compat.v1.ConfigProto(device_count={"GPU": 0})
        with tf.compat.v1.Session(config=config) as session:
            return np.asarray(session.run(whole))


def steps_dataset(
    position: Position, epoch_order: Callable[[tf.Tensor], tf.Tensor], num_batches: int
) -> tf.data.Dataset:
    """Returns a data set of `(step, (epoch, order))` that takes the position once an iterator."""

    def start_epoch(_: tf.Tensor) -> tuple[tf.Tensor, ...]:
        epoch, step = position.take()
        return step, epoch, epoch_order(epoch)

    def steps_of(start: tf.Tensor, epoch: tf.Tensor, order: tf.Tensor) -> tf.data.Dataset:
        steps = tf.data.Dataset.range(start, start + num_batches)
        same = tf.data.Dataset.from_tensors((epoch, order)).repeat()
        return tf.data.Dataset.zip(steps, same)

    starts = tf.data.Dataset.from_tensors(0).map(start_epoch)
    cardinality = tf.data.experimental.assert_cardinality(num_batches)
    return starts.flat_map(steps_of).apply(cardinality)
