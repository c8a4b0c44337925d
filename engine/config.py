"""TrainConfig: what a run is told, its validation, its flags, its JSON."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import functools
import json
import math
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

MODES = ("train", "evaluate", "predict", "compare")
STRATEGIES = ("default", "one_device", "mirrored")
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")

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

    mode: str = _option("train", "what", "what to do", choices=MODES)
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
        None, "training", "steps in an epoch; none: all of the data", minimum=1,
        alias="limit_train_batches",
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
    jit_compile: bool | str = _option(
        "auto",
        "execution",
        "XLA: auto (Keras's rule), true or false",
        choices=("auto", True, False),
    )
    steps_per_execution: int | str = _option(
        "auto", "execution", "steps in one host call; auto: about a tenth of a second", minimum=1
    )
    deterministic: bool = _option(False, "execution", "only operations with steady bits")
    intra_op_threads: int | None = _option(
        None, "execution", "threads inside an operation; none: TensorFlow's choice", minimum=1
    )
    inter_op_threads: int | None = _option(
        None, "execution", "operations at a time; none: TensorFlow's choice", minimum=1
    )

    rescale: bool = _option(True, "data", "pixels to [0, 1]; no_rescale: raw 0..255")
    data_dir: str | None = _option(None, "data", "folder of the data set; none: the user's cache")

    run_dir: str | None = _option(None, "output", "folder of this run; none: a new one in runs/")
    checkpoint: str | None = _option(
        None, "output", "file to start from, to evaluate or predict with"
    )
    resume: bool = _option(False, "output", "go on with the run in --run_dir")

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            _check_field(field, getattr(self, field.name))
        if self.initial_epoch >= self.epochs:
            raise ConfigError(
                f"initial_epoch={self.initial_epoch} with epochs={self.epochs} leaves no epoch: "
                "epochs is the index of the last one, plus one."
            )
        if self.num_replicas and self.num_replicas > 1 and self.strategy != "mirrored":
            raise ConfigError(
                f"num_replicas={self.num_replicas} with strategy={self.strategy!r}: "
                "use strategy='mirrored' for several replicas."
            )
        if self.strategy == "mirrored" and self.global_batch_size < (self.num_replicas or 1):
            raise ConfigError(
                f"global_batch_size={self.global_batch_size} is less than "
                f"num_replicas={self.num_replicas}: give each replica one example or more."
            )
        if self.strategy == "mirrored" and self.jit_compile is True and self.num_replicas != 1:
            raise ConfigError(
                "jit_compile=true with strategy='mirrored': XLA cannot compile the exchange "
                "between replicas. Use jit_compile='auto', or one replica."
            )
        if self.resume and self.run_dir is None:
            raise ConfigError("resume needs run_dir: name the folder of the run to go on with.")

    def to_json(self) -> str:
        """Returns the whole config as a JSON object, one key a field."""
        return json.dumps(dataclasses.asdict(self), indent=2)


def read_config_file(path: str | Path) -> dict[str, Any]:
    """Reads the keys of a `.json` or `.toml` file.

    Raises:
      ConfigError: If it cannot be read, or a key is not a field of `TrainConfig`.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
        values = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"config file {str(path)!r} cannot be read as JSON or TOML: {error}"
        ) from error
    if not isinstance(values, dict):
        raise ConfigError(
            f"config file {str(path)!r} must hold an object of fields, not a {values!r}"
        )
    values = {key.replace("-", "_"): value for key, value in values.items()}
    names = _names()
    for key in values:
        if key not in names:
            raise ConfigError(
                f"config file {str(path)!r}: unknown key {key!r}. {_hint(key, names)}"
            )
    return {names[key]: value for key, value in values.items()}


def parse_flags(argv: Sequence[str], *, prog: str, description: str) -> dict[str, Any]:
    """Reads the command line; only the flags that were given are in the result.

    `-` and `_` are the same in a flag. `config` and `print_config` are in the result besides
    fields. On wrong usage it prints one line and exits with 2, as `--help` exits with 0.
    """
    parser = _Parser(prog=prog, description=description, allow_abbrev=False, add_help=True)
    groups: dict[str, argparse._ArgumentGroup] = {}
    for field in dataclasses.fields(TrainConfig):
        name = field.metadata["group"]
        group = groups.setdefault(name, parser.add_argument_group(name))
        _add_flag(group, field)
    more: dict[str, dict[str, Any]] = {
        "--config": {
            "metavar": "FILE",
            "help": "JSON or TOML; flags win over it, it wins over recipes",
        },
        "--print_config": {"action": "store_true", "help": "print the whole config and leave"},
    }
    for name, arguments in more.items():
        groups["output"].add_argument(name, default=argparse.SUPPRESS, **arguments)
    flags, unknown = parser.parse_known_args([_underscores(arg) for arg in argv])
    if unknown:
        legal = [s for action in parser._actions for s in action.option_strings]
        parser.error(f"unknown argument {unknown[0]!r}. {_hint(unknown[0].split('=')[0], legal)}")
    return vars(flags)


