"""make_dataset: arrays to a `tf.data.Dataset` of batches that resumes at any step of any epoch.

The arrays lie whole in host memory, where `EpochDataset.replace` puts others; with `decode`, they
say where the examples lie in files. An epoch is a permutation that depends on `(seed, epoch)`
alone, and a step is a slice of it. A batch is one gather per array and one transform of the whole
batch:

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

from gradloop.machine import num_cores

from .arrays import Examples, prepare, train_validation_split
from .batches import (
    PIXEL_RANKS,
    Augment,
    BatchMaker,
    Decode,
    finisher,
    make_stacks,
    options,
    slicer,
    transformer,
)
from .conversion import Array, Tree, check_alike, describe
from .epoch_dataset import (
    ORDERS,
    EpochDataset,
    Position,
    epoch_order,
    map_batches,
    steps_dataset,
)
from .resident import ResidentBatches
from .slices import slices_maker
from .stored_arrays import StoredArrays

__all__ = ["ORDERS", "Augment", "Decode", "EpochDataset", "make_dataset", "train_validation_split"]


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
    decode: Decode | None = None,
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
      decode: Says that `x` holds references, such as paths or numbers of rows, of shape `(n, ...)`.
        Called with a batch of them and of `y`, returns inputs and `y`; one row an example. As many
        batches as there are cores are decoded at a time.
      prefetch: Batches that tf.data holds ready.

    Raises:
      ValueError: If an argument is illegal; the message says what is legal.

    Example:
      >>> x, y = np.zeros((70, 28, 28), np.uint8), np.arange(70) % 10
      >>> dataset = pipeline.make_dataset(x, y, global_batch_size=32, num_classes=10, shuffle=True)
      >>> [(x.shape, y.shape) for x, y in dataset.as_numpy_iterator()]
      [((32, 28, 28, 1), (32, 10)), ((32, 28, 28, 1), (32, 10)), ((6, 28, 28, 1), (6, 10))]
    """
    batch_size = _positive("global_batch_size", global_batch_size)
    prepare_more = functools.partial(prepare, num_classes=num_classes, class_weight=class_weight)
    examples = prepare_more(x, y, sample_weight=sample_weight)
    n, position = examples.num_examples, Position()
    num_batches = _count_batches(n, batch_size, drop_remainder)
    parallel = 1 if decode is None else num_cores()
    with tf.init_scope(), tf.device("CPU:0"):
        arrays = StoredArrays(_pack(examples, channel_axis and decode is None))
        order_of = epoch_order(_order_of(order, shuffle), n, seed)
        make_steps = functools.partial(steps_dataset, position, order_of, arrays, num_batches)
        slice_indices = slicer(n, batch_size, drop_remainder)
        transform = transformer(examples.num_classes, rescale)
        make_batch = BatchMaker(transform, num_batches, decode, augment, seed)
        batches = map_batches(make_steps(), functools.partial(make_batch, slice_indices), parallel)
        dataset = batches.prefetch(_positive("prefetch", prefetch)).with_options(options(parallel))
        slices = slices_maker(make_steps, slice_indices, make_batch, parallel, options(parallel))
    resident = None
    if decode is None:
        stacks = None if augment else make_stacks(arrays.spec, transform, n, batch_size)
        of_step, spec = functools.partial(make_batch, slice_indices), dataset.element_spec
        resident = ResidentBatches(of_step, order_of, arrays, num_batches, spec, stacks)
    preparer = _preparer(prepare_more, describe(examples[:3]), channel_axis and decode is None)
    made = EpochDataset(
        dataset, position, arrays=arrays, prepare=preparer, global_batch_size=batch_size,
        num_examples=n, resident=resident,
    )  # fmt: skip
    if not shuffle and decode is None and augment is None:
        made.finish = finisher(transform), repr((examples.num_classes, rescale))
    made.slices = None if augment else slices  # it draws random numbers for whole batches
    return made


def _order_of(order: str, shuffle: bool) -> str | None:
    if order not in ORDERS:
        raise ValueError(f"order: expected one of {', '.join(ORDERS)}, got {order!r}")
    return order if shuffle else None


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


def _is_gray(array: Array) -> bool:
    return array.dtype == np.uint8 and array.ndim == min(PIXEL_RANKS)


def _positive(name: str, value: int) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        number = 0
    if number < 1:
        raise ValueError(f"{name}: expected an integer of 1 or more, got {value!r}")
    return number
