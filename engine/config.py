"""TrainConfig: what a run is told, and what of it is legal."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import math
import re
import types
import typing
from collections.abc import Iterable
from typing import Any

MODES = ("train", "evaluate", "predict", "compare", "tune", "diagnose_input")
STRATEGIES = ("default", "one_device", "mirrored")
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
NUMERICS = ("exact", "fast")
INPUTS = ("auto", "resident", "streamed")

# On a machine with no GPU, `mirrored` without num_replicas shows the mechanism with the fewest.
DEFAULT_NUM_CPU_REPLICAS = 2
FAST_DEV_RUN_STEPS = 8


class ConfigError(ValueError):
    """A value is not legal: the message names it, the legal ones and the cure."""


def _option(default: Any, group: str, help_text: str, **metadata: Any) -> Any:
    return dataclasses.field(
        default=default, metadata={"group": group, "help": help_text, **metadata}
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """What a run is told. Every field is a flag of `train.py` and a key of its config file.

    Raises:
      ConfigError: If a value is not of its field's type or not legal.
    """

    mode: str = _option(
        "train", "what", "what to do", choices=MODES,
        shortcuts={
            "tune": "measure what is fastest on this machine, for later runs",
            "diagnose_input": "measure whether the input holds the training up",
        },
    )  # fmt: skip
    model: str = _option("cnn", "what", "name in the model registry")
    dataset: str = _option("mnist", "what", "name of the data set")

    epochs: int = _option(
        1, "training", "index of the last epoch, plus one; a model's recipe has its own", minimum=1
    )
    initial_epoch: int = _option(0, "training", "index of the first epoch", minimum=0)
    global_batch_size: int = _option(
        64, "training",
        "examples a step, over all replicas together; a model's recipe has its own",
        minimum=1, alias="batch_size",
    )  # fmt: skip
    learning_rate: float | None = _option(
        None, "training", "the optimizer's; none: the recipe's own", above=0
    )
    steps_per_epoch: int | None = _option(
        None, "training",
        "steps in an epoch, of which the next goes on in the data; none: all of the data",
        minimum=1, alias="limit_train_batches",
    )  # fmt: skip
    validation_freq: int = _option(1, "training", "epochs from validation to validation", minimum=1)
    validation_steps: int | None = _option(
        None, "training", "steps in a validation; none: all of the data", minimum=1
    )
    seed: int | None = _option(
        0, "training", "of weights, dropout and order; none: unseeded", minimum=0, maximum=2**32 - 1
    )
    fast_dev_run: bool = _option(
        False, "training", f"one epoch of {FAST_DEV_RUN_STEPS} steps, to see that all works"
    )

    strategy: str = _option("default", "execution", "tf.distribute strategy", choices=STRATEGIES)
    num_replicas: int | None = _option(
        None, "execution", "for mirrored; none: all GPUs, or 2 logical CPU devices", minimum=1
    )
    precision: str = _option("float32", "execution", "dtype policy", choices=PRECISIONS)
    numerics: str = _option(
        "exact", "execution", "exact: fit's bits; fast: also what changes bits but not learning",
        choices=NUMERICS,
    )  # fmt: skip
    jit_compile: bool | str = _option(
        "auto", "execution",
        "XLA: false, true (the step), loop (many steps at once), parts (the optimizer's update); "
        "auto: as fit does, and with numerics=fast what --tune measured to be fastest",
        choices=("auto", True, False, "parts", "loop"),
    )  # fmt: skip
    steps_per_execution: int | str = _option(
        "auto", "execution", "steps in one host call; auto: about a tenth of a second", minimum=1
    )
    max_retraces: int | None = _option(
        None, "execution", "graphs of a step beyond its first before it is an error; none: any",
        minimum=0,
    )  # fmt: skip
    deterministic: bool = _option(False, "execution", "only operations with steady bits")
    intra_op_threads: int | None = _option(
        None, "execution", "threads inside an operation; none: TensorFlow's choice", minimum=1
    )
    inter_op_threads: int | None = _option(
        None, "execution", "operations at a time; none: TensorFlow's choice", minimum=1
    )

    input: str = _option(
        "auto", "data",
        "resident: the training graph makes the batches itself; streamed: tf.data does; auto: "
        "resident where it can be",
        choices=INPUTS,
    )  # fmt: skip
    prefetch: int = _option(4, "data", "batches that a streamed input holds ready", minimum=1)
    rescale: bool = _option(True, "data", "pixels to [0, 1]; no_rescale: raw 0..255")
    data_dir: str | None = _option(None, "data", "folder of the data set; none: the user's cache")

    run_dir: str | None = _option(None, "output", "folder of this run; none: a new one in runs/")
    checkpoint: str | None = _option(
        None, "output", "file to start from, to evaluate or predict with"
    )
    resume: bool = _option(False, "output", "go on with the run in --run_dir")
    profile: str | None = _option(
        None, "output",
        "A,B: trace steps A to B and sum up where time goes; from 1, B included",
    )  # fmt: skip

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            check_field(field, getattr(self, field.name))
        for check in (_check_epochs, _check_replicas, _check_start, _check_profile):
            check(self)


def nearest(value: object, legal: Iterable[object]) -> str:
    """Returns ` Did you mean 'x'?`, or nothing if no legal word is near."""
    close = difflib.get_close_matches(str(value), [str(word) for word in legal], n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def field_types(field: dataclasses.Field[Any]) -> tuple[type, ...]:
    """Returns the types that a field's value may have."""
    hint = _hints()[field.name]
    return typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)


