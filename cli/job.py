"""Job: the parts that a config names, and the modes, each of which does one thing with them."""

from __future__ import annotations

import dataclasses
import enum
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tensorflow as tf

import gradloop
from gradloop import engine
from gradloop.data import DatasetArrays, pipeline
from gradloop.engine.tuning import input_diagnosis, search
from gradloop.files import json_text
from gradloop.models.recipe import Recipe
from gradloop.usage import EXIT_USAGE

from . import report
from .config import JobConfig, choice_key, parse_profile
from .log import Log
from .run_folder import RunFolder

# Time limit of a trial in a process of its own: the number of threads is fixed within a process.
TRIAL_PROCESS_SECS = 60.0


class Status(enum.Enum):
    """How a job ended: the word in summary.json, and the exit code."""

    COMPLETED = "completed", 0
    STOPPED = "stopped", 0  # by a hook, before the last epoch
    DIVERGED = "diverged", 1
    FAILED = "failed", 1
    REFUSED = "refused", EXIT_USAGE
    INTERRUPTED = "interrupted", 130

    @property
    def word(self) -> str:
        """What summary.json says."""
        return self.value[0]

    @property
    def exit_code(self) -> int:
        """What the process returns."""
        return self.value[1]


_STATUS_OF_STOP = {
    None: Status.COMPLETED,
    engine.StopKind.REQUESTED: Status.STOPPED,
    engine.StopKind.DIVERGED: Status.DIVERGED,
    engine.StopKind.INTERRUPTED: Status.INTERRUPTED,
}


@dataclasses.dataclass
class Job:
    """The parts that the config names, the state made of them, and what the run finds.

    Attributes:
      config: All settings.
      recipe: The model's.
      arrays: The dataset.
      strategy: Where to train.
      choice: File of the `--tune` choice that changed the config; None if there is none.
      state: Created by `start`.
      restored: Checkpoint that the state comes from; None for new weights.
      status: How the job ended.
      facts: What summary.json says beyond the state.
    """

    config: JobConfig
    recipe: Recipe
    arrays: DatasetArrays
    strategy: tf.distribute.Strategy
    choice: Path | None = None
    state: engine.TrainState = dataclasses.field(init=False)
    restored: Path | None = None
    status: Status = Status.COMPLETED
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)

    def start(self) -> None:
        """Creates the state, and restores it if the config says so.

        Raises:
          CheckpointError: If the state cannot be restored.
          ConfigError: If nothing is left to train, or the steps to profile do not exist.
        """
        config = self.config
        with self.strategy.scope():
            state = self.state = self.make_state()
        state.build(self.make_dataset().element_spec)
        if config.resume:
            checkpoints = RunFolder(Path(config.run_dir or "")).checkpoints
            self.restored = engine.restore_checkpoint(checkpoints, state)
        elif config.checkpoint is not None:
            self.restored = engine.restore_checkpoint(config.checkpoint, state)
            state.progress = engine.Progress()
        num_done = state.progress.num_epochs_completed
        if config.mode == "train" and num_done >= config.epochs:
            raise engine.ConfigError(
                f"epochs={config.epochs}, but {num_done} are done: to continue, ask for more."
            )
        if config.profile is not None:
            parse_profile(config.profile, self.num_steps_left())

    def end(self, status: Status, reason: str = "") -> None:
        """Records how the job ended, for the exit code and summary.json."""
        self.status = status
        self.facts["status"] = status.word
        self.facts["exit_reason"] = f"{status.word}: {reason}" if reason else status.word

    def make_state(self) -> engine.TrainState:
        """Returns the model with its recipe. Context: inside the scope of the strategy."""
        shape = self.arrays.x_train.shape[1:]
        return engine.TrainState(
            self.recipe.build((*shape, 1) if len(shape) == 2 else shape, self.arrays.num_classes),
            self.recipe.make_optimizer(self.config.learning_rate),
            loss=self.recipe.make_loss(),
            metrics=self.recipe.make_metrics(),
        )

    def make_dataset(
        self, *, training: bool = False, prefetch: int | None = None
    ) -> pipeline.EpochDataset:
        """Returns the training set, in a new order each epoch, or the test set in its own order."""
        x, y = self.arrays[:2] if training else self.arrays[2:4]
        return pipeline.make_dataset(
            x,
            y,
            global_batch_size=self.config.global_batch_size,
            num_classes=self.arrays.num_classes,
            rescale=self.config.rescale,
            shuffle=training,
            seed=self.config.seed or 0,
            prefetch=prefetch or self.config.prefetch,
        )

    def num_steps_left(self) -> int:
        """Returns how many training steps this run has."""
        config, progress = self.config, self.state.progress
        num_batches = self.make_dataset(training=True).num_batches
        per_epoch = min(config.steps_per_epoch or num_batches, num_batches)
        first = max(config.initial_epoch, progress.num_epochs_completed)
        num_done = progress.step if progress.epoch == first else 0
        return (config.epochs - first) * per_epoch - num_done

    def fit_config(self) -> JobConfig:
        """Returns the config for the loop: limits above the number of batches mean all of them."""
        limits: dict[str, Any] = {
            "steps_per_epoch": self.make_dataset(training=True).num_batches,
            "validation_steps": self.make_dataset().num_batches,
        }
        changes = {
            k: limit for k, limit in limits.items() if (getattr(self.config, k) or 0) > limit
        }
        return dataclasses.replace(self.config, **changes)


