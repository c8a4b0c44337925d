"""ReliabilitySettings: what is saved, and when a run ends."""

from __future__ import annotations

import dataclasses

from gradloop.engine.options import option

from ..workers.launch import DEFAULT_MAX_RESTARTS

# Of multi_worker.
DEFAULT_START_SECS = 300.0
DEFAULT_HANG_SECS = 600.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReliabilitySettings:
    """What is saved, and when a run ends."""

    checkpoint_every_steps: int | None = option(
        None, "reliability", "steps between checkpoints; none: not within epochs", minimum=1,
        modes=("train",),
    )  # fmt: skip
    checkpoint_every_epochs: int | None = option(
        1, "reliability", "epochs between checkpoints; none: not at their ends", minimum=1,
        modes=("train",),
    )  # fmt: skip
    checkpoint_every_secs: float | None = option(
        None, "reliability", "seconds between checkpoints; none: no such period", above=0,
        modes=("train",),
    )  # fmt: skip
    checkpoint_async: bool = option(
        False, "reliability", "write checkpoints on a thread of their own while training goes on",
        modes=("train",),
    )  # fmt: skip
    keep: int = option(
        3, "reliability", "how many of the newest checkpoints are kept", minimum=1,
        modes=("train",),
    )  # fmt: skip
    keep_best: str | None = option(
        None, "reliability", "metric whose best epoch is kept as best.npz, such as val_accuracy",
        modes=("train",),
    )  # fmt: skip
    on_save_error: str = option(
        "continue", "reliability", "when a file of the run cannot be written: train on, or stop",
        choices=("continue", "stop"),
    )  # fmt: skip
    max_time: str | None = option(
        None, "reliability",
        "time from the start after which the run is saved and ends: 90s, 30m, 2h, 1h30m",
        modes=("train",),
    )  # fmt: skip
    grace_secs: float | None = option(
        None, "reliability",
        "seconds from a signal to the kill: what cannot be saved in them is not begun", above=0,
        modes=("train",),
    )  # fmt: skip
    max_restarts: int | None = option(
        None, "reliability", "how often all workers of num_workers start again when one has died",
        minimum=0, modes=("train",), default_text=str(DEFAULT_MAX_RESTARTS),
    )  # fmt: skip
    start_secs: float | None = option(
        None, "reliability", "seconds for all workers of multi_worker to come together", above=0,
        default_text=f"{DEFAULT_START_SECS:g}",
    )  # fmt: skip
    hang_secs: float | None = option(
        None, "reliability", "end the run if an execution takes longer than that",
        above=0, modes=("train", "evaluate"),
        default_text=f"none: wait; {DEFAULT_HANG_SECS:g} with multi_worker",
    )  # fmt: skip
    state_digest: int | None = option(
        None, "reliability", "steps between digests of the state in digests.csv; none: no digests",
        minimum=1, modes=("train",),
    )  # fmt: skip
    step: int | str | None = option(
        None, "reliability", "step that --mode replay runs with checks, counted from 1", minimum=1,
        modes=("replay",),
    )  # fmt: skip
    format: str = option(
        "saved_model", "reliability", "what --mode export writes",
        choices=("saved_model", "keras", "weights"), modes=("export",),
    )  # fmt: skip