@functools.cache
def _hints() -> dict[str, Any]:
    return typing.get_type_hints(TrainConfig)


def _check_epochs(config: TrainConfig) -> None:
    if config.initial_epoch >= config.epochs:
        raise ConfigError(
            f"initial_epoch={config.initial_epoch} with epochs={config.epochs} leaves no epoch: "
            "epochs is the index of the last one, plus one."
        )


def _check_replicas(config: TrainConfig) -> None:
    if config.num_replicas and config.num_replicas > 1 and config.strategy != "mirrored":
        raise ConfigError(
            f"num_replicas={config.num_replicas} with strategy={config.strategy!r}: "
            "use strategy='mirrored' for several replicas."
        )
    if config.strategy == "mirrored" and config.global_batch_size < (config.num_replicas or 1):
        raise ConfigError(
            f"global_batch_size={config.global_batch_size} is less than "
            f"num_replicas={config.num_replicas}: give each replica one example or more."
        )
    uses_xla = config.jit_compile not in ("auto", False)
    if config.strategy == "mirrored" and uses_xla and config.num_replicas != 1:
        raise ConfigError(
            f"jit_compile={show(config.jit_compile)} with strategy='mirrored': XLA cannot compile "
            "the exchange between replicas. Use jit_compile='auto', or one replica."
        )
    if config.strategy == "mirrored" and config.numerics == "fast" and config.num_replicas != 1:
        raise ConfigError(
            "numerics='fast' with strategy='mirrored': its updates are for one replica. Use "
            "numerics='exact', or one replica."
        )


def _check_start(config: TrainConfig) -> None:
    has_start = config.resume or config.checkpoint is not None
    if config.resume and config.run_dir is None:
        raise ConfigError("resume needs run_dir: name the folder of the run to go on with.")
    if config.resume and config.checkpoint is not None:
        raise ConfigError(
            f"resume goes on from the newest checkpoint in run_dir, and checkpoint="
            f"{config.checkpoint!r} names another start: choose one."
        )
    if config.mode in ("compare", "tune", "diagnose_input") and has_start:
        raise ConfigError(
            f"mode={config.mode!r} starts from new weights: leave resume and checkpoint out."
        )
    if config.mode in ("evaluate", "predict") and not has_start:
        raise ConfigError(
            f"mode={config.mode!r} needs a checkpoint: pass --checkpoint FILE, or --run_dir DIR "
            "--resume for the newest one of a run."
        )


def _check_profile(config: TrainConfig) -> None:
    if config.profile is None:
        return
    parse_profile(config.profile)
    if config.mode != "train":
        raise ConfigError(
            f"profile={config.profile} with mode={config.mode!r}: only steps of training are "
            "profiled. Use mode='train', or leave profile out."
        )


def parse_profile(text: str, num_steps: int | None = None) -> tuple[int, int]:
    """Returns the first and the last step to profile, counted from 1 as Keras's TensorBoard does.

    Args:
      text: "A,B".
      num_steps: Of the run; None: not known.

    Raises:
      ConfigError: If it is no such pair, or not within the run.
    """
    found = re.fullmatch(r"\s*(\d+)\s*,\s*(\d+)\s*", text)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise ConfigError(
            f"profile={text} must be A,B: the first step, 1 or more, and the last one, not below "
            "the first, as in 20,40."
        )
    first, last = int(found[1]), int(found[2])
    if num_steps is not None and last > num_steps:
        raise ConfigError(
            f"profile={text}, but this run has {num_steps} steps: name steps from 1 to {num_steps}."
        )
    return first, last


def check_field(field: dataclasses.Field[Any], value: Any) -> None:
    """Raises ConfigError if the value is not of the field's type or not legal by itself."""
    legal_types = field_types(field)
    is_bool_for_number = isinstance(value, bool) and bool not in legal_types
    is_int_for_float = isinstance(value, int) and float in legal_types
    if is_bool_for_number or not (isinstance(value, legal_types) or is_int_for_float):
        wanted = " or ".join("none" if t is type(None) else t.__name__ for t in legal_types)
        raise ConfigError(f"{field.name}={show(value)} must be of type {wanted}.")
    choices = field.metadata.get("choices")
    if choices and value not in choices:
        legal = ", ".join(map(show, choices))
        raise ConfigError(
            f"{field.name}={value!r} is not one of: {legal}.{nearest(value, map(show, choices))}"
        )
    if isinstance(value, str) and "minimum" in field.metadata and value != field.default:
        raise ConfigError(f"{field.name}={value!r} must be a number or {field.default!r}.")
    _check_range(field, value)


def _check_range(field: dataclasses.Field[Any], value: Any) -> None:
    minimum, above = field.metadata.get("minimum"), field.metadata.get("above")
    maximum = field.metadata.get("maximum")
    if isinstance(value, int | float):
        if maximum is not None and value > maximum:
            raise ConfigError(f"{field.name}={value} must be {maximum} or less.")
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"{field.name}={value} must be a finite number.")
        if minimum is not None and value < minimum:
            raise ConfigError(f"{field.name}={value} must be {minimum} or more.")
        if above is not None and not value > above:
            raise ConfigError(f"{field.name}={value} must be above {above}.")


def show(value: object) -> str:
    """Returns a value as a person writes it in a flag."""
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)
