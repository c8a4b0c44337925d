"""SaveCheckpoint: which checkpoints a run leaves, and when they are written."""

import time
import types

import keras
import numpy as np
import pytest

from gradloop import engine, signals
from gradloop.engine.hooks import SaveCheckpoint, StopKind
from gradloop.engine.storage.checkpoint_folder import CheckpointFolder
from gradloop.engine.storage.format import load
from tests.engine.hooks.saved_runs import (
    Request,
    make_state,
    names,
    recorded_writes,
    resume,
    train,
)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, [(10, 1), (20, 2), (30, 3)]),
        ({"every_epochs": 2}, [(20, 2), (30, 3)]),
        ({"every_epochs": None}, [(30, 3)]),
        ({"every_epochs": None, "every_steps": 12}, [(12, 1), (24, 2), (30, 3)]),
        # Step 10 is saved before and after the end of its epoch: these are two states.
        (
            {"every_steps": 5},
            [(5, 0), (10, 0), (10, 1), (15, 1), (20, 1), (20, 2), (25, 2), (30, 2), (30, 3)],
        ),
    ],
)
def test_each_state_is_saved_once_in_its_period_and_at_the_end(
    tmp_path, monkeypatch, arguments, expected
):
    written = recorded_writes(monkeypatch)
    train(make_state(), [SaveCheckpoint(tmp_path, max_to_keep=99, **arguments)])
    assert written == expected
    assert names(tmp_path) == sorted({f"ckpt-{position[0]}.npz" for position in expected})


def test_a_period_in_seconds_counts_wall_time(tmp_path, monkeypatch):
    clock = types.SimpleNamespace(now=0.0, monotonic=lambda: clock.now)
    monkeypatch.setattr("gradloop.engine.hooks.saving.time", clock)
    written = recorded_writes(monkeypatch)
    # Executions end at 4, 8, 10, 14, ...
    tick = engine.LambdaHook(on_execution_end=lambda _: setattr(clock, "now", clock.now + 1))
    hook = SaveCheckpoint(tmp_path, every_epochs=None, every_secs=3.5)
    train(make_state(), [tick, hook])
    assert written == [(14, 1), (28, 2), (30, 3)]


def test_the_newest_checkpoints_are_kept_and_hold_the_state(tmp_path):
    directory = tmp_path / "new" / "dir"
    state = make_state()
    train(state, [SaveCheckpoint(directory, max_to_keep=2)])
    assert names(directory) == ["ckpt-20.npz", "ckpt-30.npz"]
    other = resume(directory, [])
    assert other.progress.num_steps_completed == 30
    assert other.weights_sha256() == state.weights_sha256()


def _stop(kind, **options):
    return lambda info: info.request_stop("test", kind=kind, **options)


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        (_stop(StopKind.INTERRUPTED, immediately=True), ["ckpt-14.npz"]),
        (_stop(StopKind.REQUESTED), ["ckpt-14.npz"]),
        (_stop(StopKind.DIVERGED), []),
        (_stop(StopKind.DIVERGED, immediately=True), []),
    ],
)
def test_the_end_is_saved_unless_the_run_diverged(tmp_path, action, expected):
    train(make_state(), [Request(14, action), SaveCheckpoint(tmp_path, every_epochs=None)])
    assert names(tmp_path) == expected


def test_a_run_that_fails_or_does_nothing_is_not_saved(tmp_path):
    def fail(info):
        raise RuntimeError("test")

    with pytest.raises(RuntimeError):
        train(make_state(), [Request(14, fail), SaveCheckpoint(tmp_path)])
    assert names(tmp_path) == ["ckpt-10.npz"]
    stopped = engine.LambdaHook(
        on_train_begin=lambda info: info.request_stop("test", immediately=True)
    )
    train(make_state(), [stopped, SaveCheckpoint(tmp_path / "none")])
    assert names(tmp_path / "none") == []


def test_a_run_that_goes_on_writes_nothing_twice(tmp_path, monkeypatch):
    train(make_state(), [SaveCheckpoint(tmp_path)], epochs=2)
    written = recorded_writes(monkeypatch)
    resume(tmp_path, [SaveCheckpoint(tmp_path)], epochs=2)
    assert written == []
    resume(tmp_path, [SaveCheckpoint(tmp_path)], epochs=3)
    assert written == [(30, 3)]


