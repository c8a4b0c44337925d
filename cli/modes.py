"""The modes, each of which does one thing with a job."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable

from gradloop import engine, signals
from gradloop.engine.tuning import input_diagnosis, search
from gradloop.engine.tuning.choice import MAY_CHANGE_BITS

from . import summary, trackers, trial_process
from .config import JobConfig, choice_key
from .export import export
from .hooks import make_hooks, watchdogs
from .job import Job, Status
from .log import Log
from .predictions import write_predictions
from .reading import PROG, may_change
from .replay import replay
from .run_folder import RunFolder
from .work.hooks import make_own_hooks
from .work.objectives import are_logits

MAX_PREDICTED = 20_000  # test examples, unless pictures are asked for
_STATUS_OF_STOP = {
    None: Status.COMPLETED,
    engine.StopKind.REQUESTED: Status.STOPPED,
    engine.StopKind.TIME_LIMIT: Status.PAUSED,
    engine.StopKind.STEP_LIMIT: Status.PAUSED,
    engine.StopKind.DIVERGED: Status.DIVERGED,
    engine.StopKind.INTERRUPTED: Status.INTERRUPTED,
}


def train(job: Job, folder: RunFolder, log: Log) -> None:
    """Trains, and evaluates the final weights on the test set."""
    dataset, config = job.make_dataset(training=True), job.fit_config()
    job.trackers = trackers.make(folder, config)
    hooks = make_own_hooks(config, folder.path)
    hooks += make_hooks(folder, log, config, started_at=job.started_at, trackers=job.trackers)
    # What fit has begun, such as the last save, is not left half done: a hook cuts it short.
    with signals.listening(signals.note):
        history = engine.fit(
            job.state, dataset, config, validation_data=job.make_validation(), hooks=hooks,
            train_step=job.work.train_step, resume=job.resumes,
        )  # fmt: skip
    num_steps = job.state.progress.num_steps_completed
    job.facts |= summary.describe_training(history, num_steps, dataset)
    job.signal_number = history.stop_signal or 0
    job.end(_STATUS_OF_STOP[history.stop_kind])
    if history.stop_reason is not None:
        job.facts["exit_reason"] = history.stop_reason
    if job.status in (Status.COMPLETED, Status.STOPPED):
        job.check_signals()
        if job.splits.test is not None and job.has_loss:
            # The test set is all of it: validation_steps limits validations.
            _evaluate(job, dataclasses.replace(config, validation_steps=None))
            if _shows_predictions(job):
                log.attempt(_predict, job, folder, log)
    if job.status is Status.DIVERGED:
        log.line(
            f"{PROG}: error: the run has diverged: {job.facts['exit_reason']}. Try a smaller "
            "learning_rate, or see --on_nonfinite.", stream=sys.stderr
        )  # fmt: skip


def evaluate(job: Job, folder: RunFolder, log: Log) -> None:
    """Evaluates a checkpoint on the test set: all of it, or the first `validation_steps`."""
    _evaluate(job, job.config)
    job.end(Status.COMPLETED)


def _evaluate(job: Job, config: JobConfig) -> None:
    test_ds = job.make_dataset()
    if (config.validation_steps or 0) >= test_ds.num_batches:
        config = dataclasses.replace(config, validation_steps=None)
    hooks: list[engine.Hook] = [engine.StopOnSignal(), *watchdogs(config)]
    with signals.listening(signals.note):
        logs = engine.evaluate(job.state, test_ds, config, hooks=hooks)
    job.check_signals()  # It has ended early: what it has is of a part of the data.
    job.facts |= summary.describe_test(logs, test_ds, config.validation_steps)


def predict(job: Job, folder: RunFolder, log: Log) -> None:
    """Writes what a checkpoint predicts for the test set, as tables and pictures."""
    job.facts["test_accuracy"] = _predict(job, folder, log)
    job.end(Status.COMPLETED)


def _predict(job: Job, folder: RunFolder, log: Log) -> float | None:
    """Writes the predictions, and returns their accuracy, if they have one."""
    predictions = engine.predict(job.state, job.make_dataset(), job.config)
    if not folder.writes:  # of several workers, the chief has the predictions of all
        return None
    model = job.state.model
    return write_predictions(
        folder, log, job.test, predictions, job.splits.class_names,
        are_logits=are_logits(model, model.loss if model.compiled else None),
    )  # fmt: skip


def _shows_predictions(job: Job) -> bool:
    """Returns whether a training ends with predictions: they take as long as the evaluation."""
    plots = job.config.plots
    return job.test.num_examples <= MAX_PREDICTED if plots is None else plots


def compare(job: Job, folder: RunFolder, log: Log) -> None:
    """Trains with the engine and with fit, and shows whether all bits are equal."""

    def keep_state(info: engine.HookInfo) -> None:
        job.state = info.state

    comparison = engine.compare_with_fit(
        job.make_state,
        lambda: job.make_dataset(training=True),
        job.fit_config(),
        make_validation_data=job.make_validation,
        strategy=job.strategy,
        hooks=(
            engine.ProgressBar(stream=log.bar_stream, line=log.line),
            engine.LambdaHook(on_train_begin=keep_state),
        ),
    )
    log.result(comparison.to_table())
    job.facts |= summary.describe_comparison(comparison)
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
        train_step=job.work.train_step,
        trial_in_process=lambda changes: trial_process.started(job.config, changes),
        show=log.line,
    )
    log.result(tuning.to_table())
    job.facts["tuning"] = dataclasses.asdict(tuning)
    path = tuning.save(choice_key(job.config))
    log.line(f"kept for later runs in {path}")
    found = {*tuning.exact, *tuning.xla} & {*MAY_CHANGE_BITS}
    if found and may_change(job.config):
        log.line(
            f"not {', '.join(sorted(found))}: code or data of your own may change, and their bits "
            "with them. Pass it yourself to have it."
        )
    job.end(Status.COMPLETED)


def diagnose_input(job: Job, folder: RunFolder, log: Log) -> None:
    """Measures whether the input limits the speed of training; the job's state does not change."""
    diagnosis = input_diagnosis.diagnose_input(
        job.make_state,
        lambda: job.make_dataset(training=True),
        job.fit_config(),
        strategy=job.strategy if job.state.has_scope else None,
        train_step=job.work.train_step,
    )
    log.result(diagnosis.to_text())
    job.facts["input"] = diagnosis.to_dict()
    job.end(Status.COMPLETED)


MODES: dict[str, Callable[[Job, RunFolder, Log], None]] = {
    mode.__name__: mode
    for mode in (train, evaluate, predict, compare, tune, diagnose_input, export, replay)
}
