"""OutputSettings: what a run shows, and the files that it writes."""

from __future__ import annotations

import dataclasses
import re

from gradloop.engine.options import ConfigError, option
from gradloop.engine.storage.extras import MissingExtra, require_extra

LOGGERS = ("wandb", "mlflow")


@dataclasses.dataclass(frozen=True, kw_only=True)
class OutputSettings:
    """What a run shows, and the files that it writes."""

    run_dir: str | None = option(
        None, "output", "folder of this run", default_text="a new one in runs/"
    )
    runs: list[str] | None = option(  # noqa: RUF009 - no list is shared
        None, "output", "folders of runs to compare; same as --mode compare_runs A B",
        modes=("compare_runs",),
    )  # fmt: skip
    run_name: str | None = option(
        None, "output", "name of this run: of its new folder in runs/, and in titles",
        default_text="the time",
    )  # fmt: skip
    tags: list[str] | None = option(  # noqa: RUF009 - no list is shared
        None, "output", "words that --mode runs shows and filters by; a, b or several flags",
        modes=("train", "runs"),
    )  # fmt: skip
    profile: str | None = option(
        None, "output", "A,B: profile steps A to B, both included, counted from 1"
    )
    log_every_steps: int | None = option(
        None, "output", "steps between records of metrics.csv; none: about ten a second",
        minimum=1, modes=("train",),
    )  # fmt: skip
    tensorboard: bool | None = option(
        None, "output", "write files for TensorBoard; auto: if it is installed", none="auto",
        modes=("train",),
    )  # fmt: skip
    plots: bool | None = option(
        None, "output",
        "draw pictures, and end a training with predictions of the test set for them; auto: "
        "pictures if matplotlib is installed, predictions of at most 20,000 examples", none="auto",
        modes=("train", "predict"),
    )  # fmt: skip
    logger: list[str] | None = option(  # noqa: RUF009 - likewise
        None, "output", "trackers that get the numbers, too; wandb, mlflow or both",
        choices=LOGGERS, modes=("train",),
    )  # fmt: skip
    quiet: bool = option(
        False, "output", "show warnings, errors and the result alone; train.log has all lines"
    )


_EXTRAS = {"tensorboard": ("tensorboard", "tensorboard"), "plots": ("matplotlib", "plots")}


def check_output(config: OutputSettings) -> None:
    """Raises ConfigError if a name is none of a folder, or something needs a missing library."""
    name = config.run_name
    if name is not None and not re.fullmatch(r"[^/\\\s.][^/\\\x00-\x1f]*", name):
        raise ConfigError(
            f"run_name={name!r} must be the name of a folder: not empty, without '/', and not "
            "beginning with '.' or a space."
        )
    for field, (module, extra) in _EXTRAS.items():
        if getattr(config, field) is True:
            _require(f"{field}=true", module, extra)
    for logger in config.logger or ():
        _require(f"logger={logger!r}", logger, logger)


def _require(asked: str, module: str, extra: str) -> None:
    try:
        require_extra(module, extra)
    except MissingExtra as error:
        raise ConfigError(f"{asked}: {error}") from error