def test_a_directory_of_a_run_that_went_further_is_refused(tmp_path):
    train(make_state(), [SaveCheckpoint(tmp_path)], epochs=1)
    with pytest.raises(ValueError, match=r"ckpt-10\.npz is from a run that went further"):
        train(make_state(), [SaveCheckpoint(tmp_path)], epochs=1)
    (tmp_path / "ckpt-10.npz").write_bytes(b"damaged")
    train(make_state(), [SaveCheckpoint(tmp_path)], epochs=1)
    assert names(tmp_path) == ["ckpt-10.npz", "quarantine"]


def test_a_state_that_is_not_finite_is_never_saved(tmp_path):
    def poison(info):
        info.state.model.layers[0].bias.assign([np.nan])

    hooks = [SaveCheckpoint(tmp_path, every_steps=5), Request(12, poison)]
    with pytest.warns(UserWarning) as caught:
        train(make_state(), hooks)
    (warning,) = caught  # one for all saves that fail alike
    message = str(warning.message)
    assert "Step 15 is not saved: model/sequential/dense/kernel has values that are not" in message
    assert "ckpt-10.npz stays" in message
    assert names(tmp_path) == ["ckpt-10.npz", "ckpt-5.npz"]


def test_optimizer_slots_must_be_finite_and_metrics_need_not(tmp_path):
    def poison(word):
        def assign(info):
            variable = next(v for n, v in info.state.named_variables() if word in n)
            variable.assign(variable * 0 + np.inf)

        return assign

    state = make_state(metrics=[keras.metrics.AUC(num_thresholds=3, from_logits=True)])
    saving = SaveCheckpoint(tmp_path, every_steps=2, max_to_keep=9)
    with pytest.warns(UserWarning, match="Step 6 is not saved: optimizer/adam/.*kernel_velocity"):
        train(
            state, [Request(4, poison("true_pos")), Request(6, poison("velocity")), saving],
            epochs=1,
        )  # fmt: skip
    assert names(tmp_path) == ["ckpt-2.npz", "ckpt-4.npz"]


@pytest.mark.parametrize("name", ["every_epochs", "every_steps", "max_to_keep"])
@pytest.mark.parametrize("value", [0, -1, 2.5, True])
def test_bad_periods_are_refused(tmp_path, name, value):
    with pytest.raises(ValueError, match=f"{name} must be an integer of 1 or more, not {value}"):
        SaveCheckpoint(tmp_path, **{name: value})


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"every_secs": 0}, "every_secs must be a number of seconds above 0, not 0"),
        ({"every_secs": True}, "every_secs must be"),
        ({"grace_secs": float("inf")}, "grace_secs must be a number of seconds above 0, not inf"),
        ({"on_error": "ignore"}, "on_error must be 'continue' or 'stop', not 'ignore'"),
        ({"mode": "best"}, "mode must be one of auto, min, max, not 'best'"),
    ],
)
def test_bad_settings_are_refused(tmp_path, arguments, words):
    with pytest.raises(ValueError, match=words):
        SaveCheckpoint(tmp_path, **arguments)


def test_a_directory_that_cannot_be_written_is_refused_before_training(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="cannot write to"):
        SaveCheckpoint(tmp_path / "file" / "checkpoints")


def test_history_and_hooks_are_in_the_file(tmp_path):
    train(make_state(), [engine.EarlyStopping("loss", patience=9), SaveCheckpoint(tmp_path)])
    tree = load(tmp_path / "ckpt-30.npz").tree
    assert len(tree["history"]["history"]["loss"]) == 3
    assert tree["hooks"]["EarlyStopping"]["best"] == min(tree["history"]["history"]["loss"])


def test_a_newest_file_that_cannot_be_read_ends_no_run(tmp_path, monkeypatch):
    def fail(self):
        raise engine.CheckpointError("cannot read it: Input/output error.")

    hook = SaveCheckpoint(tmp_path, grace_secs=1.0)

    def interrupt(info):
        monkeypatch.setattr(signals, "received_at", time.monotonic)
        monkeypatch.setattr(CheckpointFolder, "newest", fail)
        hook._saves.secs = 5.0
        info.request_stop("test", kind=StopKind.INTERRUPTED, immediately=True)

    with pytest.warns(UserWarning, match=r"Step 14 is not saved: .* cannot read it"):
        train(make_state(), [Request(14, interrupt), hook])