def train(job: Job, folder: RunFolder, log: Log) -> None:
    """Trains, and evaluates the final weights on the test set."""
    dataset, test_ds, config = job.make_dataset(training=True), job.make_dataset(), job.fit_config()
    history = engine.fit(
        job.state,
        dataset,
        config,
        validation_data=test_ds,
        hooks=report.make_hooks(folder, log, config.profile),
        resume=config.resume,
    )
    num_steps = job.state.progress.num_steps_completed
    job.facts |= report.describe_training(history, num_steps, dataset)
    job.end(_STATUS_OF_STOP[history.stop_kind])
    if history.stop_reason is not None:
        job.facts["exit_reason"] = history.stop_reason
    if job.status.exit_code == 0:
        logs = engine.evaluate(job.state, test_ds, config)
        job.facts |= {"test_accuracy": logs["accuracy"], "test_logs": logs}


def evaluate(job: Job, folder: RunFolder, log: Log) -> None:
    """Evaluates a checkpoint on the test set."""
    logs = engine.evaluate(job.state, job.make_dataset(), job.fit_config())
    job.facts |= {"test_accuracy": logs["accuracy"], "test_logs": logs}
    job.end(Status.COMPLETED)


def predict(job: Job, folder: RunFolder, log: Log) -> None:
    """Writes a checkpoint's probabilities for the test set, as tables and pictures."""
    probabilities = engine.predict(job.state, job.make_dataset(), job.config)
    images, labels = job.arrays[2:4]
    accuracy = report.write_predictions(folder, log, images, labels, probabilities)
    job.facts["test_accuracy"] = accuracy
    job.end(Status.COMPLETED)


def compare(job: Job, folder: RunFolder, log: Log) -> None:
    """Trains with the engine and with fit, and shows whether all bits are equal."""

    def keep_state(info: engine.HookInfo) -> None:
        job.state = info.state

    comparison = engine.compare_with_fit(
        job.make_state,
        lambda: job.make_dataset(training=True),
        job.fit_config(),
        make_validation_data=job.make_dataset,
        strategy=job.strategy,
        hooks=(engine.ProgressBar(line=log.line), engine.LambdaHook(on_train_begin=keep_state)),
    )
    log.line(comparison.to_table())
    job.facts |= report.describe_comparison(comparison)
    if comparison.is_equal and comparison.has_moved:
        job.end(Status.COMPLETED)
    else:
        job.end(Status.FAILED, "equality with fit was not shown")


def tune(job: Job, folder: RunFolder, log: Log) -> None:
    """Measures what is fastest on this machine, and keeps the choice for later runs."""
    tuning = search.tune(
        job.make_state,
        lambda prefetch=JobConfig.prefetch: job.make_dataset(training=True, prefetch=prefetch),
        job.config,
        secs_in_process=lambda changes, num_steps: secs_in_process(job.config, changes, num_steps),
    )
    path = tuning.save(choice_key(job.config))
    log.line(tuning.to_table())
    log.line(f"kept for later runs in {path}")
    job.facts["tuning"] = dataclasses.asdict(tuning)
    job.end(Status.COMPLETED)


def secs_in_process(config: JobConfig, changes: dict[str, Any], num_steps: int) -> float | None:
    """Trains in a new process; returns the median seconds per step, or None if that fails."""
    with tempfile.TemporaryDirectory() as directory:
        run_dir, file = Path(directory, "run"), Path(directory, "config.json")
        values = {"prefetch": JobConfig.prefetch} | changes
        trial = dataclasses.replace(
            config, mode="train", epochs=2, initial_epoch=0, steps_per_epoch=num_steps,
            validation_steps=1, run_dir=str(run_dir), **values,
        )  # fmt: skip
        file.write_text(json_text(trial), encoding="utf-8")
        code = (
            f"import sys; sys.path.insert(0, {str(Path(gradloop.__file__).parents[1])!r}); "
            "from gradloop.cli.main import main; sys.exit(main())"
        )
        try:
            subprocess.run(
                [sys.executable, "-c", code, "--config", str(file)],
                check=True, capture_output=True, timeout=TRIAL_PROCESS_SECS,
            )  # fmt: skip
            summary = json.loads((run_dir / "summary.json").read_text("utf-8"))
            return float(summary["timing"]["step_secs"]["p50"])
        except (OSError, subprocess.SubprocessError, KeyError, TypeError, ValueError):
            return None


def diagnose_input(job: Job, folder: RunFolder, log: Log) -> None:
    """Measures whether the input limits the speed of training; the job's state does not change."""
    diagnosis = input_diagnosis.diagnose_input(
        job.make_state,
        lambda: job.make_dataset(training=True),
        job.fit_config(),
        strategy=job.strategy if job.state.has_scope else None,
    )
    log.line(diagnosis.to_text())
    job.facts["input"] = diagnosis.to_dict()
    job.end(Status.COMPLETED)


MODES: dict[str, Callable[[Job, RunFolder, Log], None]] = {
    mode.__name__: mode for mode in (train, evaluate, predict, compare, tune, diagnose_input)
}
