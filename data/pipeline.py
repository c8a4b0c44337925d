"""make_dataset: arrays to a `tf.data.Dataset` of batches that resumes at any step of any epoch.

The arrays lie whole in host memory, where `EpochDataset.replace` puts others. An epoch is a
permutation that depends on `(seed, epoch)` alone, and a step is a slice of it. A batch is one
gather per array and one transform of the whole batch:

```
position (epoch, step), arrays -> order of the epoch -> slice, gather, transform -> prefetch
  read once per iterator             [num_examples]     one function call per batch
```

So there is no shuffle buffer to save or refill: `seek(epoch, step)` writes two numbers, and the
first batch after it comes equally fast for every epoch and step.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Mapping

import keras
import numpy as np
import tensorflow as tf

from .arrays import Examples, prepare, train_validation_split
from .conversion import Array, Tree, check_alike, describe
from .epoch_dataset import (
    ORDERS,
    EpochDataset,
    InlineMap,
    Position,
    epoch_order,
    steps_dataset,
)
from .resident import Epoch, ResidentBatches, Stacks
from .slices import SliceIndices, slices_maker
from .stored_arrays import StoredArrays

__all__ = ["ORDERS", "Augment", "EpochDataset", "make_dataset", "train_validation_split"]

# (batch of x, int64 seed of shape [2]) -> batch of x. Context: graph.
Augment = Callable[[Tree, tf.Tensor], Tree]
# (x, y, sample_weight) of a batch; None for what is missing.
Raw = tuple[Tree, Tree | None, Tree | None]

# Of images with and without channels, with the axis of the examples.
_PIXEL_RANKS = (3, 4)

# The parts of a batch, in this order: (order, step) -> indices -> raw examples -> batch.
Transform = Callable[[Raw], Raw]


def make_dataset(  # noqa: PLR0913 - the arguments of fit, all but two of them keyword-only
    x: Tree,
    y: Tree | None = None,
    *,
    global_batch_size: int,
    num_classes: Tree = None,
    shuffle: bool = False,
    seed: int = 0,
    sample_weight: Tree | None = None,
    class_weight: Mapping[int, float] | None = None,
    drop_remainder: bool = False,
    order: str = "stateless",
    rescale: bool | None = None,
    channel_axis: bool = True,
    augment: Augment | None = None,
    prefetch: int = 4,
) -> EpochDataset:
    """Makes a dataset of batches from arrays in memory.

    Each iterator is the next epoch, as with `shuffle(reshuffle_each_iteration=True)`. The arrays
    are copied: later changes to them have no effect, and `dataset.replace` takes new ones.
    Context: outside any `tf.function`; inside or outside `strategy.scope()`.

    Args:
      x: An array of shape `(n, ...)`, or a dict, list or tuple of arrays, one an input. Pixels
        become float32; floating-point arrays become `keras.config.floatx()`; other dtypes stay.
      y: Labels or targets, likewise. None: batches of `x` alone.
      global_batch_size: Examples in a batch, over all replicas.
      num_classes: Encodes integer labels as one-hot float32 of shape `(batch, num_classes)`. For
        several outputs, one number per output in the structure of `y`; None leaves labels as they
        are.
      shuffle: Whether to shuffle. If not, every epoch has the order of the arrays.
      seed: Decides the order and the seeds of `augment`.
      sample_weight: One weight per example, in a structure that `fit` takes.
      class_weight: Class to weight; a missing class weighs 1.
      drop_remainder: Whether to drop a partial last batch, which makes the batch size static.
      order: What shuffling means. "stateless": another order in each epoch, from `(seed, epoch)`.
        "keras": the order of `fit` on arrays after `keras.utils.set_random_seed(seed)`, the same
        in each epoch (Keras 3.15).
      rescale: Whether to divide pixels by 255, rounded as NumPy does; if False, they are float32
        from 0 to 255. Pixels are the uint8 arrays of `x` that have the rank of images, `(n, height,
        width)` or with channels; if True, all of them. Others, such as token ids, stay uint8.
      channel_axis: Whether uint8 images of shape `(n, height, width)` get a last axis of size 1.
      augment: Called with a batch of `x` after rescaling, and an int64 seed of shape `[2]` for
        `tf.random.stateless_*` and `tf.image.stateless_*` that depends on `(seed, epoch, step)`.
      prefetch: Batches that tf.data holds ready.

    Raises:
      ValueError: If an argument is illegal; the message says what is legal.

    Example:
      >>> x, y = np.zeros((70, 28, 28), np.uint8), np.arange(70) % 10
      >>> dataset = pipeline.make_dataset(x, y, global_batch_size=32, num_classes=10, shuffle=True)
      >>> [(x.shape, y.shape) for x, y in dataset.as_numpy_iterator()]
      [((32, 28, 28, 1), (32, 10)), ((32, 28, 28, 1), (32, 10)), ((6, 28, 28, 1), (6, 10))]
    """
    if order not in ORDERS:
        raise ValueError(f"order: expected one of {', '.join(ORDERS)}, got {order!r}")
    batch_size = _positive("global_batch_size", global_batch_size)
    prepare_more = functools.partial(prepare, num_classes=num_classes, class_weight=class_weight)
    examples = prepare_more(x, y, sample_weight=sample_weight)
    n = examples.num_examples
    num_batches = _count_batches(n, batch_size, drop_remainder)
    position = Position()
    with tf.init_scope(), tf.device("CPU:0"):
        arrays = StoredArrays(_pack(examples, channel_axis))
        order_of = epoch_order(order if shuffle else None, n, batch_size, seed)
        make_steps = functools.partial(steps_dataset, position, order_of, arrays, num_batches)
        slice_indices = _slicer(n, batch_size, drop_remainder)
        transform = _transformer(examples, rescale)
        make_batch = _batch_maker(transform, num_batches, augment, seed)
        batches = InlineMap(make_steps(), functools.partial(make_batch, slice_indices))
        dataset = batches.prefetch(_positive("prefetch", prefetch)).with_options(_options())
        slices = slices_maker(make_steps, slice_indices, make_batch, _options())
    stacks = None if augment is not None else _stacks(arrays.spec, transform, n, batch_size)
    make_batch = functools.partial(make_batch, slice_indices)
    spec = dataset.element_spec
    made = EpochDataset(
        dataset,
        position,
        arrays=arrays,
        prepare=_preparer(prepare_more, describe(examples[:3]), channel_axis),
        global_batch_size=batch_size,
        num_examples=n,
        resident=ResidentBatches(make_batch, order_of, arrays, num_batches, spec, stacks),
    )
    if augment is None:  # which draws random numbers for whole batches
        made.slices = slices
    return made


def _preparer(
    prepare_more: Callable[..., Examples], expected: dict[str, str], channel_axis: bool
) -> Callable[[Tree, Tree, Tree], Tree]:
    """Returns a function of `(x, y, sample_weight)` to the arrays that replace the first ones."""

    def prepare_alike(x: Tree, y: Tree, sample_weight: Tree) -> Tree:
        examples = prepare_more(x, y, sample_weight=sample_weight)
        check_alike(describe(examples[:3]), expected)
        return _pack(examples, channel_axis)

    return prepare_alike


def _pack(examples: Examples, channel_axis: bool) -> Tree:
    """Returns the arrays as they are stored: `x`, `(x, y)` or `(x, y, sample_weight)`."""
    x, y, sample_weight = examples[:3]
    if channel_axis:
        x = keras.tree.map_structure(lambda a: a[..., None] if _is_gray(a) else a, x)
    return keras.utils.pack_x_y_sample_weight(x, y, sample_weight)


def _count_batches(n: int, batch_size: int, drop_remainder: bool) -> int:
    num_batches = n // batch_size if drop_remainder else -(-n // batch_size)
    if num_batches == 0:
        raise ValueError(
            f"global_batch_size: expected at most {n}, the number of examples, with "
            f"drop_remainder, got {batch_size}; lower it or keep the remainder"
        )
    return num_batches


def _batch_maker(
    transform: Transform, num_batches: int, augment: Augment | None, seed: int
) -> Callable[[SliceIndices, tf.Tensor, Epoch], Tree]:
    """Returns a function of indices by `(order, step)`, step and epoch to a batch."""

    def make_batch(slice_indices: SliceIndices, step: tf.Tensor, epoch: Epoch) -> Tree:
        # An iterator that starts in the middle of an epoch wraps around.
        step %= num_batches
        batch_x, *rest = transform(_take(epoch.arrays, slice_indices(epoch.order, step)))
        if augment is not None:
            batch_x = augment(batch_x, _augment_seed(seed, epoch.number, step))
        return keras.utils.pack_x_y_sample_weight(batch_x, *rest)

    return make_batch


def _slicer(n: int, batch_size: int, drop_remainder: bool) -> SliceIndices:
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


def _transformer(examples: Examples, rescale: bool | None) -> Transform:
    """Returns a function of raw `(x, y, sample_weight)` to what the model gets."""
    # Captured, not a constant of the graph: TensorFlow's graph optimizer would turn the division
    # into a multiplication by 1 / 255, which rounds twice: not the bits of NumPy's `x / 255`.
    white = None if rescale is False else tf.constant(255.0)
    num_classes = examples.num_classes
    are_pixels = keras.tree.map_structure(
        lambda a: a.dtype == np.uint8 and (rescale is True or a.ndim in _PIXEL_RANKS), examples.x
    )

    def transform(raw: Raw) -> Raw:
        batch_x, batch_y, batch_weights = raw
        batch_x = keras.tree.map_structure(
            lambda a, is_pixels: _scale(a, white) if is_pixels else a, batch_x, are_pixels
        )
        if num_classes is not None:
            batch_y = keras.tree.map_structure_up_to(batch_y, _one_hot, batch_y, num_classes)
        return batch_x, batch_y, batch_weights

    return transform


def _stacks(spec: Tree, transform: Transform, n: int, batch_size: int) -> Stacks | None:
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

    def finish(raw: Tree) -> Tree:
        raw = keras.utils.unpack_x_y_sample_weight(raw)
        return keras.utils.pack_x_y_sample_weight(*transform(raw))

    example_bytes = sum(t.shape[1:].num_elements() * t.dtype.size for t in tf.nest.flatten(spec))
    return Stacks(take_stack, finish, n // batch_size, batch_size * example_bytes)


def _is_gray(array: Array) -> bool:
    return array.dtype == np.uint8 and array.ndim == min(_PIXEL_RANKS)


def _scale(batch: tf.Tensor, white: tf.Tensor | None) -> tf.Tensor:
    pixels = tf.cast(batch, tf.float32)
    return pixels if white is None else pixels / white


def _one_hot(labels: tf.Tensor, num_classes: int | None) -> tf.Tensor:
    return labels if num_classes is None else tf.one_hot(labels, num_classes)


def _augment_seed(seed: int, epoch: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
    # `fold_in` makes a new pair, so that no augmentation reuses the key of the epoch's order.
    pair = tf.stack([tf.constant(seed, tf.int64), epoch])
    return tf.random.fold_in(pair, step, alg="philox")


def _options() -> tf.data.Options:
    options = tf.data.Options()
    options.deterministic = True
    # Rewriting serializes the graph and finds nothing here to improve.
    options.experimental_optimization.apply_default_optimizations = False
    options.autotune.enabled = False
    # More threads would only take cores from the training step.
    options.threading.private_threadpool_size = 1
    # The only state is the position, which the caller saves as (epoch, step).
    options.experimental_external_state_policy = tf.data.experimental.ExternalStatePolicy.IGNORE
    # There are no files to shard: several workers can only split the examples.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return options


def _positive(name: str, value: int) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        number = 0
    if number < 1:
        raise ValueError(f"{name}: expected an integer of 1 or more, got {value!r}")
    return number
