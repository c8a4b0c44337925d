"""Snapshot: what of a state a checkpoint saves, as it is at one moment."""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from gradloop.files import make_directory, write_atomically

from ..history import Progress
from ..variables import NamedValues, flatten_extras
from . import format as format_lib
from .format import DamagedError, Values, checked_progress

if TYPE_CHECKING:
    from ..state import TrainState

Buffers = dict[str, list[np.ndarray]]


class NonFiniteError(ValueError):
    """A variable that must be finite is not."""


@dataclasses.dataclass
class Snapshot:
    """Variables, progress and the other parts of a run.

    Attributes:
      progress: A copy.
      values: Variable name and its arrays. `capture` reads them when they are asked for, once.
      tree: What `state.resumption.capture` returned.
      num_bytes: Of the variables, about.
      finite: Names of variables whose values must be finite to be written.
    """

    progress: Progress
    values: Values
    tree: dict[str, Any]
    num_bytes: int
    finite: Collection[str] = ()

    def copied(self, buffers: Buffers) -> Snapshot:
        """Returns one that stays as it is while the state is trained.

        Args:
          buffers: Where the copies are kept. A later snapshot takes the same memory, because new
            memory costs more time than the copy.
        """
        values = [(name, _copied(name, arrays, buffers)) for name, arrays in self.values]
        return dataclasses.replace(self, values=values, tree=copy.deepcopy(self.tree))

    def write(self, path: Path) -> None:
        """Writes a file: under a temporary name, forced to disk, renamed.

        Raises:
          NonFiniteError: If a variable is not finite that must be; names it.
          OSError: If the file cannot be written.
          DirectoryError: If its directory cannot.
        """
        make_directory(path.parent)
        write = functools.partial(
            format_lib.write, progress=self.progress, values=self._checked(), tree=self.tree
        )
        write_atomically(path, write, mode="wb")

    def _checked(self) -> Iterator[tuple[str, list[np.ndarray]]]:
        for name, arrays in self.values:
            if name in self.finite and not all(_is_finite(array) for array in arrays):
                raise NonFiniteError(f"{name} has values that are not finite")
            yield name, arrays


def capture(state: TrainState, *, only_finite: bool = False) -> Snapshot:
    """Returns what there is to save of a state.

    Context: cross-replica, between executions, on all workers. Only the chief writes it.

    Args:
      state: It is only read, and must not be trained before the snapshot is written or copied.
      only_finite: Whether the trainable variables and the optimizer slots must be finite.

    Raises:
      ValueError: If the progress is one that no run can be at.
    """
    progress = dataclasses.replace(state.progress)
    try:
        checked_progress(dataclasses.asdict(progress))
    except DamagedError as error:
        raise ValueError(f"state.progress cannot be saved: {error}.") from None
    named = state.named_variables()
    num_bytes = sum(int(np.prod(v.shape)) * np.dtype(v.dtype).itemsize for _, v in named)
    values = state.saved_values(named)
    tree = state.resumption.capture()
    return Snapshot(progress, values, tree, num_bytes, _learned(state) if only_finite else ())


def layer_prefixes(state: TrainState) -> tuple[str, ...]:
    """Returns what the names of variables of the model, and of layers in the extras, begin with."""
    owners = {"model": state.model, **flatten_extras(state.extras)}
    return tuple(f"{n}/" for n, owner in owners.items() if isinstance(owner, keras.layers.Layer))


def saved_weights(state: TrainState) -> NamedValues:
    """Returns the names and values that optimizers do not belong to. Context: as `capture`."""
    prefixes = layer_prefixes(state)
    return state.saved_values(
        [one for one in state.named_variables() if one[0].startswith(prefixes)]
    )


def _learned(state: TrainState) -> set[str]:
    """Returns the names of trainable variables and optimizer slots that hold real numbers."""
    layers = layer_prefixes(state)
    optimizers = tuple(f"{name}/" for name in state.optimizers)
    return {
        name
        for name, variable in state.named_variables()
        if (variable.trainable and name.startswith(layers)) or name.startswith(optimizers)
        if "float" in variable.dtype
    }


def _is_finite(array: np.ndarray) -> bool:
    # The least and the greatest take no memory, as an array of booleans would; NaN wins in both.
    return array.size == 0 or all(np.isfinite(one) for one in (array.min(), array.max()))


def _copied(name: str, arrays: list[np.ndarray], buffers: Buffers) -> list[np.ndarray]:
    kept = buffers.get(name, [])
    if [(b.shape, b.dtype) for b in kept] != [(a.shape, a.dtype) for a in arrays]:
        kept = buffers[name] = [np.empty_like(array) for array in arrays]
    for buffer, array in zip(kept, arrays, strict=True):
        np.copyto(buffer, array)
    return kept
