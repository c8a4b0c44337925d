"""TrainConfig: the settings that the engine reads, and which values of them are legal."""

from __future__ import annotations

import dataclasses
import functools
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, Self

from gradloop.usage import did_you_mean

from .values import as_python, whole_number_hint

STRATEGIES = ("default", "one_device", "mirrored")
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
NUMERICS = ("exact", "fast")
INPUTS = ("auto", "resident", "streamed")
JIT_SCOPES = ("step", "loop", "update")

# `mirrored` without num_replicas on a machine without a GPU: the fewest that show the mechanism.
DEFAULT_NUM_CPU_REPLICAS = 2


class ConfigError(ValueError):
    """A value is not legal: the message names it, the legal ones and the fix."""


def option(default: Any, group: str, help_text: str, **metadata: Any) -> Any:
    """Returns a field of a config.

    Args:
      default: Its value where nobody sets it.
      group: Heading under which `--help` lists it.
      help_text: One line for `--help`.
      **metadata: What `check_field` enforces: `choices`, `minimum`, `maximum`, `above`; `none`: the
        word that stands for None, "none" without it; and `on_resume`: whether another value is
        "applied" in a run that goes on, "refused", or "warned" about because it changes bits.
    """
    on_resume = "warned" if group == "execution" else "applied"
    defaults = {"group": group, "help": help_text, "on_resume": on_resume}
    return dataclasses.field(default=default, metadata=defaults | metadata)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The settings of a training. All have defaults; none is ignored.

    `strategy`, `num_replicas`, `precision`, `seed`, `deterministic` and the numbers of threads take
    effect in `configure_runtime` and `make_strategy`. `fit`, `evaluate` and `predict` check that
    the state and the process agree with those that are set. None means: whatever is there.

    Raises:
      ConfigError: If a value has the wrong type or is not legal.

    Example:
      >>> config = engine.TrainConfig(epochs=3, jit_compile=True)
      >>> dataclasses.replace(config, epochs=5).epochs
      5
    """

    epochs: int = option(1, "training", "index of the last epoch, plus one", minimum=1)
    initial_epoch: int = option(
        0, "training", "index of the first epoch", minimum=0, on_resume="refused"
    )
    global_batch_size: int | None = option(
        None, "training", "examples a step, over all replicas together", minimum=1,
        alias="batch_size", on_resume="refused",
    )  # fmt: skip
    steps_per_epoch: int | None = option(
        None, "training",
        "steps of an epoch; the next epoch continues in the data; none: all of the data",
        minimum=1, alias="limit_train_batches", on_resume="refused",
    )  # fmt: skip
    gradient_accumulation_steps: int = option(
        1, "training", "steps whose gradients are one update of the weights", minimum=1,
        on_resume="refused",
    )  # fmt: skip
    on_nonfinite: str | None = option(
        None, "training",
        "a gradient or loss that is not finite: stop, skip its step, or rollback to a checkpoint, "
        "before weights change; watch: stop once the logged loss shows it; off: train on",
        choices=("stop", "skip", "rollback", "off"), none="watch",
    )  # fmt: skip
    validation_freq: int | list[int] = option(  # noqa: RUF009 - no list is shared
        1, "training",
        "epochs between validations, or the epochs to validate after: 1,5,10", minimum=1,
    )  # fmt: skip
    validate_every_steps: int | None = option(
        None, "training", "steps between validations within an epoch; none: at its end alone",
        minimum=1,
    )  # fmt: skip
    validation_steps: int | None = option(
        None, "training", "steps of a validation; none: all of the data", minimum=1
    )
    seed: int | None = option(
        None, "training", "global seed: weights, dropout, order; none: unseeded",
        minimum=0, maximum=2**32 - 1, on_resume="refused",
    )  # fmt: skip

    strategy: str | None = option(
        None, "execution", "tf.distribute strategy; none: the current one", choices=STRATEGIES
    )
    num_replicas: int | None = option(
        None, "execution", "replicas of mirrored; none: all GPUs, or 2 logical CPU devices",
        minimum=1,
    )  # fmt: skip
    precision: str | None = option(
        None, "execution", "dtype policy of Keras; none: the current one", choices=PRECISIONS
    )
    numerics: str = option(
        "exact", "execution",
        "exact: the bits of fit; fast: also what changes bits but not learning", choices=NUMERICS,
    )  # fmt: skip
    jit_compile: bool | None = option(
        None, "execution", "compile with XLA; auto: Keras's rule, never on a CPU", none="auto"
    )
    jit_scope: str = option(
        "step", "execution",
        "what XLA compiles: each step, a loop of steps where the graph makes the batches, or the "
        "optimizer's update",
        choices=JIT_SCOPES,
    )  # fmt: skip
    steps_per_execution: int | None = option(
        None, "execution", "steps in one host call; auto: about a tenth of a second", minimum=1,
        none="auto", on_resume="applied",
    )  # fmt: skip
    run_eagerly: bool = option(
        False, "execution", "run steps in Python, one by one, for a debugger; slow"
    )
    max_retraces: int | None = option(
        None, "execution", "graphs of a step beyond its first before it is an error; none: any",
        minimum=0, on_resume="applied",
    )  # fmt: skip
    deterministic: bool = option(False, "execution", "use deterministic ops")
    intra_op_threads: int | None = option(
        None, "execution", "threads within an operation; none: TensorFlow's choice", minimum=1
    )
    inter_op_threads: int | None = option(
        None, "execution", "operations that run at once; none: TensorFlow's choice", minimum=1
    )
    input: str = option(
        "auto", "data",
        "who makes the batches: the training graph (resident) or tf.data (streamed); auto: "
        "resident where possible",
        choices=INPUTS,
    )  # fmt: skip

    def __new__(cls, *args: Any, **fields: Any) -> Self:
        """Checks names before the `__init__` of the dataclass, which gives no hint."""
        _check_names(cls, args, fields)
        return super().__new__(cls)

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            legal_types = field_types(type(self), field.name)
            value = as_python(getattr(self, field.name), legal_types)
            if isinstance(value, str) and value == field.metadata.get("none"):  # Keras's "auto"
                value = None
            object.__setattr__(self, field.name, value)
            check_field(field, value, legal_types)
        _check_epochs(self)
        _check_replicas(self)
        _check_xla(self)


def _check_names(config_class: type, args: tuple[Any, ...], fields: Mapping[str, Any]) -> None:
    name = config_class.__name__
    if args:
        raise ConfigError(
            f"{name} takes fields by name: {name}(epochs=3), not {name}({args[0]!r})."
        )
    legal = {}
    for field in dataclasses.fields(config_class):
        legal[field.name] = field.name
        legal[field.metadata.get("alias", field.name)] = field.name
    for unknown in fields:
        if legal.get(unknown) != unknown:
            hint = f" Did you mean {legal[unknown]!r}?" if unknown in legal else ""
            hint = hint or did_you_mean(unknown, legal.values())
            hint = hint or f" Legal are {', '.join(sorted(set(legal.values())))}."
            raise ConfigError(f"{name} has no field {unknown!r}.{hint}")


def field_types(config_class: type, name: str) -> tuple[type, ...]:
    """Returns the types that a field's value may have."""
    hint = _hints(config_class)[name]
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    return tuple(typing.get_origin(one) or one for one in options)


