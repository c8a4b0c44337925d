"""--init_from: first weights from a file, weights alone, and what of it belongs to the model."""

from __future__ import annotations

import fnmatch
import warnings
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from gradloop import engine
from gradloop.engine.options import ConfigError
from gradloop.engine.storage.checkpoint import final_checkpoint
from gradloop.engine.storage.format import CheckpointFile
from gradloop.engine.storage.matching import match
from gradloop.engine.variables import assign_local_values, local_values, name_variables
from gradloop.usage import did_you_mean

from ..run_directory import checkpoints_of

Values = Mapping[str, np.ndarray]
_OWNER = "model/"
_NUM_NAMED = 4


def take_weights(path: str, state: engine.TrainState, exclude: Collection[str]) -> str:
    """Gives a model the weights in a file that belong to it, and returns in words which these are.

    Everything is compared before anything is assigned. Context: cross-replica, on all workers.

    Args:
      path: A checkpoint, a folder of them, the folder of a run, a `.keras` or a `.weights.h5` file.
      state: Built.
      exclude: Patterns of paths of variables, or of layers, that keep their new values.

    Raises:
      ConfigError: If the file cannot be read, none of it belongs to the model, a pattern is of no
        variable, or a shape differs.
    """
    variables = _named(state.model)
    known = {id(variable) for variable in state.model.weights}
    weights = {name: v for name, v in variables.items() if id(v) in known}  # no seeds
    excluded = _excluded(exclude, weights)
    file = _file_of(Path(path))
    read = _READERS.get("".join(file.suffixes[-2:]), _READERS.get(file.suffix))
    if read is None:
        raise ConfigError(
            f"init_from={path!r} is of no known kind: pass a .npz checkpoint, the folder of a run, "
            "a .keras or a .weights.h5 file."
        )
    values = read(file, state, excluded)
    matched = _match(values, [name for name in variables if name not in excluded], exclude)
    matched = {name: value for name, value in matched.items() if name in weights}
    if not matched:
        raise ConfigError(
            f"init_from={path!r}: nothing in {file} belongs to this model, which has "
            f"{_listed(list(weights))}."
        )
    _check_shapes(path, weights, matched)
    for name, value in matched.items():
        variable = weights[name]
        one = np.asarray(value, np.dtype(variable.dtype))
        assign_local_values(variable, [one], first_replica=state.peers.first_replica)
    new = [name for name in weights if name not in matched]
    kept = f", new: {_listed(new)}" if new else ""
    return f"{len(matched)} of {len(weights)} variables from {file}{kept}"


def _named(model: keras.Model) -> dict[str, keras.Variable]:
    """Returns the variables of a model by the short forms of their names in a checkpoint."""
    named = dict(name_variables({"model": model}))
    named = {name.removeprefix(_OWNER): variable for name, variable in named.items()}
    return dict(zip(_short(list(named)), named.values(), strict=True))


def _short(names: list[str]) -> list[str]:
    """Returns names without what all begin with: some models write their own name before all."""
    first = {name.partition("/")[0] for name in names}
    is_common = len(first) == 1 and all(name.count("/") > 1 for name in names)
    return [name.partition("/")[2] for name in names] if is_common else names


def _match(values: Values, present: list[str], exclude: Collection[str]) -> Values:
    """Returns the values of the variables of a model that a file has, whole names or short."""
    found: list[dict[str, np.ndarray]] = []
    for names in (list(values), _short(list(values))):
        there = {
            f"{_OWNER}{name}": value
            for name, value in zip(names, values.values(), strict=True)
            if not any(_matches(name, pattern) for pattern in exclude)
        }
        pairs = match(list(there), [f"{_OWNER}{name}" for name in present])
        found.append({here.removeprefix(_OWNER): there[name] for here, name in pairs.items()})
    return max(found, key=len)


