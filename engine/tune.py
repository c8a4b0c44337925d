"""Measures how a training is best executed here: trials by turns, on copies, in under a minute."""

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

from engine import loop, runtime
from engine.config import ConfigError, TrainConfig
from engine.files import json_text
from engine.state import TrainState
from engine.tuning import Trial, Tuning, best_of

MakeState = Callable[[TrainConfig], TrainState]
MakeDataset = Callable[[TrainConfig], Any]

NUM_ROUNDS = 5
SLICE_SECS = 0.25
# Nothing that is this much slower in its first steps is worth more of them.
HOPELESS = 3.0
PROCESS_SECS = 60.0

# Each group is measured by turns against the best so far, which goes on with what it gained.
EXACT_GROUPS: tuple[tuple[dict[str, Any], ...], ...] = (
    ({"steps_per_execution": 1}, {"steps_per_execution": 32}, {"steps_per_execution": 256}),
    (
        {"input": "streamed", "prefetch": 1},
        {"input": "streamed"},
        {"input": "streamed", "prefetch": 16},
    ),
)
XLA: tuple[dict[str, Any], ...] = (
    {},
    {"jit_compile": "parts"},
    {"jit_compile": True},
    {"jit_compile": "loop"},
)
EXACT_THREADS = ({"inter_op_threads": 1},)
# The threads within an operation decide how sums are split.
FAST_THREADS = ({"intra_op_threads": 1},)


