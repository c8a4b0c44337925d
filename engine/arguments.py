"""What a person passed: is it of the right kind? If not, a sentence says what to pass instead.

Each function that a person calls begins with these checks. Whether the right kinds also agree with
one another is the question of `agreement`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import os
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from gradloop.usage import did_you_mean

from .config import TrainConfig
from .options import ConfigError

_DATA = (
    "arrays of examples, a tf.data.Dataset of batches, a keras.utils.PyDataset, a generator or a "
    "torch DataLoader"
)
# What fit calls otherwise.
_OF_FIT = {
    "batch_size": "it is a field of the config, engine.TrainConfig(global_batch_size=...)",
    "callbacks": "pass hooks=[engine.KerasCallbacks(callbacks)]",
    "verbose": "pass hooks=[engine.ProgressBar()] for a bar, or nothing",
    "validation_batch_size": "batch the validation data yourself, in a tf.data.Dataset",
    "return_dict": "the logs are a dict",
    "steps": "it is a field of the config, engine.TrainConfig(validation_steps=...)",
}
_LONGEST = 60  # characters of a value that a message shows


def describe(value: Any) -> str:
    """Returns a value in a few words of one line: what it is, and its type."""
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if value is None or isinstance(value, bool):
        return repr(value)
    text = " ".join(repr(value).split())
    if f" object at {hex(id(value))}" in text:  # an address tells nothing
        return f"an object of type {type(value).__name__}"
    text = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
    return f"{text} of type {type(value).__name__}"


def has_own(model: keras.Model, method: str) -> bool:
    """Returns whether a model, or its class, has another method of this name than Keras's."""
    found = getattr(model, method)
    return getattr(found, "__func__", found) is not getattr(keras.Model, method)


def refuse_unknown(function: Any, unknown: dict[str, Any]) -> None:
    """Raises TypeError for arguments that a function does not have, and says where they belong.

    Args:
      function: What was called.
      unknown: The arguments that are left.
    """
    for name, value in unknown.items():
        legal = [one for one in inspect.signature(function).parameters if one != "unknown"]
        if name in _OF_FIT:
            fix = _OF_FIT[name]
        elif name in {field.name for field in dataclasses.fields(TrainConfig)}:
            fix = f"it is a field of the config, engine.TrainConfig({name}={value!r})"
        else:
            fix = f"legal are {', '.join(legal)}.{did_you_mean(name, legal)}".rstrip(".")
        raise TypeError(f"engine.{function.__name__} has no argument {name!r}: {fix}.")


def check_state(state: Any, name: str = "state") -> None:
    """Raises ValueError unless `state` is a `TrainState`.

    Args:
      state: What a person passed. A stand-in may be anything that has `named_variables`.
      name: Of the argument.
    """
    if hasattr(state, "named_variables") and not isinstance(state, type):
        return
    if isinstance(state, keras.Model):
        fix = f"{name} is the Keras model {state.name!r}: pass engine.TrainState(model, optimizer, "
        fix += "loss=...), created in the scope of the strategy."
    elif isinstance(state, TrainConfig):
        fix = f"{name} is a TrainConfig, which comes after it: pass the engine.TrainState first."
    else:
        fix = f"{name} must be an engine.TrainState, not {describe(state)}: create it from a Keras "
        fix += "model, engine.TrainState(model, optimizer, loss=...)."
    raise ValueError(fix)


def check_model(model: Any) -> None:
    """Raises ValueError unless `model` is a `keras.Model`, or another layer that fit trains."""
    is_trainer = all(hasattr(model, name) for name in ("compile", "compute_loss", "train_step"))
    if is_trainer and not isinstance(model, type):
        return
    fix = "build it of layers, keras.Sequential([...])"
    if isinstance(model, keras.layers.Layer):
        fix = "put the layer into one, keras.Sequential([layer])"
    elif isinstance(model, type) and issubclass(model, keras.Model):
        fix = f"create one, {model.__name__}(...)"
    elif hasattr(model, "named_variables"):
        fix = "pass state.model"
    elif callable(model):
        fix = "call what builds it"
    raise ValueError(f"model must be a keras.Model, not {describe(model)}: {fix}.")


def check_config(config: Any) -> None:
    """Raises ConfigError unless `config` is a `TrainConfig`."""
    if isinstance(config, TrainConfig):
        return
    if isinstance(config, dict):
        raise ConfigError("config is a dict: pass engine.TrainConfig(**config).")
    if isinstance(config, type) and issubclass(config, TrainConfig):
        raise ConfigError(f"config is {describe(config)}: call it, {config.__name__}().")
    fix = "pass settings by name, engine.TrainConfig(epochs=3)"
    if hasattr(config, "named_variables"):
        fix = "the state comes before it, and config is an engine.TrainConfig(...)"
    elif isinstance(config, tf.data.Dataset):
        fix = "the data come before it, and config is an engine.TrainConfig(...)"
    raise ConfigError(f"config must be an engine.TrainConfig, not {describe(config)}: {fix}.")


