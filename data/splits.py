"""Splits: the training, validation and test examples of a dataset, and what they become.

TensorFlow is imported when a dataset of batches is made, and not before.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from .epoch_dataset import EpochDataset

Array = npt.NDArray[Any]
# An array, or a dict or tuple of arrays.
Tree = Any
# Of images without channels, with the axis of the examples.
_GRAY_RANK = 3
# Examples that are decoded at a time where only their targets are asked for.
_CHUNK = 256


@dataclasses.dataclass(frozen=True)
class Split:
    """One part of a dataset: examples in memory, or what says where they lie in files.

    Attributes:
      x: Arrays of inputs, each with one row an example; with `decode`, an array of references, such
        as paths.
      y: Class numbers or targets, one row an example.
      num_classes: Class numbers become one-hot rows of this size; None: `y` stays as it is.
      decode: Maps references and `y` of a batch to inputs and `y`, as tensors. Context: graph.
        None: `x` holds the inputs.
      shape: Of one input that is decoded.

    Example:
      >>> from gradloop.data.splits import Split
      >>> split = Split(np.zeros((6, 28, 28), np.uint8), np.arange(6), num_classes=6)
      >>> split.num_examples, split.input_shape
      (6, (28, 28, 1))
      >>> dataset = split.make_dataset(global_batch_size=4)
      >>> [x.shape for x, y in dataset.as_numpy_iterator()]
      [(4, 28, 28, 1), (2, 28, 28, 1)]
    """

    x: Tree
    y: Tree
    num_classes: int | None = None
    decode: Callable[[Any, Any], Any] | None = None
    shape: Any = None

    @property
    def num_examples(self) -> int:
        """How many examples there are."""
        return len(_leaves(self.x)[0])

    @property
    def input_shape(self) -> Any:
        """Shape of one input as a model gets it, in the structure of `x`."""
        if self.decode is not None:
            return self.shape
        if isinstance(self.x, dict):
            return {name: _shape(array) for name, array in self.x.items()}
        if isinstance(self.x, tuple):
            return tuple(_shape(array) for array in self.x)
        return _shape(self.x)

    def make_dataset(
        self,
        *,
        global_batch_size: int,
        shuffle: bool = False,
        seed: int = 0,
        prefetch: int = 4,
        rescale: bool | None = None,
    ) -> EpochDataset:
        """Returns batches of the examples; the arguments are those of `pipeline.make_dataset`."""
        from . import pipeline

        return pipeline.make_dataset(
            self.x,
            self.y,
            global_batch_size=global_batch_size,
            num_classes=self.num_classes,
            shuffle=shuffle,
            seed=seed,
            prefetch=prefetch,
            rescale=rescale,
            decode=self.decode,
        )

    def take(self, indices: Sequence[int] | Array) -> tuple[Tree, Tree]:
        """Returns inputs and `y` of some examples as the files have them: nothing is rescaled.

        Args:
          indices: Places in this part, in any order.
        """
        x, y = _rows(self.x, indices), _rows(self.y, indices)
        if self.decode is None:
            return x, y
        from .decoding import decode_all

        return decode_all(self.decode, x, y)

    def labels(self) -> Tree:
        """Returns class numbers or targets of all examples, in their order."""
        if self.y is not None:
            return self.y
        starts = range(0, self.num_examples, _CHUNK)
        parts = [self.take(np.arange(i, min(i + _CHUNK, self.num_examples)))[1] for i in starts]
        return np.concatenate(parts)

    def part(self, indices: Sequence[int] | Array) -> Split:
        """Returns these examples, in this order, as a part of their own."""
        return dataclasses.replace(self, x=_rows(self.x, indices), y=_rows(self.y, indices))


@dataclasses.dataclass(frozen=True)
class Splits:
    """The parts of a dataset.

    Attributes:
      train: What is trained on.
      test: What measures a model that is trained; None if there is none.
      validation: What measures a model during training; None: the test set does.
      class_names: Name of each class; None if they have no names, or numbers are predicted.

    Example:
      >>> splits = data.load("mnist")
      >>> splits.train.num_examples, splits.test.num_examples, splits.num_classes
      (60000, 10000, 10)
      >>> images, labels = splits.test.take([0, 1])
      >>> images.shape, labels.tolist()
      ((2, 28, 28), [7, 2])
    """

    train: Split
    test: Split | None = None
    validation: Split | None = None
    class_names: tuple[str, ...] | None = None

    @property
    def num_classes(self) -> int | None:
        """Number of classes; None if numbers are predicted."""
        return self.train.num_classes

    @property
    def input_shape(self) -> Any:
        """Shape of one input as a model gets it."""
        return self.train.input_shape

    def with_validation(self, fraction: float, seed: int) -> Splits:
        """Returns them with a part of the training examples as validation examples.

        Args:
          fraction: Above 0 and below 1.
          seed: Decides which: the same ones for the same seed. Their order stays.

        Raises:
          ValueError: If one of the two parts would be empty.

        Example:
          >>> splits = data.load("mnist").with_validation(0.1, seed=0)
          >>> splits.train.num_examples, splits.validation.num_examples
          (54000, 6000)
        """
        num = self.train.num_examples
        num_validation = round(num * fraction)
        if not 0 < num_validation < num:
            raise ValueError(
                f"validation_split={fraction:g} of {num} training examples leaves one part empty: "
                "pass another fraction above 0 and below 1, or more examples."
            )
        order = np.random.default_rng(seed).permutation(num)
        return dataclasses.replace(
            self,
            train=self.train.part(np.sort(order[num_validation:])),
            validation=self.train.part(np.sort(order[:num_validation])),
        )


def _leaves(tree: Tree) -> list[Array]:
    if isinstance(tree, dict):
        return [*tree.values()]
    return [*tree] if isinstance(tree, tuple) else [tree]


def _shape(array: Array) -> tuple[int, ...]:
    is_gray = array.dtype == np.uint8 and array.ndim == _GRAY_RANK
    return (*array.shape[1:], 1) if is_gray else array.shape[1:]


def _rows(tree: Tree, indices: Any) -> Tree:
    if isinstance(tree, dict):
        return {name: array[indices] for name, array in tree.items()}
    if isinstance(tree, tuple):
        return tuple(array[indices] for array in tree)
    return None if tree is None else tree[indices]
