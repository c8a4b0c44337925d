"""JobConfig: the settings of a training and those of the command line."""

from __future__ import annotations

import dataclasses
from typing import Any

from gradloop.engine.config import TrainConfig
from gradloop.engine.options import ConfigError, option

from .texts import parse_duration, parse_profile
from .workers.launch import DEFAULT_MAX_RESTARTS

MODES = (
    "train", "evaluate", "predict", "compare", "tune", "diagnose_input", "replay", "export",
    "check",
)  # fmt: skip
MULTI_WORKER_MODES = ("train", "evaluate", "predict", "check")
FAST_DEV_RUN_STEPS = 8
# Of multi_worker.
DEFAULT_START_SECS = 300.0
DEFAULT_HANG_SECS = 600.0
_RECIPE = "the model's recipe"


@dataclasses.dataclass(frozen=True, kw_only=True)
class JobConfig(TrainConfig):
    """All settings of the command line: each field is a flag, and a key of config files.

    The engine reads the fields of `TrainConfig`, some of which have another default here; the
    command line reads the rest.

    Raises:
      ConfigError: If a value has the wrong type or is not legal.
    """

    mode: str = option(
        "train", "what", "what to do", choices=MODES,
        shortcuts={
            "tune": "measure what is fastest on this machine, for later runs",
            "diagnose_input": "measure whether the input limits the speed of training",
            "check": "print what does not go together in these settings, and what to do; no run",
        },
    )  # fmt: skip
    model: str = option("cnn", "what", "name of the model", on_resume="refused")
    dataset: str = option("mnist", "what", "name of the dataset", on_resume="refused")

    epochs: int = option(1, "training", "number of epochs", minimum=1, default_text=_RECIPE)
    global_batch_size: int = option(
        64, "training", "examples per step, over all replicas together", minimum=1,
        alias="batch_size", default_text=_RECIPE, on_resume="refused",
    )  # fmt: skip
    learning_rate: float | None = option(
        None, "training", "learning rate of the optimizer", above=0, default_text=_RECIPE
    )
    seed: int | None = option(
        0, "training", "global seed of weights, dropout and order; none: unseeded",
        minimum=0, maximum=2**32 - 1, on_resume="refused",
    )  # fmt: skip
    fast_dev_run: bool = option(
        False,
        "training",
        f"run one epoch of {FAST_DEV_RUN_STEPS} steps to check that everything works",
    )

    strategy: str = option(
        "default", "execution", "tf.distribute strategy",
        choices=("default", "one_device", "mirrored", "multi_worker"),
    )  # fmt: skip
    precision: str = option(
        "float32", "execution", "dtype policy of Keras",
        choices=("float32", "mixed_bfloat16", "mixed_float16"),
    )  # fmt: skip

    prefetch: int = option(4, "data", "batches that a streamed input prepares ahead", minimum=1)
    rescale: bool = option(
        True, "data", "scale pixels to [0, 1]; --no_rescale: keep 0 to 255", on_resume="refused"
    )
    data_dir: str | None = option(
        None, "data", "folder of the dataset's files", default_text="the user's cache"
    )

    run_dir: str | None = option(
        None, "output", "folder of this run", default_text="a new one in runs/"
    )
    checkpoint: str | None = option(
        None,
        "output",
        "checkpoint to start from, evaluate or predict with: a file, or a folder for its newest",
    )
    resume: bool | str = option(
        False, "output",
        "continue the run in --run_dir; auto: start it where nothing was saved yet, continue it, "
        "or do nothing if all is done",
        choices=("auto",),
    )  # fmt: skip
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
    num_workers: int | None = option(
        None, "execution", "start this many workers of multi_worker on this machine; none: "
        "TF_CONFIG says where they are", minimum=1, on_resume="applied",
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
    step: int | None = option(
        None, "reliability", "step that --mode replay runs with checks, counted from 1", minimum=1,
        modes=("replay",),
    )  # fmt: skip
    format: str = option(
        "saved_model", "reliability", "what --mode export writes",
        choices=("saved_model", "keras", "weights"), modes=("export",),
    )  # fmt: skip
    profile: str | None = option(
        None, "output", "A,B: profile steps A to B, both included, counted from 1"
    )

    @property
    def start_limit(self) -> float:
        """Seconds for all workers to come together."""
        return DEFAULT_START_SECS if self.start_secs is None else self.start_secs

    @property
    def hang_limit(self) -> float | None:
        """Seconds for an execution; None: no limit."""
        if self.hang_secs is None and self.strategy == "multi_worker":
            return DEFAULT_HANG_SECS
        return self.hang_secs

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_start(self)
        _check_profile(self)
        _check_workers(self)
        if self.max_time is not None:
            parse_duration(self.max_time)


def _check_start(config: JobConfig) -> None:
    has_start = bool(config.resume) or config.checkpoint is not None
    if config.resume and config.run_dir is None:
        raise ConfigError("resume needs run_dir: name the folder of the run to continue.")
    if config.resume and config.checkpoint is not None:
        raise ConfigError(
            f"resume continues from the newest checkpoint in run_dir, and checkpoint="
            f"{config.checkpoint!r} names another start: choose one."
        )
    if config.resume == "auto" and config.mode not in ("train", "check"):
        raise ConfigError(
            f"resume='auto' starts or continues a training, and mode={config.mode!r} is none: use "
            "resume=true, or leave it out."
        )
    if config.mode in ("compare", "tune", "diagnose_input") and has_start:
        raise ConfigError(
            f"mode={config.mode!r} starts from new weights: leave resume and checkpoint out."
        )
    if config.mode in ("evaluate", "predict", "export") and not has_start:
        raise ConfigError(
            f"mode={config.mode!r} needs a checkpoint: pass --checkpoint FILE, or --run_dir DIR "
            "--resume for the weights of a run."
        )
    if config.mode == "replay" and (config.step is None or not config.resume):
        raise ConfigError(
            "mode='replay' runs one step of a run again: pass --step N, and --run_dir DIR for the "
            "folder of the run."
        )


def _check_workers(config: JobConfig) -> None:
    if config.strategy == "multi_worker":
        if config.mode not in MULTI_WORKER_MODES:
            raise ConfigError(
                f"mode={config.mode!r} with strategy='multi_worker': it is for one process. Use "
                "another strategy, such as strategy='default'."
            )
    elif config.num_workers is not None or config.start_secs is not None:
        name = "num_workers" if config.num_workers is not None else "start_secs"
        raise ConfigError(
            f"{name}={getattr(config, name):g} with strategy={config.strategy!r}: it is for "
            "several processes. Use strategy='multi_worker', or leave it out."
        )
    if config.max_restarts is not None and config.num_workers is None:
        raise ConfigError(
            f"max_restarts={config.max_restarts} without num_workers: it says how often the "
            "workers that this command starts are started again. Leave it out."
        )


def _check_profile(config: JobConfig) -> None:
    if config.profile is None:
        return
    parse_profile(config.profile)
    if config.mode != "train":
        raise ConfigError(
            f"profile={config.profile} with mode={config.mode!r}: only training steps are "
            "profiled. Use mode='train', or leave profile out."
        )


def choice_key(config: JobConfig) -> dict[str, Any]:
    """Returns what the choice of `--tune` depends on besides the machine."""
    names = (
        "model", "dataset", "global_batch_size", "strategy", "num_replicas", "deterministic",
        "rescale",
    )  # fmt: skip
    return {name: getattr(config, name) for name in names}
