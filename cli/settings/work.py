"""WorkSettings: what is trained, and with what."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from gradloop.engine.options import ConfigError, option
from gradloop.usage import did_you_mean

RECIPE = "the model's recipe"
# The classes of `keras.optimizers` in lower case, but for those that hold other optimizers, and for
# ScheduleFreeAdamW, which trains other weights than it evaluates: the loop does not know of that.
OPTIMIZERS = (
    "adadelta", "adafactor", "adagrad", "adam", "adamax", "adamw", "ftrl", "lamb", "lion", "muon",
    "nadam", "rmsprop", "sgd",
)  # fmt: skip
SCHEDULES = (
    "constant", "cosine", "cosine_restarts", "exponential", "inverse_time", "linear", "polynomial",
    "step",
)  # fmt: skip
# What `set` names arguments of, before the dot.
SET_PREFIXES = ("model", "dataset", "step", "hook", "loss", "optimizer", "schedule")
CLIPS = ("clipnorm", "clipvalue", "global_clipnorm")
UPDATES = ("train", "compare", "tune", "diagnose_input", "check", "sweep")
_OWN = "or pkg.module:name of your own"


@dataclasses.dataclass(frozen=True, kw_only=True)
class WorkSettings:
    """What is trained, and with what."""

    model: str = option(
        "cnn", "what", "name of the model, or pkg.module:build, which returns a Keras model",
        on_resume="refused",
    )  # fmt: skip
    set: dict[str, Any] | None = option(  # noqa: RUF009 - none is shared
        None, "what",
        "argument of what has the name before the dot, such as model.units=256, of: "
        + ", ".join(SET_PREFIXES), default_text="their defaults", on_resume="refused",
    )  # fmt: skip
    train_step: str | None = option(
        None, "what", "pkg.module:train_step, a step of your own; --step takes it too",
        default_text="the engine's", on_resume="refused",
        modes=("train", "tune", "diagnose_input", "replay", "check", "sweep"),
    )  # fmt: skip
    hook: list[str] | None = option(  # noqa: RUF009 - none is shared
        None, "what", "pkg.module:name of a hook or callback, or of a function that returns some",
        modes=("train", "sweep"),
    )  # fmt: skip
    loss: str | None = option(
        None, "training", f"loss by Keras's name, {_OWN}", default_text=RECIPE, on_resume="warned"
    )
    metrics: list[str] | None = option(  # noqa: RUF009 - none is shared
        None, "training", f"metrics by Keras's names, top_5_accuracy, {_OWN}",
        default_text=RECIPE, on_resume="warned",
    )  # fmt: skip
    optimizer: str | None = option(
        None, "training", f"{', '.join(OPTIMIZERS)}, {_OWN}", default_text=RECIPE,
        on_resume="refused", modes=UPDATES,
    )  # fmt: skip
    learning_rate: float | None = option(
        None, "training", "learning rate of the optimizer", above=0, default_text=RECIPE,
        modes=UPDATES,
    )  # fmt: skip
    weight_decay: float | None = option(
        None, "training", "weight decay of the optimizer", minimum=0, default_text=RECIPE,
        on_resume="warned", modes=UPDATES,
    )  # fmt: skip
    momentum: float | None = option(
        None, "training", "momentum of the optimizer", minimum=0, maximum=1, default_text=RECIPE,
        on_resume="refused", modes=UPDATES,
    )  # fmt: skip
    schedule: str | None = option(
        None, "training",
        f"of the learning rate, over all updates of the run: {', '.join(SCHEDULES)}, {_OWN}",
        default_text=RECIPE, on_resume="refused", modes=UPDATES,
    )  # fmt: skip
    warmup_steps: int | None = option(
        None, "training", "first updates, in which the learning rate rises from 0; none: no such",
        minimum=1, on_resume="refused", modes=UPDATES,
    )  # fmt: skip
    clipnorm: float | None = option(
        None, "training", "norm to which the gradient of each variable is clipped", above=0,
        on_resume="warned", modes=UPDATES,
    )  # fmt: skip
    clipvalue: float | None = option(
        None, "training", "size to which each number of a gradient is clipped", above=0,
        on_resume="warned", modes=UPDATES,
    )  # fmt: skip
    global_clipnorm: float | None = option(
        None, "training", "norm to which all gradients together are clipped", above=0,
        on_resume="warned", modes=UPDATES,
    )  # fmt: skip
    ema: float | None = option(
        None, "training",
        "momentum of a moving average of the weights, such as 0.999, which replaces them at the "
        "end; none: no average",
        above=0, below=1, on_resume="refused", modes=UPDATES,
    )  # fmt: skip
    init_from: str | None = option(
        None, "what",
        "file to take first weights from, weights alone: .npz of a run, or its folder, .keras, "
        ".weights.h5",
        on_resume="refused", modes=("train", "check", "sweep"),
    )  # fmt: skip
    exclude: list[str] | None = option(  # noqa: RUF009 - none is shared
        None, "what", "pattern of variables that init_from leaves out, such as head/*",
        on_resume="refused", modes=("train", "check", "sweep"),
    )  # fmt: skip


def check_work(config: Any) -> None:
    """Raises ConfigError if settings of the work do not go together; looks at no code.

    Args:
      config: A JobConfig.
    """
    _check_name(config.optimizer, "optimizer", OPTIMIZERS)
    _check_name(config.schedule, "schedule", SCHEDULES)
    _check_set(config)
    clips = [name for name in CLIPS if getattr(config, name) is not None]
    if len(clips) > 1:
        raise ConfigError(f"{' and '.join(clips)} clip the same gradients: choose one of them.")
    if config.exclude is not None and config.init_from is None:
        raise ConfigError(
            f"exclude={','.join(config.exclude)} without init_from, whose variables it leaves out: "
            "pass --init_from FILE, or leave it out."
        )
    if config.init_from is not None and config.checkpoint is not None:
        raise ConfigError(
            f"init_from={config.init_from!r} beside checkpoint={config.checkpoint!r}: the one "
            "takes weights alone, the other the optimizer too. Choose one."
        )
    _check_schedule(config)
    if config.mode == "compare" and config.train_step is not None:
        raise ConfigError(
            f"train_step={config.train_step!r} with mode='compare': fit knows no such step. Leave "
            "it out."
        )
    if isinstance(config.step, str):
        raise ConfigError(f"step={config.step!r} must be a number: train_step names a step.")


def arguments_of(config: Any, prefix: str) -> dict[str, Any]:
    """Returns the arguments that `set` has for `prefix`, by their names."""
    found = (config.set or {}).items()
    return {k.partition(".")[2]: v for k, v in found if k.partition(".")[0] == prefix}


def _check_name(name: str | None, field: str, legal: Iterable[str]) -> None:
    if name is None or ":" in name or name.lower() in legal:
        return
    raise ConfigError(
        f"{field}={name!r} is not one of: {', '.join(legal)}; nor pkg.module:name of your own."
        f"{did_you_mean(name, legal)}"
    )


def _check_schedule(config: Any) -> None:
    """Raises ConfigError if a schedule would not begin at its start: updates are counted on."""
    if config.checkpoint is None or config.mode not in ("train", "check", "sweep"):
        return
    for name in ("schedule", "warmup_steps"):
        value = getattr(config, name)
        if value is not None and str(value).lower() != "constant":
            raise ConfigError(
                f"{name}={value} beside checkpoint={config.checkpoint!r}, whose optimizer goes on "
                "counting its updates, so that it would not begin at its start: use init_from, for "
                "the weights alone, or leave it out."
            )


def _check_set(config: Any) -> None:
    if config.mode == "sweep":  # names settings, too
        return
    for name, value in (config.set or {}).items():
        prefix, _, argument = name.partition(".")
        if prefix not in SET_PREFIXES or not argument:
            raise ConfigError(
                f"set={name}={value} must be PREFIX.ARGUMENT=VALUE, with a prefix of: "
                f"{', '.join(SET_PREFIXES)}.{did_you_mean(prefix, SET_PREFIXES)}"
            )
        needed = {"step": "train_step", "hook": "hook", "schedule": "schedule"}.get(prefix)
        if needed is not None and getattr(config, needed) is None:
            raise ConfigError(f"set={name}={value} without {needed}: it is an argument of it.")
        if prefix == "dataset" and ":" not in config.dataset:
            raise ConfigError(
                f"set={name}={value} with dataset={config.dataset!r}: it is an argument of a "
                "function of your own, --dataset pkg.module:load."
            )
