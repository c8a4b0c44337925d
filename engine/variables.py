"""The variables of a state: which must be saved, under which names, and a digest of the weights."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from .arguments import describe

METRICS_PREFIX = "metrics/"
LOGS_PREFIX = "logs."  # of the metrics that average what a step logs
TOTALS_PREFIX = "totals."  # of those that sum it

_PIECE = 1 << 20  # bytes that are compared at once

_TAKEN = ("model", "optimizer", "metrics", "accumulated", "loss_scaling", "step", "random")

NamedVariables = list[tuple[str, keras.Variable]]
NamedValues = Iterable[tuple[str, list[np.ndarray]]]

_KINDS_OF_EXTRAS = (
    keras.layers.Layer,
    keras.optimizers.Optimizer,
    keras.metrics.Metric,
    keras.Variable,
    keras.random.SeedGenerator,
)


def name_variables(owners: Mapping[str, Any]) -> NamedVariables:
    """Returns the variables of each owner, each once, as `<owner>/<path>`.

    Args:
      owners: Name to layer, optimizer, metric, variable, seed generator, or list of variables; or
        to a dict of variables by names that take the place of their paths.

    Returns:
      Unique names and variables, in order; `#2`, `#3`, ... follow where Keras gives a path twice.
    """
    seen: set[int] = set()
    counts: dict[str, int] = {}
    result = []
    for owner, thing in owners.items():
        for path, variable in _named_variables_of(thing):
            if id(variable) in seen:
                continue
            seen.add(id(variable))
            name = f"{owner}/{path}"
            counts[name] = counts.get(name, 0) + 1
            result.append((name if counts[name] == 1 else f"{name}#{counts[name]}", variable))
    return result


def local_values(variable: keras.Variable) -> list[np.ndarray]:
    """Returns a variable's values on this process's replicas.

    Context: cross-replica. `variable.numpy()` would give replica 0 alone, or a sum over replicas.

    Returns:
      One array if the variable is not distributed or all replicas hold the same bits; else one a
      replica, in order. They can only be read, keep their values, and cost no memory on a CPU until
      the variable changes.
    """
    copies = getattr(variable.value, "values", [variable.value])
    arrays = [_to_array(tf.convert_to_tensor(copy)) for copy in copies]
    is_same = have_same_bytes([arrays[0]] * len(arrays), arrays)
    return arrays[:1] if is_same else arrays


def _to_array(tensor: tf.Tensor) -> np.ndarray:
    # A tensor never changes: its array needs no copy, which `numpy()` makes. TensorFlow gives none
    # of a scalar of bfloat16.
    return np.asarray(tensor if tensor.shape.rank else tensor.numpy())


def have_same_bytes(ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray]) -> bool:
    """Returns whether two lists of arrays are equal byte by byte; shapes and dtypes are not asked.

    Bytes, because NaN differs from itself and 0.0 equals -0.0; in pieces, to take no memory.
    """
    if len(ours) != len(theirs):
        return False
    flat = [[array.reshape(-1).view(np.uint8) for array in arrays] for arrays in (ours, theirs)]
    return all(
        np.array_equal(a[i : i + _PIECE], b[i : i + _PIECE])
        for a, b in zip(*flat, strict=True)
        for i in range(0, max(a.size, b.size), _PIECE)
    )


def assign_local_values(
    variable: keras.Variable, values: Sequence[np.ndarray], *, first_replica: int = 0
) -> None:
    """Puts back what `local_values` returned; replicas that have no value get the first one.

    Context: cross-replica.

    Args:
      variable: Gets the values on the replicas of this process.
      values: One a replica, in order.
      first_replica: Index of the first replica of this process among the values.
    """
    copies = getattr(variable.value, "values", None)
    if copies is None:
        variable.assign(values[0])
        return
    for index, copy in enumerate(copies, first_replica):
        copy.assign(values[index] if index < len(values) else values[0])


def layers_of(owners: Iterable[Any]) -> list[keras.Layer]:
    """Returns the layers of those owners that are layers or models, nested ones too."""
    tops = [owner for owner in owners if isinstance(owner, keras.Layer)]
    return [layer for top in tops for layer in top._flatten_layers()]


def digest(named: NamedValues) -> str:
    """Returns the SHA-256 of variables in order: path, dtype, shape, bytes of each value."""
    sha256 = hashlib.sha256()
    for path, values in named:
        for value in values:
            sha256.update(f"{path} {value.dtype.name} {value.shape}\n".encode())
            sha256.update(value.tobytes())
    return sha256.hexdigest()


def flatten_extras(extras: Mapping[str, Any]) -> dict[str, Any]:
    """Returns extras by name, those in dicts and lists by names such as `critics/0`."""
    if not isinstance(extras, Mapping):
        raise ValueError(
            f"extras must be a dict of names, not {describe(extras)}: {{'name': ...}}."
        )
    flat: dict[str, Any] = {}
    for name, extra in extras.items():
        if isinstance(extra, list | tuple):
            inner: Mapping[str, Any] = {str(index): one for index, one in enumerate(extra)}
        else:
            inner = extra if isinstance(extra, Mapping) else {}
        if inner:
            flat |= {f"{name}/{key}": one for key, one in flatten_extras(inner).items()}
        else:
            flat[name] = extra
    return flat


def check_extras(extras: Mapping[str, Any]) -> None:
    """Raises ValueError if an extra cannot be saved, is not built, or its name is taken."""
    for name, extra in extras.items():
        if name.split("/")[0] in _TAKEN:
            raise ValueError(
                f"extras[{name!r}]: the name is taken, like {', '.join(_TAKEN)}: use another."
            )
        if not isinstance(extra, _KINDS_OF_EXTRAS):
            raise ValueError(
                f"extras[{name!r}] is {describe(extra)}, which cannot be saved: pass a model, "
                "layer, optimizer, metric, keras.Variable or keras.random.SeedGenerator, or dicts "
                "and lists of these."
            )
        if isinstance(extra, keras.optimizers.Optimizer) and not extra.built:
            raise ValueError(
                f"extras[{name!r}] is an optimizer that is not built: call "
                f"{name}.build(model.trainable_variables) inside strategy.scope() first."
            )


def _named_variables_of(thing: Any) -> Iterable[tuple[str, keras.Variable]]:
    if isinstance(thing, Mapping):
        return thing.items()
    return ((variable.path, variable) for variable in _variables_of(thing))


def _variables_of(thing: Any) -> list[keras.Variable]:
    if isinstance(thing, keras.Variable):
        return [thing]
    if isinstance(thing, keras.random.SeedGenerator):
        return [thing.state]
    variables = list(thing if isinstance(thing, list) else thing.variables)
    if isinstance(thing, keras.Layer):
        # Keras does not count the states of a stateful RNN among the variables of its layer.
        rnns = [one for one in thing._flatten_layers() if getattr(one, "stateful", False)]
        states = keras.tree.flatten([getattr(rnn, "states", None) for rnn in rnns])
        variables += [state for state in states if isinstance(state, keras.Variable)]
    return variables
