"""Job: the parts that a config names, the state made of them, and how it ended."""

from __future__ import annotations

import dataclasses
import enum
import signal
from pathlib import Path
from typing import Any

import tensorflow as tf

from gradloop import engine, signals
from gradloop.data import Split, Splits
from gradloop.data.epoch_dataset import EpochDataset
from gradloop.engine.checks.findings import Finding, refuse_unsupported
from gradloop.engine.storage.trackers import Tracker
from gradloop.engine.workers.peers import Peers
from gradloop.usage import EXIT_USAGE

from . import restoring, resuming, together
from .config import JobConfig
from .monitored import check_metrics
from .texts import parse_profile
from .work.hooks import check_hooks
from .work.parts import Work

_MAX_ERROR = 600  # characters of what Keras says


class Status(enum.Enum):
    """How a job ended: the word in summary.json, and the exit code."""

    COMPLETED = "completed", 0
    STOPPED = "stopped", 0  # by a hook, before the last epoch
    PAUSED = "paused", 0  # by max_time or max_steps
    DIVERGED = "diverged", 1
    FAILED = "failed", 1
    REFUSED = "refused", EXIT_USAGE
    INTERRUPTED = "interrupted", 128 + signal.SIGINT  # or the number of another signal

    @property
    def word(self) -> str:
        """What summary.json says."""
        return self.value[0]

    @property
    def exit_code(self) -> int:
        """What the process returns."""
        return self.value[1]


