"""THE tf.data recipe: index -> gather -> transform -> batch -> prefetch; resumable at any step.

The arrays lie whole in host memory. An epoch is a permutation that depends on `(seed, epoch)` and
nothing else, a step is a slice of it, and a batch is one gather an array followed by a transform
of the batch as a whole:

```
position (epoch, step) -> order of the epoch -> steps -> slice, gather, transform -> prefetch
   read once an iterator     [num_examples]                one function a batch
```

So there is no shuffle buffer to save or refill: `seek(epoch, step)` writes two numbers, and the
time to the first batch after it is the same for every epoch and step.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping

import keras
import numpy as np
import tensorflow as tf

from .arrays import Examples, Tree, prepare, train_validation_split
from .epoch_dataset import (
    ORDERS,
    EpochDataset,
    InlineMap,
    Position,
    ResidentBatches,
    Stacks,
    epoch_order,
    steps_dataset,
)

__all__ = ["ORDERS", "Augment", "EpochDataset", "make_dataset", "train_validation_split"]

# (batch of x, seed pair of int64) -> batch of x, in graph mode.
Augment = Callable[[Tree, tf.Tensor], Tree]
# x, y, sample_weight; None for what there is not.
Raw = tuple[Tree, Tree | None, Tree | None]


def make_dataset(  # noqa: PLR0913 - one word for each of fit's, all but two by keyword
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
    rescale: bool = True,
    channel_axis: bool = True,
    augment: Augment | None = None,
    prefetch: int = 4,
) -> EpochDataset:
    """Makes a data set of batches out of arrays in memory.

    Each new iterator is the next epoch, as with `shuffle(reshuffle_each_iteration=True)`.
    Context: anywhere outside a `tf.function`; inside `strategy.scope()` it makes no difference.
    The arrays are copied: writing to them later changes nothing.

    Args:
      x: An array of `(n, ...)` of any rank, or a dict, list or tuple of them. uint8 arrays are
        taken for pixels and become float32; other types stay, but for floats, which become
        Keras's default float type.
      y: Labels or targets likewise; None gives batches of `x` alone.
      global_batch_size: Examples in a batch, over all replicas together.
      num_classes: Makes integer labels one-hot float32 of `(batch, num_classes)`. For several
        outputs, one number each in the structure of `y`, None where `y` should stay.
      shuffle: Whether each epoch has an order of its own; else the arrays' order.
      seed: Of the order and of `augment`.
      sample_weight: A weight an example, with the structures that `fit` takes.
      class_weight: Class to weight; a class that is missing weighs 1.
      drop_remainder: Leaves out the last batch if it is partial, and gives batches a static size.
      order: "stateless", or "keras": the order that `fit` on arrays has, after
        `keras.utils.set_random_seed(seed)`. It is the same in every epoch (Keras 3.15).
      rescale: Divides pixels by 255 (a true division, the tutorial's bits); else raw 0 to 255.
      channel_axis: Gives uint8 images of `(n, height, width)` a last axis of size 1.
      augment: Called with a batch of x after scaling, and a seed that depends on
        `(seed, epoch, step)` alone, for `tf.random.stateless_*` and `tf.image.stateless_*`.
      prefetch: Batches that are held ready, where tf.data makes them.

    Raises:
      ValueError: If an argument is illegal, in a line that says which are legal.
    """
    if order not in ORDERS:
        raise ValueError(f"order: expected one of {', '.join(ORDERS)}, got {order!r}")
    batch_size = _positive("global_batch_size", global_batch_size)
    examples = prepare(
        x, y, num_classes=num_classes, sample_weight=sample_weight, class_weight=class_weight
    )
    n = examples.num_examples
    num_batches = n // batch_size if drop_remainder else -(-n // batch_size)
    if num_batches == 0:
        raise ValueError(
            f"global_batch_size: expected at most {n}, the number of examples, with "
            f"drop_remainder, got {batch_size}; lower it or keep the remainder"
        )
    position = Position()
    with tf.init_scope(), tf.device("CPU:0"):
        order_of = epoch_order(order if shuffle else None, n, batch_size, seed)
        steps = steps_dataset(position, order_of, num_batches)
        slice_indices = _slicer(n, batch_size, num_batches, drop_remainder)
        take, transform = _taker(examples, channel_axis), _transformer(examples, rescale)

        def make_batch(step: tf.Tensor, of_epoch: tuple[tf.Tensor, tf.Tensor]) -> Tree:
            epoch, indices = of_epoch
            step %= num_batches
            batch_x, *rest = transform(take(slice_indices(indices, step)))
            if augment is not None:
                batch_x = augment(batch_x, _augment_seed(seed, epoch, step))
            return keras.utils.pack_x_y_sample_weight(batch_x, *rest)

        batches = InlineMap(steps, make_batch)
        dataset = batches.prefetch(_positive("prefetch", prefetch)).with_options(_options())
    resident = ResidentBatches(
        make_batch,
        order_of,
        num_batches,
        dataset.element_spec,
        stacks=None if augment is not None else _stacks(take, transform, n, batch_size),
    )
    return EpochDataset(
        dataset,
        position,
        global_batch_size=batch_size,
        num_examples=n,
        num_batches=num_batches,
        resident=resident,
    )


def _slicer(
    n: int, batch_size: int, num_batches: int, drop_remainder: bool
) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    def slice_indices(order: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
        start = step * batch_size
        # Without a partial batch, every batch has the same size, and the graph knows it.
        is_static = drop_remainder or n % batch_size == 0
        size = batch_size if is_static else tf.minimum(n - start, batch_size)
        return tf.slice(order, [start], [size])

    return slice_indices


def _taker(examples: Examples, channel_axis: bool) -> Callable[[tf.Tensor], Raw]:
    """Returns indices -> the raw `(x, y, sample_weight)` of those examples."""

    # Tensors made here are captured by the batch function: one copy in memory and none in the
    # graph, which could hold no more than 2 GB.
    def resident(tree: Tree, channels: bool = False) -> Tree:
        return keras.tree.map_structure(
            lambda a: tf.convert_to_tensor(a[..., None] if channels and _is_grey(a) else a), tree
        )

    x = resident(examples.x, channel_axis)
    y, weights = (None if t is None else resident(t) for t in (examples.y, examples.sample_weight))

    def take(indices: tf.Tensor) -> Raw:
        batch_x, batch_y, batch_weights = (
            None if t is None else keras.tree.map_structure(lambda a: tf.gather(a, indices), t)
            for t in (x, y, weights)
        )
        return batch_x, batch_y, batch_weights

    return take


def _transformer(examples: Examples, rescale: bool) -> Callable[[Raw], Raw]:
    """Returns raw `(x, y, sample_weight)` -> what the model gets."""
    # No constant: TensorFlow's graph optimiser would multiply by 1 / 255, which rounds twice and
    # gives other bits than NumPy's `x / 255`.
    white = tf.constant(255.0) if rescale else None

    def transform(raw: Raw) -> Raw:
        batch_x, batch_y, batch_weights = raw
        batch_x = keras.tree.map_structure(lambda a: _scale(a, white), batch_x)
        if examples.num_classes is not None:
            batch_y = keras.tree.map_structure_up_to(
                batch_y, _one_hot, batch_y, examples.num_classes
            )
        return batch_x, batch_y, batch_weights

    return transform


def _stacks(
    take: Callable[[tf.Tensor], Raw], transform: Callable[[Raw], Raw], n: int, batch_size: int
) -> Stacks | None:
    if n < batch_size:
        return None

    def take_stack(order: tf.Tensor, step: tf.Tensor, number: int) -> Tree:
        raw = take(tf.slice(order, [step * batch_size], [number * batch_size]))
        # Packed: a loop cannot carry None.
        return tf.nest.map_structure(
            lambda t: tf.reshape(t, [number, batch_size, *t.shape[1:]]),
            keras.utils.pack_x_y_sample_weight(*raw),
        )

    def finish(raw: Tree) -> Tree:
        raw = keras.utils.unpack_x_y_sample_weight(raw)
        return keras.utils.pack_x_y_sample_weight(*transform(raw))

    one = take_stack(tf.range(batch_size, dtype=tf.int64), tf.constant(0, tf.int64), 1)
    batch_bytes = sum(int(tf.size(t)) * t.dtype.size for t in tf.nest.flatten(one))
    return Stacks(take_stack, finish, n // batch_size, batch_bytes)


def _is_grey(array: np.ndarray) -> bool:
    return array.dtype == np.uint8 and array.ndim == 3


def _scale(batch: tf.Tensor, white: tf.Tensor | None) -> tf.Tensor:
    if batch.dtype != tf.uint8:
        return batch
    pixels = tf.cast(batch, tf.float32)
    return pixels if white is None else pixels / white


def _one_hot(labels: tf.Tensor, num_classes: int | None) -> tf.Tensor:
    return labels if num_classes is None else tf.one_hot(labels, num_classes)


def _augment_seed(seed: int, epoch: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
    # Folding makes a new pair, so that no augmentation uses the key of the epoch's order.
    pair = tf.stack([tf.constant(seed, tf.int64), epoch])
    return tf.random.fold_in(pair, step, alg="philox")


def _options() -> tf.data.Options:
    options = tf.data.Options()
    options.deterministic = True
    # A rewrite serialises the graph and finds nothing here to improve.
    options.experimental_optimization.apply_default_optimizations = False
    options.autotune.enabled = False
    # More threads only take cores from the training step.
    options.threading.private_threadpool_size = 1
    # The one state is the position, which the caller saves as (epoch, step).
    options.experimental_external_state_policy = tf.data.experimental.ExternalStatePolicy.IGNORE
    # Arrays are no files: several workers can only share them out by example.
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