@functools.cache
def _hints(config_class: type) -> dict[str, Any]:
    return typing.get_type_hints(config_class)


def _check_epochs(config: TrainConfig) -> None:
    if config.initial_epoch > config.epochs:
        raise ConfigError(
            f"initial_epoch={config.initial_epoch} is beyond epochs={config.epochs}: "
            "epochs is the index of the last one, plus one."
        )
    epochs = config.validation_freq
    if isinstance(epochs, list) and not all(type(e) is int and e >= 1 for e in epochs or [0]):
        raise ConfigError(
            f"validation_freq={epochs} must hold numbers of epochs, counted from 1: [1, 5, 10]."
        )


def _check_replicas(config: TrainConfig) -> None:
    if (config.num_replicas or 1) > 1 and config.strategy not in ("mirrored", None):
        raise ConfigError(
            f"num_replicas={config.num_replicas} with strategy={config.strategy!r}: "
            "use strategy='mirrored' for several replicas."
        )
    num_replicas = config.num_replicas or 1
    if config.strategy == "mirrored" and (config.global_batch_size or num_replicas) < num_replicas:
        raise ConfigError(
            f"global_batch_size={config.global_batch_size} is less than "
            f"num_replicas={config.num_replicas}: give each replica one example or more."
        )


def _check_xla(config: TrainConfig) -> None:
    if config.run_eagerly and config.jit_compile:
        raise ConfigError(
            "run_eagerly=true with jit_compile=true: XLA compiles graphs, and there is none. Use "
            "one of them."
        )
    if config.jit_scope != "step" and not config.jit_compile:
        raise ConfigError(
            f"jit_scope={config.jit_scope!r} with jit_compile={show(config.jit_compile, 'auto')}: "
            "it says what XLA compiles. Set jit_compile=True, or leave jit_scope out."
        )
    if config.strategy == "mirrored" and config.num_replicas != 1:
        check_one_replica(config, "strategy='mirrored'")


