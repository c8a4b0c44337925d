"""Measures how a training is best executed here: trials by turns, on copies, in about a minute."""

from __future__ import annotations

import dataclasses
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from engine import runtime
from engine import step as step_lib
from engine.config import ConfigError, TrainConfig
from engine.files import json_text
from engine.state import TrainState
from engine.trial import Trial, run_in_turn, speed_ratios
from engine.tuning import Measurement, Tuning, best_of

MakeState = Callable[[TrainConfig], TrainState]
MakeDataset = Callable[[TrainConfig], Any]
Changes = dict[str, Any]

NUM_ROUNDS = 5
WARM_UP_SECS = 0.5
# Nothing that is this much slower in its first seconds is worth more of them.
HOPELESS = 3.0
PROCESS_SECS = 60.0

# Each group is measured by turns against the best so far, which goes on with what it gained.
EXACT: tuple[tuple[Changes, ...], ...] = (
    ({"steps_per_execution": 1}, {"steps_per_execution": 32}),
    ({"input": "streamed"}, {"input": "streamed", "prefetch": 16}),
)
XLA: tuple[Changes, ...] = (
    {"jit_compile": "loop"},
    {"jit_compile": True},
    {"jit_compile": "parts"},
)
EXACT_THREADS: Changes = {"inter_op_threads": 1}
# The threads within an operation decide how its sums are split.
FAST_THREADS: Changes = {"intra_op_threads": 1}


def tune(
    make_state: MakeState,
    make_dataset: MakeDataset,
    config: TrainConfig,
    *,
    script: Path | None = None,
    max_secs: float = 45.0,
) -> Tuning:
    """Measures what is fastest for a model on this machine; see `Tuning`.

    Context: cross-replica, on the host, on one device. Nothing that exists is trained: each trial
    has a state and a data set of its own.

    Args:
      make_state: Config to a new state; its dtype policy is set while it is called.
      make_dataset: Config to the data set to train on; reads `prefetch`.
      config: What the trials are variations of; of the fields that are tried, `precision` alone is
        read.
      script: train.py, or a script with its flags and its summary: numbers of threads, which a
        process cannot change, are tried in processes of their own. None: they are not tried.
      max_secs: No trial begins after this; the one that runs then is finished.

    Raises:
      ConfigError: If the config is for several replicas.
    """
    if config.strategy != "default":
        raise ConfigError(
            f"tune with strategy={config.strategy!r}: what it chooses is for one device. Use "
            "strategy='default'."
        )
    bench = _Bench(make_state, make_dataset, _base(config), time.monotonic() + max_secs)
    result = Tuning()
    for group in EXACT:
        result.exact |= bench.try_group(result, result.exact, group)
    fast = {**result.exact, "numerics": "fast"}
    plain: tuple[Changes, ...] = ({},)
    if config.precision == "float32" and runtime.has_fast_bfloat16():
        plain += ({"precision": "mixed_bfloat16"},)
    fast |= bench.try_group(result, fast, plain, over=result.exact)
    fast |= bench.try_group(result, fast, XLA)
    if script is not None:
        threads = bench.try_threads(result, script, result.exact, EXACT_THREADS)
        result.exact |= threads
        fast |= threads | bench.try_threads(result, script, fast | threads, FAST_THREADS)
    result.fast = {name: value for name, value in fast.items() if name != "numerics"}
    return result


