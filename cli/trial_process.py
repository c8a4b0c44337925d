"""Trials in processes of their own: for settings that a process cannot change, or that change bits.

The process trains when it is asked to, a window at a time, so that several can take turns. It reads
a line for each window, its seconds, and answers with a line: the speed. To the line "bits" it
answers with a digest of what a short training leaves.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import keras
import numpy as np

import gradloop
from gradloop import engine
from gradloop.data import Split
from gradloop.engine.hooks.state_digest import digest_of_state
from gradloop.engine.tuning import trial as trial_lib
from gradloop.engine.tuning.bench import in_one_line
from gradloop.engine.tuning.trial import make_trial
from gradloop.files import json_text

from .config import JobConfig
from .job import Job
from .variables import without_variables

# To begin, and for a window: a process that does not answer is given up.
TIME_LIMIT_SECS = 90.0
# Full batches of a training whose bits are compared.
NUM_BATCHES = 4
_BITS = "bits"
_REFUSED = "refused:"
_FAILED = "failed:"


class ProcessTrial:
    """A trial in another process; see `engine.tuning.trial.Measurable`.

    Attributes:
      speeds: Steps a second, of each window.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.speeds: list[float] = []
        self._process = process
        self._is_warm = False

    def warm_up(self, secs: float | None = None) -> None:
        """Waits until the process has traced."""
        if not self._is_warm:
            self._ask(trial_lib.WARM_UP_SECS if secs is None else secs)
            self._is_warm = True

    def measure(self, secs: float | None = None) -> None:
        """Has it run one window."""
        self.speeds.append(float(self._ask(trial_lib.WINDOW_SECS if secs is None else secs)))

    def bits(self) -> str:
        """Returns a digest of what a short training leaves; see `_digest`."""
        return self._ask(_BITS)

    def _ask(self, question: float | str) -> str:
        """Returns the process's answer.

        Raises:
          ConfigError: If the process refuses these settings.
          OSError: If it fails, or does not answer.
        """
        assert self._process.stdin is not None and self._process.stdout is not None, "pipes"
        self._process.stdin.write(f"{question}\n")
        self._process.stdin.flush()
        ready, _, _ = select.select([self._process.stdout], [], [], TIME_LIMIT_SECS)
        if not ready:
            self._process.kill()  # a late answer would be taken for the next one
            raise OSError(f"no answer for {TIME_LIMIT_SECS:g} s")
        answer = self._process.stdout.readline()
        if not answer:
            raise OSError(f"exit code {self._process.wait()}")
        if answer.startswith(_REFUSED):
            raise engine.ConfigError(answer.removeprefix(_REFUSED).strip())
        if answer.startswith(_FAILED):
            raise OSError(answer.removeprefix(_FAILED).strip())
        return answer.strip()


@contextlib.contextmanager
def started(config: JobConfig, changes: dict[str, Any]) -> Iterator[ProcessTrial]:
    """Starts a process that trains with these changes of the config; it ends with the block."""
    values = {"prefetch": JobConfig.prefetch} | changes
    trial = dataclasses.replace(config, mode="train", run_dir=None, steps_per_epoch=None, **values)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "config.json")
        path.write_text(json_text(trial), encoding="utf-8")
        code = (
            f"import sys; sys.path.insert(0, {str(Path(gradloop.__file__).parents[1])!r}); "
            f"from gradloop.cli.trial_process import serve; serve({str(path)!r})"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, text=True,
            env=without_variables(os.environ),  # they would win over the file
            start_new_session=True,  # Ctrl-C is this process's to handle
        )  # fmt: skip
        try:
            yield ProcessTrial(process)
        finally:
            process.kill()
            process.communicate()


def serve(path: str) -> None:
    """Answers each line that comes, until there are no more. Context: the process."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever else is printed
    try:
        _answer(JobConfig(**json.loads(Path(path).read_text("utf-8"))), answers)
    except engine.ConfigError as error:
        answers.write(f"{_REFUSED} {error}\n")
    except Exception as error:
        answers.write(f"{_FAILED} {in_one_line(error)}\n")


def _answer(config: JobConfig, answers: TextIO) -> None:
    from .main import make_job, prepare

    strategy, _ = prepare(config)
    job = make_job(config, strategy)
    with strategy.scope():
        state = job.state = job.make_state()
    trial = make_trial(state, job.make_dataset(training=True), config, job.work.train_step)
    for line in map(str.strip, sys.stdin):
        if line == _BITS:
            answers.write(f"{_digest(job)}\n")
            continue
        trial.measure(float(line))
        answers.write(f"{trial.speeds[-1]}\n")


def _digest(job: Job) -> str:
    """Returns a digest of the state and the numbers that a short training leaves.

    It has batches of all the sizes that the job's have, as operations split sums by the shapes, and
    the job's own number of updates, by which schedules go.
    """
    config = dataclasses.replace(
        job.config, epochs=job.config.initial_epoch + 2, validation_freq=1, validation_steps=None,
        validate_every_steps=None,
    )  # fmt: skip
    keras.utils.set_random_seed(job.config.seed or 0)  # trials before this one have drawn
    parts: dict[str, Any] = {
        name: shortened(split, job.config.global_batch_size)
        for name in ("train", "validation", "test")
        if (split := getattr(job.splits, name)) is not None
    }
    few = dataclasses.replace(job, splits=dataclasses.replace(job.splits, **parts))
    with few.strategy.scope():
        few.state = job.make_state()
    with tempfile.TemporaryDirectory() as directory:
        history = engine.fit(
            few.state, few.make_dataset(training=True), config, hooks=_hooks(config, directory),
            validation_data=few.make_validation(), train_step=few.work.train_step,
        )  # fmt: skip
    logs = dict(history.history)
    if few.splits.test is not None and few.has_loss:
        logs |= engine.evaluate(few.state, few.make_dataset(), config)
    text = f"{digest_of_state(few.state)} {json_text(logs)}"
    return hashlib.sha256(text.encode()).hexdigest()


def _hooks(config: JobConfig, directory: str) -> list[engine.Hook]:
    """Returns what `on_nonfinite` needs."""
    if config.on_nonfinite in (None, "off"):
        return []
    size = config.global_batch_size
    return [engine.OnNonfinite(config.on_nonfinite, directory=directory, global_batch_size=size)]


def shortened(split: Split, batch_size: int) -> Split:
    """Returns some full batches, and a last one of the size that the last one has."""
    num_full, rest = divmod(split.num_examples, batch_size)
    return split.part(np.arange(min(num_full, NUM_BATCHES) * batch_size + rest))