def check_one_replica(config: TrainConfig, found: str) -> None:
    """Raises ConfigError if the config asks for what only one replica can do.

    Args:
      config: Read: `jit_compile`, `numerics`.
      found: The replicas that there are, in words.
    """
    if config.jit_compile:
        raise ConfigError(
            f"jit_compile=true with {found}: XLA cannot compile the exchange between replicas. Use "
            "jit_compile='auto' or false, or one replica."
        )
    if config.numerics == "fast":
        raise ConfigError(
            f"numerics='fast' with {found}: its updates are for one replica. Use "
            "numerics='exact', or one replica."
        )


def check_field(field: dataclasses.Field[Any], value: Any, legal_types: tuple[type, ...]) -> None:
    """Raises ConfigError if a value has another type than the field, or is not legal by itself."""
    none = field.metadata.get("none", "none")
    is_bool_for_number = isinstance(value, bool) and bool not in legal_types
    is_int_for_float = isinstance(value, int) and float in legal_types
    choices = field.metadata.get("choices")
    if bool in legal_types and isinstance(value, str):
        words = [*([none] if type(None) in legal_types else []), *(choices or ())]
        choices = ["true", "false", *words]
    elif is_bool_for_number or not (isinstance(value, legal_types) or is_int_for_float):
        wanted = " or ".join(none if t is type(None) else t.__name__ for t in legal_types)
        fix = f" One of: {', '.join(choices)}." if choices else ""
        if int in legal_types and not choices:
            fix = whole_number_hint(value)
        raise ConfigError(
            f"{field.name}={show(value, none)} must be of type {wanted}, not "
            f"{type(value).__name__}.{fix}"
        )
    is_chosen = value is None or isinstance(value, bool) or value in (choices or ())
    if choices and not is_chosen:
        raise ConfigError(
            f"{field.name}={value!r} is not one of: {', '.join(choices)}."
            f"{did_you_mean(value, choices)}"
        )
    if isinstance(value, int | float) and not isinstance(value, bool):
        _check_range(field, value)


def _check_range(field: dataclasses.Field[Any], value: int | float) -> None:
    minimum, above = field.metadata.get("minimum"), field.metadata.get("above")
    maximum = field.metadata.get("maximum")
    if not math.isfinite(value):
        raise ConfigError(f"{field.name}={value} must be a finite number.")
    if maximum is not None and value > maximum:
        raise ConfigError(f"{field.name}={value} must be {maximum} or less.")
    if minimum is not None and value < minimum:
        raise ConfigError(f"{field.name}={value} must be {minimum} or more.")
    if above is not None and not value > above:
        raise ConfigError(f"{field.name}={value} must be above {above}.")


def show(value: object, none: str = "none") -> str:
    """Returns a value as a person writes it in a flag; `none` stands for None."""
    if value is None:
        return none
    return str(value).lower() if isinstance(value, bool) else str(value)
