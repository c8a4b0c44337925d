"""A run that is stopped at any position of the loop, and resumed, is the run that was not.

A stop is what a signal asks for, at each moment that a hook sees and within executions. The resumed
run has a state, hooks and writers of its own, as in a new process.
"""

import contextlib

import keras
import pytest

from gradloop.engine import planner
from gradloop.engine.history import StopKind
from gradloop.engine.hooks import EarlyStopping, Hook, LambdaHook, SaveCheckpoint, WriteMetrics
from gradloop.engine.hooks.base import HOOK_METHODS
from gradloop.engine.loop import fit
from gradloop.engine.runtime import dtype_policy
from gradloop.engine.state import TrainState
from gradloop.engine.storage import checkpoint
from gradloop.engine.storage.writers import CSVWriter
from gradloop.engine.strategy import make_strategy
from tests.engine.nets import make_config, make_pipeline, mirrored
from tests.engine.storage.states import all_bytes

EPOCHS = 3


class StopAt(Hook):
    """Asks for what a signal asks for, at one of the moments, counted from 0."""

    def __init__(self, position=None):
        self.position = position
        self.moments = []
        for name in HOOK_METHODS:
            setattr(self, name, lambda info, name=name: self._see(info, name))

    def _see(self, info, name):
        self._info = info
        if len(self.moments) == self.position:
            info.request_stop("signal", kind=StopKind.INTERRUPTED, immediately=True)
        self.moments.append(name)

    @contextlib.contextmanager
    def around_execution(self, num_steps_completed):
        self._see(self._info, "within an execution")
        yield


def build(kind):
    keras.utils.set_random_seed(1)
    layers = [keras.Input((4,)), keras.layers.Dense(8, activation="relu")]
    if kind != "plain":
        layers += [keras.layers.BatchNormalization(), keras.layers.Dropout(0.3)]
    return keras.Sequential([*layers, keras.layers.Dense(3, activation="softmax")])


def make_state(kind, strategy):
    policy = "mixed_float16" if kind == "float16" else "float32"
    with dtype_policy(policy), strategy.scope():
        schedule = keras.optimizers.schedules.ExponentialDecay(0.05, 5, 0.9)
        return TrainState(
            build(kind),
            keras.optimizers.Adam(schedule, use_ema=True, ema_momentum=0.9),
            loss="sparse_categorical_crossentropy",
            metrics=["accuracy"],
        )


class Run:
    """A run in a folder, which one or more calls of `go` bring to its end."""

    def __init__(self, kind, strategy, arrays, directory):
        self.kind, self.strategy, self.arrays, self.directory = kind, strategy, arrays, directory

    def go(self, position=None):
        """Trains; returns the hook that may have stopped it."""
        keras.utils.clear_session(free_memory=False)
        self.state = make_state(self.kind, self.strategy)
        self.state.build(make_pipeline(self.arrays).element_spec)
        resume = checkpoint.latest(self.directory) is not None
        if resume:
            checkpoint.restore(self.directory, self.state)
        stop = StopAt(position)
        hooks = [
            stop, EarlyStopping(patience=1, min_delta=100.0, restore_best_weights=True),
            WriteMetrics(CSVWriter(self.directory / "metrics.csv")), SaveCheckpoint(self.directory),
        ]  # fmt: skip
        config = make_config(epochs=EPOCHS, validate_every_steps=6)
        self.history = fit(
            self.state, make_pipeline(self.arrays), config, hooks=hooks, resume=resume,
            validation_data=make_pipeline(self.arrays),
        )  # fmt: skip
        return stop

    def result(self):
        """Returns everything that must be equal."""
        rows = (self.directory / "metrics.csv").read_bytes()
        variables = {n: v for n, v in all_bytes(self.state).items() if "metrics/" not in n}
        return variables, self.history.state(), rows, self.history.stop_reason


def stop_everywhere(kind, strategy, arrays, directory, monkeypatch, *, first=0, every):
    """Stops a run at positions from `first` on; returns the moments at which that was."""
    monkeypatch.setattr(planner, "FIRST_CALL_STEPS", 1)
    whole = Run(kind, strategy, arrays, directory / "whole")
    moments = whole.go().moments
    expected = whole.result()
    assert len(expected[1]["epoch"]) == 2 and "early stopping" in expected[3]
    seen = set()
    positions = range(first, len(moments), every)
    for position in positions:
        run = Run(kind, strategy, arrays, directory / str(position))
        stop = run.go(position)
        if stop._info.stop_kind is StopKind.INTERRUPTED:
            seen.add(moments[position])
            run.go()
        for part, wanted in zip(run.result(), expected, strict=True):
            assert part == wanted, (position, moments[position])
    print(f"{kind}: {len(positions)} of {len(moments)} positions, at moments of {len(seen)} kinds")
    return seen


def test_some_positions(arrays, tmp_path, monkeypatch):
    seen = stop_everywhere(
        "plain", make_strategy(make_config()), arrays, tmp_path, monkeypatch, every=7
    )
    assert len(seen) > 3


def test_a_stop_in_mid_epoch_is_kept_if_a_signal_comes_before_the_epoch_ends(arrays, tmp_path):
    def train(directory, interrupt_at=None):
        keras.utils.clear_session(free_memory=False)
        state = make_state("plain", make_strategy(make_config()))
        state.build(make_pipeline(arrays).element_spec)
        if resume := checkpoint.latest(directory) is not None:
            checkpoint.restore(directory, state)

        def stop(info):
            if info.progress.num_steps_completed == 10:
                info.request_stop("seen enough")
            if info.progress.num_steps_completed == interrupt_at:
                info.request_stop("signal", kind=StopKind.INTERRUPTED, immediately=True)

        hooks = [LambdaHook(on_execution_end=stop), SaveCheckpoint(directory)]
        data = make_pipeline(arrays)
        return fit(state, data, make_config(epochs=3), hooks=hooks, resume=resume), state

    whole, expected = train(tmp_path / "whole")
    assert whole.epoch_steps == [7, 3]
    interrupted, _ = train(tmp_path / "again", interrupt_at=10)
    assert interrupted.stop_kind is StopKind.INTERRUPTED
    history, state = train(tmp_path / "again")
    assert (history.state(), history.stop_reason) == (whole.state(), "seen enough")
    assert state.weights_sha256() == expected.weights_sha256()


# Together every position; in parts, because a test has five minutes.
@pytest.mark.exhaustive
@pytest.mark.parametrize("first", range(4))
def test_every_position(first, arrays, tmp_path, monkeypatch):
    strategy = make_strategy(make_config())
    seen = stop_everywhere(
        "batchnorm", strategy, arrays, tmp_path, monkeypatch, first=first, every=4
    )
    assert len(seen) > 5


@pytest.mark.slow
def test_positions_in_float16(arrays, tmp_path, monkeypatch):
    strategy = make_strategy(make_config())
    assert stop_everywhere("float16", strategy, arrays, tmp_path, monkeypatch, every=9)


@pytest.mark.exhaustive
def test_positions_under_replicas(arrays, tmp_path, monkeypatch):
    assert stop_everywhere("batchnorm", mirrored(2), arrays, tmp_path, monkeypatch, every=8)
