"""What a batch is made of: indices of a step, raw examples, and what the model gets of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from .conversion import Tree
from .resident import Epoch, Stacks
from .slices import SliceIndices

# (batch of x, int64 seed of shape [2]) -> batch of x. Context: graph.
Augment = Callable[[Tree, tf.Tensor], Tree]
# (references, y) of a batch -> (x, y). Context: graph.
Decode = Callable[[Any, Any], tuple[Any, Any]]
# (x, y, sample_weight) of a batch; None for what is missing.
Raw = tuple[Tree, Tree | None, Tree | None]
# The parts of a batch, in this order: (order, step) -> indices -> raw examples -> batch.
Transform = Callable[[Raw], Raw]

# Of images with and without channels, with the axis of the examples.
PIXEL_RANKS = (3, 4)


@dataclasses.dataclass
class BatchMaker:
    """Makes a batch of the indices of its examples.

    Attributes:
      transform: Maps raw examples to what the model gets.
      num_batches: In an epoch.
      decode: Reads what the arrays refer to; None: they hold the examples.
      augment: Changes `x` at random.
      seed: Of `augment`.
    """

    transform: Transform
    num_batches: int
    decode: Decode | None
    augment: Augment | None
    seed: int

    def __call__(self, slice_indices: SliceIndices, step: tf.Tensor, epoch: Epoch) -> Tree:
        """Returns the batch of a step. Context: graph."""
        # An iterator that starts in the middle of an epoch wraps around.
        step %= self.num_batches
        x, y, weights = _take(epoch.arrays, slice_indices(epoch.order, step))
        if self.decode is not None:
            x, y = self.decode(x, y)
        x, *rest = self.transform((x, y, weights))
        if self.augment is not None:
            x = self.augment(x, _augment_seed(self.seed, epoch.number, step))
        return keras.utils.pack_x_y_sample_weight(x, *rest)


def slicer(n: int, batch_size: int, drop_remainder: bool) -> SliceIndices:
    """Returns a function of `(order, step)` to the indices of the examples of one batch."""

    def slice_indices(order: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
        start = step * batch_size
        # Without a partial batch, the graph knows the batch size.
        is_static = drop_remainder or n % batch_size == 0
        size = batch_size if is_static else tf.minimum(n - start, batch_size)
        return tf.slice(order, [start], [size])

    return slice_indices


def _take(arrays: Tree, indices: tf.Tensor) -> Raw:
    """Returns the raw `(x, y, sample_weight)` of some examples."""
    taken = tf.nest.map_structure(lambda a: tf.gather(a, indices), arrays)
    raw: Raw = keras.utils.unpack_x_y_sample_weight(taken)
    return raw


def transformer(num_classes: Tree, rescale: bool | None) -> Transform:
    """Returns a function of raw `(x, y, sample_weight)` to what the model gets."""
    # Captured, not a constant of the graph: TensorFlow's graph optimizer would turn the division
    # into a multiplication by 1 / 255, which rounds twice: not the bits of NumPy's `x / 255`.
    white = None if rescale is False else tf.constant(255.0)

    def transform(raw: Raw) -> Raw:
        batch_x, batch_y, batch_weights = raw
        batch_x = keras.tree.map_structure(
            lambda a: _scale(a, white) if is_pixels(a, rescale) else a, batch_x
        )
        if num_classes is not None:
            batch_y = keras.tree.map_structure_up_to(batch_y, _one_hot, batch_y, num_classes)
        return batch_x, batch_y, batch_weights

    return transform


def make_stacks(spec: Tree, transform: Transform, n: int, batch_size: int) -> Stacks | None:
    """Returns how to make many full batches at once; None if there is no full batch."""
    if n < batch_size:
        return None

    def take_stack(epoch: Epoch, step: tf.Tensor, number: int) -> Tree:
        indices = tf.slice(epoch.order, [step * batch_size], [number * batch_size])
        raw = _take(epoch.arrays, indices)
        # Packed, because a loop cannot carry None.
        return tf.nest.map_structure(
            lambda t: tf.reshape(t, [number, batch_size, *t.shape[1:]]),
            keras.utils.pack_x_y_sample_weight(*raw),
        )

    example_bytes = sum(t.shape[1:].num_elements() * t.dtype.size for t in tf.nest.flatten(spec))
    return Stacks(take_stack, finisher(transform), n // batch_size, batch_size * example_bytes)


def finisher(transform: Transform) -> Callable[[Tree], Tree]:
    """Returns a function of packed raw examples to a batch."""

    def finish(raw: Tree) -> Tree:
        raw = keras.utils.unpack_x_y_sample_weight(raw)
        return keras.utils.pack_x_y_sample_weight(*transform(raw))

    return finish


def is_pixels(batch: tf.Tensor, rescale: bool | None) -> bool:
    """Returns whether a batch becomes floats: bytes of images, or all bytes if that is asked."""
    return batch.dtype == tf.uint8 and (rescale is True or batch.shape.rank in PIXEL_RANKS)


def _scale(batch: tf.Tensor, white: tf.Tensor | None) -> tf.Tensor:
    pixels = tf.cast(batch, tf.float32)
    return pixels if white is None else pixels / white


def _one_hot(labels: tf.Tensor, num_classes: int | None) -> tf.Tensor:
    return labels if num_classes is None else tf.one_hot(labels, num_classes)


def _augment_seed(seed: int, epoch: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
    # `fold_in` makes a new pair, so that no augmentation reuses the key of the epoch's order.
    pair = tf.stack([tf.constant(seed, tf.int64), epoch])
    return tf.random.fold_in(pair, step, alg="philox")


def options(num_threads: int) -> tf.data.Options:
    """Returns what keeps the order of batches, and the cores for the training step."""
    chosen = tf.data.Options()
    chosen.deterministic = True
    # Rewriting serializes the graph and finds nothing here to improve.
    chosen.experimental_optimization.apply_default_optimizations = False
    chosen.autotune.enabled = False
    # For a gather, more threads than one would only take cores from the training step.
    chosen.threading.private_threadpool_size = num_threads
    # The only state is the position, which the caller saves as (epoch, step).
    chosen.experimental_external_state_policy = tf.data.experimental.ExternalStatePolicy.IGNORE
    # There are no files to shard: several workers can only split the examples.
    chosen.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return chosen
