"""Trains, evaluates, predicts or compares: flags -> config -> build -> one call -> exit code."""
# ruff: noqa: E402 - what hides TensorFlow's words must stand before its import

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def without_cpp_log() -> Iterator[None]:
    """Takes TensorFlow's C++ log off stderr; all else that was written there follows at the end."""
    # Its errors are about a GPU that is not there, unless there is one.
    levels = "IW" if Path("/dev/nvidiactl").exists() else "IWE"
    log_line = rf"(?m)^(WARNING: All log messages before absl|[{levels}]\d{{4}} [\d:.]+ ).*\n"
    has_failed = False
    sys.stderr.flush()
    with tempfile.TemporaryFile() as written, os.fdopen(os.dup(2), "wb") as stderr:
        os.dup2(written.fileno(), 2)
        try:
            yield
        except BaseException:
            has_failed = True
            raise
        finally:
            sys.stderr.flush()
            os.dup2(stderr.fileno(), 2)
            written.seek(0)
            text = written.read()
            stderr.write(text if has_failed else re.sub(log_line.encode(), b"", text))


# Quiets the C++ side from now on; of what it says while it is loaded, it hides nothing.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
with without_cpp_log():
    import tensorflow as tf

    tf.config.list_physical_devices()

import data
import engine
from data import pipeline
from engine import diagnosis as diagnosis_lib
from engine import report
from engine import tune as tune_lib
from engine.config import parse_profile
from engine.files import json_text
from engine.flags import make_config, read_choices
from engine.hooks import DIVERGENCE, INTERRUPTED
from engine.run import Log, RunFolder
from engine.state import Progress
from engine.tuning import apply_choice
from models import registry
from models.recipe import Recipe

DESCRIPTION = "Trains a model on a data set and gives the numbers of keras.Model.fit."
EXIT_USAGE = 2
# By the first word of the exit reason; all other reasons are as good as having gone to the end.
EXIT_CODES = {DIVERGENCE: 1, report.FAILED: 1, report.REFUSED: EXIT_USAGE, INTERRUPTED: 130}