def make_config(*layers: Mapping[str, Any]) -> TrainConfig:
    """Merges layers of values over the defaults, the later the stronger: recipe, file, flags.

    Raises:
      ConfigError: If the result is not legal.
    """
    values: dict[str, Any] = {}
    for layer in layers:
        values.update(layer)
    if values.get("fast_dev_run"):
        values |= {
            "epochs": 1, "initial_epoch": 0, "steps_per_epoch": FAST_DEV_RUN_STEPS,
            "validation_steps": FAST_DEV_RUN_STEPS,
        }  # fmt: skip
    return TrainConfig(**values)


def nearest(value: object, legal: Iterable[object]) -> str:
    """Returns ` Did you mean 'x'?`, or nothing if no legal word is near."""
    close = difflib.get_close_matches(str(value), [str(word) for word in legal], n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message}\n")


def _names() -> dict[str, str]:
    """Returns each legal key, aliases included, with the field it sets."""
    names = {}
    for field in dataclasses.fields(TrainConfig):
        names[field.name] = field.name
        if "alias" in field.metadata:
            names[field.metadata["alias"]] = field.name
    return names


def _hint(word: str, legal: Iterable[str]) -> str:
    legal = sorted(legal)
    return f"Legal: {', '.join(legal)}.{nearest(word, legal)}"


def _add_flag(group: argparse._ArgumentGroup, field: dataclasses.Field[Any]) -> None:
    flags = [f"--{field.name}"]
    if "alias" in field.metadata:
        flags.append(f"--{field.metadata['alias']}")
    help_text = f"{field.metadata['help']} (default: {_show(field.default)})".replace("%", "%%")
    options: dict[str, Any] = {"dest": field.name, "default": argparse.SUPPRESS}
    if field.default is True or field.default is False:
        group.add_argument(
            *flags, nargs="?", const=True, metavar="BOOL", type=_flag_type(field),
            help=help_text, **options,
        )  # fmt: skip
        group.add_argument(f"--no_{field.name}", action="store_const", const=False,
                           help=argparse.SUPPRESS, **options)  # fmt: skip
        return
    choices = field.metadata.get("choices")
    metavar = "{" + ",".join(map(_show, choices)) + "}" if choices else field.name.upper()
    group.add_argument(*flags, metavar=metavar, type=_flag_type(field), help=help_text, **options)


def _flag_type(field: dataclasses.Field[Any]) -> typing.Callable[[str], Any]:
    def convert(text: str) -> Any:
        value = _from_text(text, _types(field))
        try:
            _check_field(field, value)
        except ConfigError as error:
            raise argparse.ArgumentTypeError(str(error)) from error
        return value

    return convert


def _from_text(text: str, legal_types: tuple[type, ...]) -> Any:
    if type(None) in legal_types and text.lower() == "none":
        return None
    if bool in legal_types and text.lower() in ("true", "false"):
        return text.lower() == "true"
    for number in (int, float):
        if number in legal_types:
            try:
                return number(text)
            except ValueError:
                continue
    return text


def _types(field: dataclasses.Field[Any]) -> tuple[type, ...]:
    hint = _hints()[field.name]
    return typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)


@functools.cache
def _hints() -> dict[str, Any]:
    return typing.get_type_hints(TrainConfig)


def _check_field(field: dataclasses.Field[Any], value: Any) -> None:
    legal_types = _types(field)
    is_bool_for_number = isinstance(value, bool) and bool not in legal_types
    is_int_for_float = isinstance(value, int) and float in legal_types
    if is_bool_for_number or not (isinstance(value, legal_types) or is_int_for_float):
        wanted = " or ".join("none" if t is type(None) else t.__name__ for t in legal_types)
        raise ConfigError(f"{field.name}={_show(value)} must be of type {wanted}.")
    choices = field.metadata.get("choices")
    if choices and value not in choices:
        legal = ", ".join(map(_show, choices))
        raise ConfigError(
            f"{field.name}={value!r} is not one of: {legal}.{nearest(value, map(_show, choices))}"
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


def _show(value: object) -> str:
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def _underscores(argument: str) -> str:
    if not argument.startswith("--"):
        return argument
    flag, equals, value = argument.partition("=")
    return "--" + flag[2:].replace("-", "_") + equals + value