def tune(
    make_state: MakeState,
    make_dataset: MakeDataset,
    config: TrainConfig,
    *,
    script: Path | None = None,
    max_secs: float = 50.0,
) -> Tuning:
    """Measures what is fastest for a model on this machine; see `Tuning`.

    Context: cross-replica, on the host, on one device. Nothing that exists is trained: each trial
    has a state and a data set of its own.

    Args:
      make_state: Config to a new state; its dtype policy is set.
      make_dataset: Config to the data set to train on; reads `prefetch`.
      config: What the trials are variations of. `numerics`, and the fields that are tried, are not
        read.
      script: train.py, or a script with its flags and its summary: numbers of threads, which a
        process cannot change, are tried in processes of their own. None: they are not tried.
      max_secs: No trial begins after this.

    Raises:
      ConfigError: If the config is for several replicas.
    """
    if config.strategy != "default":
        raise ConfigError(
            f"tune with strategy={config.strategy!r}: what it chooses is for one device. Use "
            "strategy='default'."
        )
    tried = ("numerics", "steps_per_execution", "jit_compile", "input", "prefetch", "precision")
    defaults = {f.name: f.default for f in dataclasses.fields(TrainConfig) if f.name in tried}
    changes: dict[str, Any] = defaults | {"precision": config.precision}
    base = dataclasses.replace(config, **changes)
    bench = _Bench(make_state, make_dataset, base, deadline=time.monotonic() + max_secs)
    result = Tuning()
    for group in EXACT_GROUPS:
        result.exact |= bench.try_group(result, result.exact, group)
    fast = {**result.exact, "numerics": "fast"}
    fast |= bench.try_group(result, fast, XLA, over=result.exact)
    if config.precision == "float32" and runtime.has_fast_bfloat16():
        fast |= bench.try_group(result, fast, ({"precision": "mixed_bfloat16"},))
    if script is not None:
        result.exact |= bench.try_threads(result, script, result.exact, EXACT_THREADS)
        threads = {k: v for k, v in result.exact.items() if k.endswith("_threads")}
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
        self._contenders: dict[str, _Contender] = {}

    def try_group(
        self,
        result: Tuning,
        best: dict[str, Any],
        group: Sequence[dict[str, Any]],
        over: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Measures changes of the best so far against `over`, itself if that is None."""
        reference = self._contender(best if over is None else over)
        reference.warm_up()
        contenders, trials = {}, []
        for changes in group:
            contender = self._contender(best | changes)
            note = self._prepare(contender, reference)
            if note:
                trials.append(_trial(best, changes, note=note))
            else:
                contenders[contender] = changes
        secs = _measure_by_turns([reference, *contenders])
        if not result.trials:
            usecs = 1e6 * statistics.median(secs[reference])
            result.trials.append(Trial({}, 1.0, usecs, changes_bits=False))
        for contender, changes in contenders.items():
            ratios = [a / b for a, b in zip(secs[reference], secs[contender], strict=True)]
            trials.append(_trial(best, changes, statistics.median(ratios), contender.secs_per_step))
        result.trials += trials
        return {name: value for name, value in best_of(trials).items() if name != "numerics"}

    def try_threads(
        self,
        result: Tuning,
        script: Path,
        best: dict[str, Any],
        group: Sequence[dict[str, Any]],
    ) -> dict[str, Any]:
        """Measures numbers of threads, each trial and what it is compared with in a new process."""
        trials = []
        for changes in group:
            if time.monotonic() > self._deadline:
                trials.append(_trial(best, changes, note="no time was left"))
                continue
            contender = self._contender(best)
            num_steps = min(contender.max_steps, int(4 * SLICE_SECS / contender.secs_per_step))
            before, after = (
                _secs_in_process(script, dataclasses.replace(self._base, **both), max(2, num_steps))
                for both in (best, best | changes)
            )
            if before is None or after is None:
                trials.append(_trial(best, changes, note="its process failed"))
            else:
                trials.append(_trial(best, changes, before / after, after))
        result.trials += trials
        return {name: value for name, value in best_of(trials).items() if name != "numerics"}

    def _contender(self, changes: dict[str, Any]) -> _Contender:
        key = json.dumps(changes, sort_keys=True)
        if key not in self._contenders:
            config = dataclasses.replace(self._base, **changes)
            self._contenders[key] = _Contender(self._make_state, self._make_dataset, config)
        return self._contenders[key]

    def _prepare(self, contender: _Contender, reference: _Contender) -> str:
        """Compiles and warms up; returns why it is not to be measured, or nothing."""
        if time.monotonic() > self._deadline:
            return "no time was left"
        try:
            contender.warm_up()
        except Exception as error:  # what XLA cannot compile says so in many ways
            return f"failed: {type(error).__name__}"
        factor = contender.secs_per_step / reference.secs_per_step
        return f"given up: {factor:.0f} times slower" if factor > HOPELESS else ""


class _Contender:
    """A state, a data set and a config that are trained for a while."""

    def __init__(
        self, make_state: MakeState, make_dataset: MakeDataset, config: TrainConfig
    ) -> None:
        self._config = config
        with runtime.dtype_policy(config.precision):
            self._state = make_state(config)
        self._dataset = make_dataset(config)
        cardinality = int(self._dataset.cardinality())
        self.max_steps = cardinality if cardinality > 0 else 10**6
        self.secs_per_step = 0.0

    def warm_up(self) -> None:
        """Traces, compiles and finds out about how long a step takes."""
        if self.secs_per_step:
            return
        with runtime.dtype_policy(self._config.precision):
            self.train(2)
        # What a call of fit costs besides its steps must not count as theirs.
        for num_steps in (2, 32, 256):
            self.secs_per_step = self.train(num_steps)
            if self.secs_per_step * num_steps > SLICE_SECS:
                break

    def train(self, num_steps: int) -> float:
        """Trains and returns the seconds a step."""
        num_steps = min(num_steps, self.max_steps)
        config = dataclasses.replace(
            self._config, epochs=1, initial_epoch=0, steps_per_epoch=num_steps
        )
        began = time.perf_counter()
        loop.fit(self._state, self._dataset, config)
        return (time.perf_counter() - began) / num_steps


def _measure_by_turns(contenders: list[_Contender]) -> dict[_Contender, list[float]]:
    secs: dict[_Contender, list[float]] = {contender: [] for contender in contenders}
    for index in range(NUM_ROUNDS):
        for contender in contenders[:: 1 if index % 2 == 0 else -1]:
            num_steps = max(1, int(SLICE_SECS / contender.secs_per_step))
            secs[contender].append(contender.train(num_steps))
    for contender in contenders:
        contender.secs_per_step = statistics.median(secs[contender])
    return secs


def _secs_in_process(script: Path, config: TrainConfig, num_steps: int) -> float | None:
    """Returns the median seconds of a step in a training by `script`; None if it failed."""
    with tempfile.TemporaryDirectory() as directory:
        run_dir, file = Path(directory, "run"), Path(directory, "config.json")
        config = dataclasses.replace(
            config, mode="train", epochs=2, initial_epoch=0, steps_per_epoch=num_steps,
            validation_steps=1, run_dir=str(run_dir), resume=False, checkpoint=None,
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


def _trial(
    best: dict[str, Any],
    changes: dict[str, Any],
    gain: float | None = None,
    secs: float | None = None,
    note: str = "",
) -> Trial:
    numerics = {"numerics": best["numerics"]} if "numerics" in best else {}
    bits = bool(numerics) or "intra_op_threads" in changes
    return Trial(numerics | changes, gain, None if secs is None else 1e6 * secs, bits, note)