@dataclasses.dataclass
class Run:
    """The parts that the config names, the state that is made of them, and what was found."""

    config: engine.TrainConfig
    recipe: Recipe
    arrays: data.DatasetArrays
    strategy: tf.distribute.Strategy
    state: engine.TrainState = dataclasses.field(init=False)
    restored: Path | None = None
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)
    choice: Path | None = None

    def make_dataset(
        self, *, training: bool = False, prefetch: int | None = None
    ) -> pipeline.EpochDataset:
        """Returns the training set, in another order each epoch, or the test set as it is."""
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

    def make_state(self) -> engine.TrainState:
        """Returns the model with its recipe. Context: inside the strategy's scope."""
        shape = self.arrays.x_train.shape[1:]
        return engine.TrainState(
            self.recipe.build((*shape, 1) if len(shape) == 2 else shape, self.arrays.num_classes),
            self.recipe.make_optimizer(self.config.learning_rate),
            loss=self.recipe.make_loss(),
            metrics=self.recipe.make_metrics(),
        )

    def start(self) -> None:
        """Makes the state, and restores it if the config says so.

        Raises:
          CheckpointError: If it cannot be restored.
          ConfigError: If nothing is left to train, or not the steps to profile.
        """
        config = self.config
        with self.strategy.scope():
            state = self.state = self.make_state()
        state.build(self.make_dataset().element_spec)
        if config.resume:
            self.restored = engine.restore_checkpoint(
                RunFolder(Path(config.run_dir or "")).checkpoints, state
            )
        elif config.checkpoint is not None:
            self.restored = engine.restore_checkpoint(config.checkpoint, state)
            state.progress = Progress()
        num_done = state.progress.num_epochs_completed
        if config.mode == "train" and num_done >= config.epochs:
            raise engine.ConfigError(
                f"epochs={config.epochs}, but {num_done} are done: to go on, ask for more."
            )
        if config.profile is not None:
            parse_profile(config.profile, self.num_steps_left())

    def num_steps_left(self) -> int:
        """Returns how many steps of training this run has."""
        config, progress = self.config, self.state.progress
        per_epoch = -(-len(self.arrays.x_train) // config.global_batch_size)
        per_epoch = min(config.steps_per_epoch or per_epoch, per_epoch)
        first = max(config.initial_epoch, progress.num_epochs_completed)
        num_done = progress.step if progress.epoch == first else 0
        return (config.epochs - first) * per_epoch - num_done

    def fit_config(self) -> engine.TrainConfig:
        """Returns the config for the loop, where more steps than there are mean all of them."""
        limits: dict[str, Any] = {
            "steps_per_epoch": self.make_dataset(training=True).num_batches,
            "validation_steps": self.make_dataset().num_batches,
        }
        changes = {
            k: limit for k, limit in limits.items() if (getattr(self.config, k) or 0) > limit
        }
        return dataclasses.replace(self.config, **changes)


def read_config(argv: Sequence[str]) -> tuple[engine.TrainConfig, Path | None]:
    """Merges defaults < recipe < what --tune chose < what a person chose; prints it if asked for.

    Returns:
      The config, and the file with the choice of --tune, if it changed something.
    """
    chosen = read_choices(argv, prog="train.py", description=DESCRIPTION)
    prints = chosen.pop("print_config", False)
    try:
        recipe = registry.get(chosen.get("model", engine.TrainConfig.model))
    except ValueError as error:
        raise engine.ConfigError(str(error)) from error
    config = make_config(recipe.defaults, chosen)
    choice = None
    if config.mode == "train":
        config, choice = apply_choice(config, chosen)
    if prints:
        print(json_text(config, indent=2))
        sys.exit(0)
    return config, choice


def set_up(config: engine.TrainConfig, choice: Path | None) -> tuple[Run, RunFolder]:
    """Gets devices, data, state and, once all of these are right, the folder.

    What goes wrong here is the wrong usage of a person, and leaves nothing behind.
    """
    engine.configure_runtime(config)
    try:
        strategy = engine.make_strategy(config)
        arrays = data.load(config.dataset, config.data_dir)
    except ValueError as error:
        raise engine.ConfigError(str(error)) from error
    run = Run(config, registry.get(config.model), arrays, strategy, choice=choice)
    run.start()
    try:
        if config.run_dir is not None:
            return run, RunFolder.at(config.run_dir, resume=config.resume)
        return run, RunFolder.create("runs", model=config.model, dataset=config.dataset)
    except ValueError as error:
        raise engine.ConfigError(str(error)) from error


def begin(run: Run, folder: RunFolder, log: Log) -> None:
    """Writes down what the run is, and shows it."""
    folder.write_config(run.config)
    folder.write_environment()
    num_train, num_test = len(run.arrays.x_train), len(run.arrays.x_test)
    lines = {"data": f"{run.config.dataset}, {num_train:,} training and {num_test:,} test examples"}
    if run.restored is not None:
        lines["restored"] = str(run.restored)
    if run.choice is not None:
        lines["tuned"] = str(run.choice)
    log.line(report.format_banner(run.config, run.state, **lines))


def train(run: Run, folder: RunFolder, log: Log) -> None:
    """Trains, and evaluates the final weights on the test set."""
    dataset, test_ds, config = run.make_dataset(training=True), run.make_dataset(), run.fit_config()
    history = engine.fit(
        run.state,
        dataset,
        config,
        validation_data=test_ds,
        hooks=report.make_hooks(folder, log, config.profile),
        resume=config.resume,
    )
    run.facts |= report.describe_training(
        history,
        run.state.progress.num_steps_completed,
        num_examples=dataset.num_examples,
        global_batch_size=config.global_batch_size,
    )
    if exit_code(run) == 0:
        logs = engine.evaluate(run.state, test_ds, config)
        run.facts |= {"test_accuracy": logs["accuracy"], "test_logs": logs}


def evaluate(run: Run, folder: RunFolder, log: Log) -> None:
    """Evaluates a checkpoint on the test set."""
    logs = engine.evaluate(run.state, run.make_dataset(), run.fit_config())
    run.facts |= {"test_accuracy": logs["accuracy"], "test_logs": logs}


def predict(run: Run, folder: RunFolder, log: Log) -> None:
    """Writes a checkpoint's probabilities for the test set, as tables and pictures."""
    probabilities = engine.predict(run.state, run.make_dataset(), run.config)
    images, labels = run.arrays[2:4]
    accuracy = report.write_predictions(folder, log, images, labels, probabilities)
    run.facts["test_accuracy"] = accuracy


def compare(run: Run, folder: RunFolder, log: Log) -> None:
    """Trains with the engine and with fit, and shows whether all bits are equal."""

    def keep_state(info: engine.HookInfo) -> None:
        run.state = info.state

    comparison = engine.compare_with_fit(
        run.make_state,
        lambda: run.make_dataset(training=True),
        run.fit_config(),
        make_validation_data=run.make_dataset,
        strategy=run.strategy,
        hooks=(engine.ProgressBar(line=log.line), engine.LambdaHook(on_train_begin=keep_state)),
    )
    log.line(comparison.to_table())
    run.facts |= report.describe_comparison(comparison)


def tune(run: Run, folder: RunFolder, log: Log) -> None:
    """Measures what is fastest here, and keeps the choice for later runs."""
    tuning = tune_lib.tune(
        lambda config: run.make_state(),
        lambda config: run.make_dataset(training=True, prefetch=config.prefetch),
        run.config,
        script=Path(__file__),
    )
    path = tuning.save(run.config)
    log.line(tuning.to_table())
    log.line(f"kept for later runs in {path}")
    run.facts["tuning"] = dataclasses.asdict(tuning)


def diagnose_input(run: Run, folder: RunFolder, log: Log) -> None:
    """Measures whether the input holds the training up; the run's own state is left as it is."""
    diagnosis = diagnosis_lib.diagnose_input(
        run.make_state,
        lambda: run.make_dataset(training=True),
        run.fit_config(),
        strategy=run.strategy if run.state.has_scope else None,
    )
    log.line(diagnosis.to_text())
    run.facts["input"] = diagnosis.to_dict()


def exit_code(run: Run) -> int:
    """Returns the process's exit code; see `main`."""
    return EXIT_CODES.get(run.facts["exit_reason"].split(":")[0], 0)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs what the flags ask for.

    Returns:
      0; 1: the training diverged, the comparison differs, or a bug, which leaves its traceback;
      2: wrong usage; 130: interrupted, with what was done saved.
    """
    modes = (train, evaluate, predict, compare, tune, diagnose_input)
    try:
        config, choice = read_config(sys.argv[1:] if argv is None else argv)
        run, folder = set_up(config, choice)
    except (engine.ConfigError, engine.CheckpointError) as error:
        print(f"train.py: error: {error}", file=sys.stderr)
        return EXIT_USAGE
    except KeyboardInterrupt:
        print("train.py: interrupted", file=sys.stderr)
        return EXIT_CODES[INTERRUPTED]
    with folder.open_log() as log:
        try:
            run.facts["exit_reason"] = report.COMPLETED
            begin(run, folder, log)
            {mode.__name__: mode for mode in modes}[config.mode](run, folder, log)
        except KeyboardInterrupt:
            run.facts["exit_reason"] = INTERRUPTED
        except engine.ConfigError as error:
            run.facts["exit_reason"] = f"{report.REFUSED}: {error}"
            log.line(f"train.py: error: {error}", stream=sys.stderr)
        except Exception as error:
            run.facts["exit_reason"] = f"{report.FAILED}: {type(error).__name__}: {error}"
            log.line(traceback.format_exc().rstrip(), stream=sys.stderr)
        report.finish(folder, log, run.state, run.facts)
    return exit_code(run)


if __name__ == "__main__":
    sys.exit(main())