class _Bench:
    """Runs trials and writes down what they gave."""

    def __init__(
        self, make_state: MakeState, make_dataset: MakeDataset, base: TrainConfig, deadline: float
    ) -> None:
        self._make_state = make_state
        self._make_dataset = make_dataset
        self._base = base
        self._deadline = deadline
        self._trials: dict[str, Trial] = {}

    def try_group(
        self,
        result: Tuning,
        best: Changes,
        group: Sequence[Changes],
        over: Changes | None = None,
    ) -> Changes:
        """Measures changes of the best so far against `over`, itself if that is None."""
        reference = self._trial(best if over is None else over)
        found, rivals = [], []
        for changes in group:
            rival, note = self._prepare(best | changes, reference)
            if rival is None:
                found.append(_measurement(best, changes, note=note))
            else:
                rivals.append((rival, changes))
        run_in_turn([reference, *(rival for rival, _ in rivals)], NUM_ROUNDS)
        if not result.measurements:
            result.measurements.append(_measurement({}, {}, 1.0, 1 / reference.speed))
        for rival, changes in rivals:
            ratios = speed_ratios(rival, reference, NUM_ROUNDS)
            secs = 1 / statistics.median(rival.speeds[-NUM_ROUNDS:])
            one = _measurement(best, changes, statistics.median(ratios), secs)
            found.append(dataclasses.replace(one, is_sure=sum(r <= 1 for r in ratios) <= 1))
        result.measurements += found
        return {name: value for name, value in best_of(found).items() if name != "numerics"}

    def try_threads(self, result: Tuning, script: Path, best: Changes, changes: Changes) -> Changes:
        """Measures numbers of threads: the trial and what it is compared with in new processes."""
        num_steps = max(2, int(self._trial(best).speed))  # about a second
        secs: list[float | None] = []
        for tried in (best, best | changes):
            if time.monotonic() > self._deadline:
                found = _measurement(best, changes, note="no time was left")
                break
            secs.append(
                _secs_in_process(script, dataclasses.replace(self._base, **tried), num_steps)
            )
        else:
            before, after = secs
            if before is None or after is None:
                found = _measurement(best, changes, note="its process failed")
            else:
                found = _measurement(best, changes, before / after, after)
        result.measurements.append(found)
        return {name: value for name, value in best_of([found]).items() if name in changes}

    def _trial(self, changes: Changes) -> Trial:
        key = json.dumps(changes, sort_keys=True)
        if key not in self._trials:
            config = dataclasses.replace(self._base, **changes)
            with runtime.dtype_policy(config.precision):
                state, dataset = self._make_state(config), self._make_dataset(config)
                state.build(dataset.element_spec)
            resident = config.input != "streamed" and not tf.config.list_logical_devices("GPU")
            trial = Trial(dataset, state, config, step_lib.train_step, resident=resident)
            with runtime.dtype_policy(config.precision):
                trial.warm_up(WARM_UP_SECS)
            trial.measure()
            self._trials[key] = trial
        return self._trials[key]

    def _prepare(self, changes: Changes, reference: Trial) -> tuple[Trial | None, str]:
        """Returns a trial that has warmed up, or None and why it is not to be measured."""
        if time.monotonic() > self._deadline:
            return None, "no time was left"
        try:
            trial = self._trial(changes)
        except tf.errors.OpError as error:  # what XLA cannot compile
            return None, f"failed: {type(error).__name__}"
        factor = reference.speed / trial.speed
        return (None, f"given up: {factor:.1f} times slower") if factor > HOPELESS else (trial, "")


def _base(config: TrainConfig) -> TrainConfig:
    tried = ("numerics", "steps_per_execution", "jit_compile", "input", "prefetch")
    defaults = {f.name: f.default for f in dataclasses.fields(TrainConfig) if f.name in tried}
    changes: Changes = {**defaults, "steps_per_epoch": None}
    return dataclasses.replace(config, **changes)


def _secs_in_process(script: Path, config: TrainConfig, num_steps: int) -> float | None:
    """Returns the median seconds of a step in a training by `script`; None if it failed."""
    with tempfile.TemporaryDirectory() as directory:
        run_dir, file = Path(directory, "run"), Path(directory, "config.json")
        config = dataclasses.replace(
            config, mode="train", epochs=2, initial_epoch=0, steps_per_epoch=num_steps,
            validation_steps=1, run_dir=str(run_dir),
        )  # fmt: skip
        file.write_text(json_text(config), encoding="utf-8")
        try:
            subprocess.run(
                [sys.executable, str(script), "--config", str(file)],
                check=True, capture_output=True, timeout=PROCESS_SECS,
            )  # fmt: skip
            summary = json.loads((run_dir / "summary.json").read_text("utf-8"))
            return float(summary["timing"]["step_secs"]["p50"])
        except (OSError, subprocess.SubprocessError, KeyError, TypeError, ValueError):
            return None


def _measurement(
    best: Changes,
    changes: Changes,
    gain: float | None = None,
    secs: float | None = None,
    note: str = "",
) -> Measurement:
    numerics = {"numerics": best["numerics"]} if "numerics" in best else {}
    changes_bits = bool(numerics) or "intra_op_threads" in changes
    usecs = None if secs is None else 1e6 * secs
    return Measurement(numerics | changes, gain, usecs, changes_bits, note)