@dataclasses.dataclass
class Job:
    """The parts that the config names, the state made of them, and what the run finds.

    Attributes:
      config: All settings.
      work: What is trained: the model, its loss, metrics, optimizer and step.
      splits: The dataset: training, validation and test examples.
      strategy: Where to train.
      choice: File of the `--tune` choice that changed the config; None if there is none.
      plan: What to do in the config's folder.
      started_at: The `time.monotonic()` when the process began.
      state: Created by `start`.
      restored: Checkpoint that the state comes from; None for new weights.
      initial: In words, where first weights come from, or the rate that a checkpoint had; "": none.
      status: How the job ended.
      signal_number: Of the signal that ended it, on whichever worker it came; 0: none.
      facts: What summary.json says beyond the state.
      trackers: What is told of the run's end.
    """

    config: JobConfig
    work: Work
    splits: Splits
    strategy: tf.distribute.Strategy
    choice: Path | None = None
    plan: resuming.Plan = resuming.Plan.START
    started_at: float | None = None
    state: engine.TrainState = dataclasses.field(init=False)
    restored: Path | None = None
    initial: str = ""
    status: Status = Status.COMPLETED
    signal_number: int = 0
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)
    trackers: list[Tracker] = dataclasses.field(default_factory=list)

    def start(self) -> None:
        """Creates the state, and restores it if the config says so.

        Raises:
          CheckpointError: If the state cannot be restored.
          ConfigError: If nothing is left to train, the steps to profile do not exist, or
            something is unsupported.
        """
        config = self.config
        with self.strategy.scope():
            state = self.state = self.make_state()
        if config.mode == "train":
            refuse_unsupported(self.check_setup())
            check_hooks(config)
        self._build()
        if config.train_step is None:  # whose logs are known once it is traced
            check_metrics(config, state, has_validation=self.make_validation() is not None)
        restoring.restore(self)
        if config.profile is not None:
            parse_profile(config.profile, self.num_steps_left())

    def _build(self) -> None:
        """Builds the state for the data.

        Raises:
          ConfigError: If the model, the loss and the metrics do not fit the data or one another.
        """
        try:
            self.state.build(self.make_dataset(training=True).element_spec)
        except ValueError as error:
            if self.work.is_of_own_code(error):
                raise
            sentence = " ".join(str(error).split())[:_MAX_ERROR]
            raise engine.ConfigError(
                f"model={self.config.model!r} with dataset={self.config.dataset!r}: {sentence}"
            ) from error

    @property
    def resumes(self) -> bool:
        """Whether the run in the config's folder goes on."""
        return self.plan is resuming.Plan.GO_ON

    @property
    def exit_code(self) -> int:
        """What the process returns."""
        number = self.signal_number or signals.number()
        if self.status is Status.INTERRUPTED and number:
            return 128 + number
        return self.status.exit_code

    @property
    def peers(self) -> Peers:
        """The workers, this one among them."""
        return self.state.peers

    @property
    def has_left(self) -> bool:
        """Whether an error has kept this one of several workers from going on with its peers."""
        return self.status in (Status.FAILED, Status.REFUSED) and not self.peers.is_alone

    def check_signals(self) -> None:
        """Raises KeyboardInterrupt on all workers if one of them has received a signal."""
        self.signal_number = self.signal_number or together.signal_of_any(self.peers)
        if self.signal_number:
            raise signals.Interruption(self.signal_number)

    def heard(self, number: int) -> str:
        """Returns the line that says at once that a signal has come."""
        what = "saving" if self.config.mode == "train" else "ending"
        name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
        return f"interrupted: {what} ..., {name} again to end now"

    def end(self, status: Status, reason: str = "") -> None:
        """Records how the job ended, for the exit code and summary.json."""
        self.status = status
        self.facts["status"] = status.word
        self.facts["exit_reason"] = f"{status.word}: {reason}" if reason else status.word
        if self.has_left:
            self.facts["weights_sha256"] = None

    def make_state(self) -> engine.TrainState:
        """Returns a new model with what trains it. Context: inside the scope of the strategy."""
        return self.work.make_state(self.num_updates())

    def check_setup(self) -> list[Finding]:
        """Returns what `engine.check_setup` finds. Context: the state was created."""
        model, optimizer = self.state.model, self.state.optimizer
        return engine.check_setup(self.config, model, optimizer=optimizer, strategy=self.strategy)

    def build_model(self) -> Any:
        """Returns a new model for images as the pipeline gives them. Context: as the caller's."""
        return self.work.build_model()

    def make_dataset(self, *, training: bool = False, prefetch: int | None = None) -> EpochDataset:
        """Returns the training set, in a new order each epoch, or the test set in its own order.

        Raises:
          ConfigError: If there is no test set.
        """
        return self._batches(self.splits.train if training else self.test, training, prefetch)

    def make_validation(self) -> EpochDataset | None:
        """Returns what training is validated on: `validation_split`, or the test set; or None."""
        split = self.splits.validation or self.splits.test
        return None if split is None or not self.has_loss else self._batches(split)

    def _batches(
        self, split: Split, training: bool = False, prefetch: int | None = None
    ) -> EpochDataset:
        if not self.work.one_hot:  # labels stay as they are
            split = dataclasses.replace(split, num_classes=None)
        return split.make_dataset(
            global_batch_size=self.config.global_batch_size,
            rescale=self.config.rescale,
            shuffle=training and self.config.overfit_batches is None,
            seed=self.config.seed or 0,
            prefetch=prefetch or self.config.prefetch,
        )

    @property
    def test(self) -> Split:
        """The test set.

        Raises:
          ConfigError: If there is none.
        """
        if self.splits.test is None:
            raise engine.ConfigError(
                f"dataset={self.config.dataset!r} has no test set, and mode={self.config.mode!r} "
                "measures on it: add one (x_test and y_test, or a folder test/)."
            )
        return self.splits.test

    @property
    def has_loss(self) -> bool:
        """Whether the model can be evaluated: a step of one's own may bring its own loss."""
        model = self.state.model
        has_loss = model.compiled and model.loss is not None
        return has_loss or self.state.has_own("compute_loss") or bool(model.losses)

    def num_updates(self) -> int:
        """Returns how many updates of the weights the whole run has."""
        config = self.config
        num_batches = -(-self.splits.train.num_examples // config.global_batch_size)
        per_epoch = min(config.steps_per_epoch or num_batches, num_batches)
        num_steps = (config.epochs - config.initial_epoch) * per_epoch
        num_steps = min(num_steps, config.max_steps or num_steps)
        return max(1, num_steps // config.gradient_accumulation_steps)

    def num_steps_left(self) -> int:
        """Returns how many training steps this run has."""
        config, progress = self.config, self.state.progress
        num_batches = self.make_dataset(training=True).num_batches
        per_epoch = min(config.steps_per_epoch or num_batches, num_batches)
        first = max(config.initial_epoch, progress.num_epochs_completed)
        num_done = progress.step if progress.epoch == first else 0
        num_left = (config.epochs - first) * per_epoch - num_done
        if config.max_steps is None:
            return num_left
        return min(num_left, config.max_steps - progress.num_steps_completed)

    def fit_config(self) -> JobConfig:
        """Returns the config for the loop: limits above the number of batches mean all of them."""
        validation_ds = self.make_validation()
        limits: dict[str, Any] = {
            "steps_per_epoch": self.make_dataset(training=True).num_batches,
            "validation_steps": None if validation_ds is None else validation_ds.num_batches,
        }
        changes = {
            k: limit
            for k, limit in limits.items()
            if limit and (getattr(self.config, k) or 0) > limit
        }
        return dataclasses.replace(self.config, **changes)
