"""JobConfig: the settings of a training and those of the command line."""

from __future__ import annotations

import dataclasses
from typing import Any

from gradloop.engine.config import TrainConfig
from gradloop.engine.options import ConfigError, option
from gradloop.engine.tuning.choice import TRIED

from .settings.data import DataSettings
from .settings.output import OutputSettings, check_output
from .settings.reliability import (
    DEFAULT_HANG_SECS,
    DEFAULT_START_SECS,
    ReliabilitySettings,
)
from .settings.stopping import StoppingSettings, check_stopping
from .settings.sweeping import SweepSettings, check_sweep, names_metric
from .settings.work import RECIPE, UPDATES, WorkSettings, check_work
from .texts import parse_duration, parse_profile

JOB_MODES = (
    "train", "evaluate", "predict", "compare", "tune", "diagnose_input", "replay", "export",
    "check",
)  # fmt: skip
# They read folders of runs: no data, no TensorFlow, no run of their own.
FOLDER_MODES = ("report", "compare_runs", "runs")
MODES = (*JOB_MODES, "sweep", *FOLDER_MODES)
MULTI_WORKER_MODES = ("train", "evaluate", "predict", "check")
MODES_OF_A_CHECKPOINT = ("evaluate", "predict", "export")
# The modes that read a field of the engine, where some do not: those of a checkpoint train nothing.
MODES_OF: dict[str, tuple[str, ...]] = dict.fromkeys(
    (
        "epochs", "initial_epoch", "steps_per_epoch", "gradient_accumulation_steps", "on_nonfinite",
        "max_skipped_steps", "validation_freq", "validate_every_steps", "clip", "sync_statistics",
        "compile_update", "narrow_products",
    ),
    UPDATES,
)  # fmt: skip
MODES_OF |= dict.fromkeys(("validation_steps", "fast_dev_run"), (*UPDATES, "evaluate"))
FAST_DEV_RUN_STEPS = 8
MAX_COMPARED = 8  # runs, which have a colour each


@dataclasses.dataclass(frozen=True, kw_only=True)
class JobConfig(
    WorkSettings,
    DataSettings,
    OutputSettings,
    StoppingSettings,
    SweepSettings,
    ReliabilitySettings,
    TrainConfig,
):
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
            "report": "write report.html of the run in --run_dir, which may be going on",
        },
    )  # fmt: skip
    epochs: int = option(1, "training", "number of epochs", minimum=1, default_text=RECIPE)
    global_batch_size: int = option(
        64, "training", "examples per step, over all replicas together", minimum=1,
        alias="batch_size", default_text=RECIPE, on_resume="refused",
    )  # fmt: skip
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
    checkpoint: str | None = option(
        None,
        "output",
        "checkpoint to start from, with its optimizer but not its learning rate, or to evaluate, "
        "predict or export with: a file, or a folder for its newest",
    )
    resume: bool | str = option(
        False, "output",
        "continue the run in --run_dir; auto: start it where nothing was saved yet, continue it, "
        "or do nothing if all is done",
        choices=("auto",),
    )  # fmt: skip
    num_workers: int | None = option(
        None, "execution", "start this many workers of multi_worker on this machine; none: "
        "TF_CONFIG says where they are", minimum=1, on_resume="applied",
    )  # fmt: skip

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
        check_work(self)
        _check_profile(self)
        _check_workers(self)
        _check_folders(self)
        check_output(self)
        names = self.keep_best is not None or self.metric is not None or names_metric(self)
        check_stopping(self, names_metric=names)
        check_sweep(self)
        if self.max_time is not None:
            parse_duration(self.max_time)


def _check_start(config: JobConfig) -> None:
    has_start = bool(config.resume) or config.checkpoint is not None
    if config.resume and config.run_dir is None:
        raise ConfigError("resume needs run_dir: name the folder of the run to continue.")
    # "auto" starts from it where nothing was saved yet; so do the runs of a sweep.
    if config.resume is True and config.checkpoint is not None and config.mode != "sweep":
        raise ConfigError(
            f"resume continues from the newest checkpoint in run_dir, and checkpoint="
            f"{config.checkpoint!r} names another start: choose one, or use resume='auto', which "
            "starts from that where nothing was saved yet."
        )
    if config.resume == "auto" and config.mode not in ("train", "check", "sweep"):
        raise ConfigError(
            f"resume='auto' starts or continues a training, and mode={config.mode!r} is none: use "
            "resume=true, or leave it out."
        )
    if config.mode in ("compare", "tune", "diagnose_input") and has_start:
        raise ConfigError(
            f"mode={config.mode!r} starts from new weights: leave resume and checkpoint out."
        )
    if config.mode in MODES_OF_A_CHECKPOINT and not has_start:
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


def _check_folders(config: JobConfig) -> None:
    if config.mode == "report" and config.run_dir is None:
        raise ConfigError("mode='report' needs run_dir: name the folder of a run.")
    num_runs = len(config.runs or ())
    if config.mode == "compare_runs" and not 2 <= num_runs <= MAX_COMPARED:
        raise ConfigError(
            f"mode='compare_runs' takes the folders of 2 to {MAX_COMPARED} runs, not {num_runs}: "
            "python train.py --mode compare_runs RUN_DIR RUN_DIR ..."
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


def field_names() -> dict[str, str]:
    """Returns each legal key, aliases included, with the field it sets."""
    names = {}
    for field in dataclasses.fields(JobConfig):
        names[field.name] = field.name
        if "alias" in field.metadata:
            names[field.metadata["alias"]] = field.name
    return names


_ALWAYS_IN_KEY = (
    "model", "dataset", "global_batch_size", "strategy", "num_replicas", "deterministic", "rescale",
)  # fmt: skip
# What `--tune` finds, or neither its speeds nor its bits depend on.
_NOT_IN_KEY = {
    *TRIED, "seed", "initial_epoch", "steps_per_epoch", "init_from", "exclude",
}  # fmt: skip


def choice_key(config: JobConfig) -> dict[str, Any]:
    """Returns what the choice of `--tune` depends on besides the machine.

    A run that differs in what a resumed one must have alike has other numbers, and so has one with
    `on_nonfinite`, whose steps are checked.
    """
    key = {name: getattr(config, name) for name in _ALWAYS_IN_KEY}
    for field in dataclasses.fields(config):
        decides = field.metadata["on_resume"] != "applied" or field.name == "on_nonfinite"
        value = getattr(config, field.name)
        if decides and field.name not in _NOT_IN_KEY and value != field.default:
            key[field.name] = value
    return key