def _excluded(patterns: Collection[str], weights: Collection[str]) -> set[str]:
    for pattern in patterns:
        if not any(_matches(name, pattern) for name in weights):
            layers = sorted({name.rpartition("/")[0] for name in weights})
            raise ConfigError(
                f"exclude={pattern!r} is of no variable of the model, which has "
                f"{_listed(layers)}.{did_you_mean(pattern, layers)}"
            )
    return {name for name in weights if any(_matches(name, pattern) for pattern in patterns)}


def _matches(name: str, pattern: str) -> bool:
    return any(fnmatch.fnmatchcase(name, glob) for glob in (pattern, f"{pattern}/*"))


def _file_of(path: Path) -> Path:
    if not path.exists():
        raise ConfigError(f"init_from={str(path)!r} does not exist.")
    path = checkpoints_of(path)
    found = final_checkpoint(path) if path.is_dir() else path
    if found is None:
        raise ConfigError(f"init_from={str(path)!r} has no intact checkpoint.")
    return found


def _check_shapes(path: str, weights: Mapping[str, Any], matched: Values) -> None:
    for name, value in matched.items():
        shape = tuple(weights[name].shape)
        if value.shape != shape:
            raise ConfigError(
                f"init_from={path!r} has {name} of shape {value.shape}, and the model {shape}: "
                f"leave it out with --exclude '{name.rpartition('/')[0] or name}'."
            )


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _NUM_NAMED} more" if len(names) > _NUM_NAMED else ""
    return f"{', '.join(names[:_NUM_NAMED])}{more}"


def _read_checkpoint(
    file: Path, state: engine.TrainState, excluded: Collection[str]
) -> dict[str, np.ndarray]:
    try:
        with CheckpointFile(file) as checkpoint:
            names = [name for name in checkpoint.traits if name.startswith(_OWNER)]
            replicas = {n.removeprefix(_OWNER): v for n, v in checkpoint.read(names).items()}
    except engine.CheckpointError as error:
        raise ConfigError(f"init_from: {error}") from error
    # Statistics of replicas, as they are exported.
    return {n: v[0] if len(v) == 1 else np.mean(v, axis=0) for n, v in replicas.items()}


def _read_keras(
    file: Path, state: engine.TrainState, excluded: Collection[str]
) -> dict[str, np.ndarray]:
    try:
        model = keras.models.load_model(file, compile=False)
    except (ValueError, TypeError, OSError, KeyError) as error:
        raise _unreadable(file, error) from error
    return {name: np.asarray(variable) for name, variable in _named(model).items()}


def _read_weights(
    file: Path, state: engine.TrainState, excluded: Collection[str]
) -> dict[str, np.ndarray]:
    """Returns what Keras puts into the model, which is as before afterwards.

    The file has the structure of a model and no paths: Keras alone knows what belongs where. What
    it leaves out, because a shape differs, is what is not a number any more.
    """
    model = state.model
    before = [(v, local_values(v)) for v in model.variables]
    try:
        for variable, values in before:
            if np.issubdtype(values[0].dtype, np.floating):
                blank = [np.full_like(value, np.nan) for value in values]
                assign_local_values(variable, blank)
        with warnings.catch_warnings(), state.strategy.scope():
            warnings.simplefilter("ignore")
            model.load_weights(file, skip_mismatch=bool(excluded))
        found = {name: local_values(variable)[0] for name, variable in _named(model).items()}
    except (ValueError, TypeError, OSError, KeyError) as error:
        raise _unreadable(file, error) from error
    finally:
        for variable, values in before:
            assign_local_values(variable, values)
    return {name: v for name, v in found.items() if not (v.size and np.all(v != v))}


def _unreadable(file: Path, error: Exception) -> ConfigError:
    first = str(error).strip().partition("\n")[0][:300] or type(error).__name__
    return ConfigError(
        f"init_from={str(file)!r} cannot be read for this model: {first} Pass --exclude for layers "
        "that differ."
    )


_READERS: dict[str, Callable[..., dict[str, np.ndarray]]] = {
    ".npz": _read_checkpoint,
    ".keras": _read_keras,
    ".weights.h5": _read_weights,
}