def check_step(step: Any, name: str) -> None:
    """Raises ValueError unless `step` can be called with a state and a batch.

    Args:
      step: What a person passed.
      name: Of the argument.
    """
    legal = f"{name} must be a function of (state, batch) that returns logs"
    if isinstance(step, type) or not callable(step):
        fix = f"pass one such as engine.{name}"
        if isinstance(step, type):
            fix = f"create an object, {step.__name__}(...)"
        raise ValueError(f"{legal}, not {describe(step)}: {fix}.")
    if not _is_hashable(step):
        raise ValueError(
            f"{name}={describe(step)} cannot be hashed, and compiled functions are kept by it: "
            "give its class @dataclass(eq=False), or a __hash__."
        )
    try:
        signature = inspect.signature(step)
    except (TypeError, ValueError):  # of a builtin
        return
    try:
        signature.bind(None, None)
    except TypeError:
        written = f"{getattr(step, '__name__', type(step).__name__)}{signature}"
        raise ValueError(
            f"{legal}, and {written} cannot be called with these two: bind what else it needs, "
            "functools.partial(step, name=value)."
        ) from None


def _is_hashable(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


def check_resume(resume: Any) -> None:
    """Raises ValueError unless `resume` is True or False."""
    if not isinstance(resume, bool):
        raise ValueError(
            f"resume must be True or False, not {describe(resume)}: restore a checkpoint first, "
            "engine.restore_checkpoint(path, state)."
        )


def check_function(function: Any, name: str, returned: str) -> None:
    """Raises ValueError unless `function` can be called.

    Args:
      function: What a person passed.
      name: Of the argument.
      returned: What it returns, in words.
    """
    if not callable(function) or hasattr(function, "named_variables"):
        raise ValueError(
            f"{name} must be a function that returns {returned}, not {describe(function)}: "
            f"pass lambda: ... with what makes it."
        )


@contextlib.contextmanager
def data_in_words(**given: Any) -> Iterator[None]:
    """Says in a sentence which data Keras cannot take, and what to make of them.

    Args:
      **given: Name of an argument to its value.

    Raises:
      ValueError: Instead of Keras's error, if the cause is found.
    """
    try:
        yield
    except (ValueError, TypeError, KeyError, IndexError) as error:
        if str(error).startswith("Data cardinality is ambiguous"):
            raise ValueError(_explain_sizes(given)) from None
        # Keras refuses what it does not know before it looks at dtypes, and of any argument.
        is_unknown = str(error).startswith("Unrecognized data type")
        for explain in (_explain_unknown, _explain_values) if is_unknown else (_explain_values,):
            for name, data in given.items():
                sentence = explain(name, data)
                if sentence is not None:
                    raise ValueError(sentence) from None
        raise


def _explain_sizes(given: dict[str, Any]) -> str:
    sizes = [
        f"{name} {leaf.shape[0]}"  # len() fails for sparse ones
        for name, data in given.items()
        for leaf in tf.nest.flatten(data)
        if getattr(leaf, "shape", None)
    ]
    return (
        f"The numbers of examples differ: {', '.join(sizes)}. Pass one target and one weight an "
        "example."
    )


def _explain_unknown(name: str, data: Any) -> str | None:
    unknown = [leaf for leaf in _leaves(data) if not hasattr(leaf, "shape")]
    if unknown and isinstance(data, list | tuple):
        return (
            f"{name} is a {type(data).__name__} that holds {describe(unknown[0])}: pass "
            f"np.asarray({name}), or tf.constant({name}) of strings."
        )
    if unknown and not hasattr(data, "__next__"):
        hint = "call it and pass what it returns" if callable(unknown[0]) else f"pass {_DATA}"
        return f"{name} is {describe(unknown[0])}: {hint}."
    return None


def _explain_values(name: str, data: Any) -> str | None:
    if data is None:
        return f"x is None: pass {_DATA}." if name == "x" else None
    for leaf in _leaves(data):
        dtype = getattr(leaf, "dtype", None)
        if getattr(dtype, "kind", "f") in "OUSMm" and not _is_of_strings(leaf):
            return (
                f"{name} is an array of dtype {dtype}, which Keras does not take: pass numbers, "
                f"{name}.astype('float32'), or strings as tf.constant({name})."
            )
        if getattr(leaf, "shape", (1,)) == ():
            return f"{name} is {describe(leaf)}, a single value: pass an array of examples."
    return None


def _leaves(data: Any) -> list[Any]:
    return [leaf for leaf in tf.nest.flatten(data) if leaf is not None]


def _is_of_strings(array: Any) -> bool:
    """Returns whether Keras makes a tensor of strings of an array."""
    is_row = isinstance(array, np.ndarray) and array.dtype == object and array.ndim == 1
    return is_row and all(isinstance(one, str) for one in array)


def check_strategy_kind(strategy: Any) -> None:
    """Raises ValueError unless `strategy` is a `tf.distribute.Strategy`."""
    if not isinstance(strategy, tf.distribute.Strategy):
        raise ValueError(
            f"strategy must be a tf.distribute.Strategy, not {describe(strategy)}: pass "
            "state.strategy, or what engine.make_strategy(config) returns."
        )


def check_path(path: Any) -> None:
    """Raises ValueError unless `path` names a file or a folder."""
    if not isinstance(path, str | os.PathLike):
        raise ValueError(
            f"path must name a file or a folder, not {describe(path)}: it comes first, as a str or "
            "pathlib.Path."
        )


def check_built(state: Any) -> None:
    """Raises ValueError if a state lacks variables that a checkpoint must have."""
    model, optimizer = getattr(state, "model", None), getattr(state, "optimizer", None)
    if getattr(state, "is_built", True) or (
        getattr(model, "built", True) and getattr(optimizer, "built", True)
    ):
        return
    raise ValueError(
        "The state is not built: call state.build(dataset.element_spec) first, so that model and "
        "optimizer have their variables."
    )
