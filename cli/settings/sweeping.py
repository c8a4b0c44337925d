"""SweepSettings: how a sweep chooses its runs, and what the best of several runs is."""

from __future__ import annotations

import dataclasses
from typing import Any

from gradloop.engine.options import ConfigError, option, show

METRIC_SETTINGS = ("keep_best", "early_stopping")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SweepSettings:
    """How a sweep chooses its runs, and what the best of several runs is."""

    search: str = option(
        "grid", "sweep", "which values of --set a sweep tries together; grid: each with each; "
        "random: num_runs draws, also from ranges such as log(1e-4,1e-1)",
        choices=("grid", "random"), modes=("sweep",),
    )  # fmt: skip
    num_runs: int | None = option(
        None, "sweep", "runs of search=random", minimum=1, modes=("sweep",),
        default_text="all of the grid",
    )  # fmt: skip
    metric: str | None = option(
        None, "sweep", "metric by whose best epoch runs are compared, such as val_loss",
        default_text="keep_best, early_stopping, val_accuracy, val_loss or loss",
        modes=("sweep", "runs"),
    )  # fmt: skip
    json: bool = option(False, "sweep", "list runs as JSON", modes=("runs",))


def names_metric(config: Any) -> bool:
    """Returns whether `--set` names a metric for runs of a sweep, which their `direction` is of.

    Args:
      config: A JobConfig.
    """
    names = {name.replace("-", "_") for name in config.set or ()}
    return config.mode == "sweep" and not names.isdisjoint(METRIC_SETTINGS)


def check_sweep(config: Any) -> None:
    """Raises ConfigError if settings of a sweep do not go together.

    Args:
      config: A JobConfig.
    """
    if config.mode != "sweep":
        return
    if not config.set:
        raise ConfigError(
            "mode='sweep' needs values to try: --set learning_rate=1e-4,1e-3 and so on."
        )
    if (config.num_runs is None) == (config.search == "random"):
        fix = "say how many" if config.num_runs is None else "leave it out, or use search='random'"
        raise ConfigError(f"num_runs={show(config.num_runs)} with search={config.search!r}: {fix}.")
