"""Trains, evaluates, predicts or compares: flags -> config -> build -> one call -> exit code."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Sequence

# TensorFlow's C++ log would bury ours; Python's errors are not touched by it.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tensorflow as tf

import data
import engine
from data import pipeline
from engine import report
from engine.config import make_config, parse_flags, read_config_file
from engine.hooks import DIVERGENCE, INTERRUPTED
from engine.run import Log, RunFolder
from engine.state import Progress
from models import registry
from models.recipe import Recipe

DESCRIPTION = "Trains a model on a data set and gives the numbers of keras.Model.fit."
EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130


@dataclasses.dataclass(frozen=True)
class Run:
    """The parts that the config names, and what the modes make of them."""

    config: engine.TrainConfig
    recipe: Recipe
    arrays: data.DatasetArrays
    strategy: tf.distribute.Strategy
    folder: RunFolder
    log: Log

    def make_dataset(self, *, training: bool = False) -> pipeline.EpochDataset:
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

    def start(self) -> engine.TrainState:
        """Returns the state, restored if the config says so, and shows the banner."""
        with self.strategy.scope():
            state = self.make_state()
        state.build(self.make_dataset().element_spec)
        if self.config.resume or self.config.checkpoint:
            source = self.folder.checkpoints if self.config.resume else self.config.checkpoint
            self.log.line(f"restored {engine.restore(source or '', state)}")
        if not self.config.resume:
            state.progress = Progress()
        elif state.progress.num_epochs_completed >= self.config.epochs:
            raise engine.ConfigError(
                f"epochs={self.config.epochs}, but {state.progress.num_epochs_completed} are done: "
                "to go on, ask for more than that."
            )
        num_train, num_test = len(self.arrays.x_train), len(self.arrays.x_test)
        text = f"{self.config.dataset}, {num_train:,} training and {num_test:,} test examples"
        self.log.line(report.format_banner(self.config, state, data=text))
        return state

    def count_examples(self, epoch_steps: Sequence[int]) -> int:
        """Returns how many examples were in the steps of each epoch; a last batch is smaller."""
        num_train, batch_size = len(self.arrays.x_train), self.config.global_batch_size
        return sum(min(steps * batch_size, num_train) for steps in epoch_steps)


def read_config(argv: Sequence[str]) -> engine.TrainConfig:
    """Merges defaults < recipe < config file < flags; prints the result if that is asked for."""
    flags = parse_flags(argv, prog="train.py", description=DESCRIPTION)
    prints = flags.pop("print_config", False)
    chosen = read_config_file(flags.pop("config")) if "config" in flags else {}
    chosen |= flags
    config = make_config(chosen)
    try:
        config = make_config(registry.get(config.model).defaults, chosen)
    except ValueError as error:
        raise engine.ConfigError(str(error)) from error
    if prints:
        print(config.to_json())
        sys.exit(0)
    return config


def set_up(config: engine.TrainConfig) -> Run:
    """Gets devices, data and folder; what goes wrong here is the wrong usage of a person."""
    if config.mode in ("evaluate", "predict") and config.checkpoint is None:
        raise engine.ConfigError(f"mode={config.mode} needs a checkpoint: pass --checkpoint FILE.")
    engine.configure_runtime(config)
    try:
        strategy = engine.make_strategy(config)
        arrays = data.load(config.dataset, config.data_dir)
        if config.run_dir is None:
            folder = RunFolder.create("runs", model=config.model, dataset=config.dataset)
        else:
            folder = RunFolder.at(config.run_dir, resume=config.resume)
    except ValueError as error:
        raise engine.ConfigError(str(error)) from error
    folder.write_config(config)
    folder.write_environment()
    return Run(config, registry.get(config.model), arrays, strategy, folder, folder.open_log())


def train(run: Run) -> int:
    """Trains, and evaluates the final weights on the test set."""
    state, test_ds = run.start(), run.make_dataset()
    history = engine.fit(
        state,
        run.make_dataset(training=True),
        run.config,
        validation_data=test_ds,
        hooks=report.make_hooks(run.folder, run.log),
        resume=run.config.resume,
    )
    reason = history.stop_reason or ""
    code = {DIVERGENCE: EXIT_FAILED, INTERRUPTED: EXIT_INTERRUPTED}.get(reason.split(":")[0], 0)
    test_logs = engine.evaluate(state, test_ds, run.config) if code == 0 else {}
    num_examples = run.count_examples(history.epoch_steps)
    report.finish(
        run.folder, run.log, report.summarize(state, history, test_logs, num_examples=num_examples)
    )
    return code


def evaluate(run: Run) -> int:
    """Evaluates a checkpoint on the test set."""
    logs = engine.evaluate(run.start(), run.make_dataset(), run.config)
    report.finish(run.folder, run.log, {"test_accuracy": logs["accuracy"], "test_logs": logs})
    return 0


def predict(run: Run) -> int:
    """Writes a checkpoint's probabilities for the test set, as tables and pictures."""
    probabilities = engine.predict(run.start(), run.make_dataset(), run.config)
    images, labels = run.arrays[2:4]
    accuracy = report.write_predictions(run.folder, run.log, images, labels, probabilities)
    report.finish(run.folder, run.log, {"test_accuracy": accuracy})
    return 0


def compare(run: Run) -> int:
    """Trains with the engine and with fit, and shows whether all bits are equal."""
    comparison = engine.compare_with_fit(
        run.make_state,
        lambda: run.make_dataset(training=True),
        run.config,
        make_validation_data=run.make_dataset,
        strategy=run.strategy,
        hooks=(engine.ProgressBar(line=run.log.line),),
    )
    run.log.line(comparison.to_table())
    report.finish(run.folder, run.log, dataclasses.asdict(comparison))
    return 0 if comparison.is_equal and comparison.has_moved else EXIT_FAILED


def main(argv: Sequence[str] | None = None) -> int:
    """Runs what the flags ask for.

    Returns:
      0; 1: the training diverged or the comparison differs; 2: wrong usage; 130: interrupted, with
      what was done saved. A bug leaves its traceback, and 1.
    """
    modes = {"train": train, "evaluate": evaluate, "predict": predict, "compare": compare}
    try:
        config = read_config(sys.argv[1:] if argv is None else argv)
        run = set_up(config)
        with run.log:
            return modes[config.mode](run)
    except (engine.ConfigError, engine.CheckpointError) as error:
        print(f"train.py: error: {error}", file=sys.stderr)
        return EXIT_USAGE
    except KeyboardInterrupt:
        print("train.py: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
