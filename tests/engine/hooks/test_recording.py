"""SaveCheckpoint and WriteMetrics: what is on disk, and when."""

from pathlib import Path

import keras
import pytest

from gradloop.engine import hooks
from gradloop.engine.hooks import StopKind
from gradloop.engine.storage import checkpoint
from gradloop.engine.storage.writers import MemoryWriter
from tests.engine.hooks.runs import drive, make_info


def _saved_info():
    info = make_info()
    variable = keras.Variable(0.0)
    info.state.named_variables = lambda: [("count", variable)]
    return info


def _names(directory):
    return sorted(p.name for p in Path(directory).iterdir())


def _record_saves(monkeypatch):
    saved = []
    save = checkpoint.save
    monkeypatch.setattr(
        checkpoint,
        "save",
        lambda path, state: saved.append(state.progress.num_steps_completed) or save(path, state),
    )
    return saved


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, [10, 20, 30, 30]),
        ({"every_epochs": 2}, [20, 30]),
        ({"every_epochs": None}, [30]),
        # Executions end at 4, 8, 10, 14, 18, 20, 24, 28, 30.
        ({"every_epochs": None, "every_steps": 5}, [8, 10, 18, 20, 28, 30, 30]),
        ({"every_epochs": None, "every_steps": 12}, [14, 24, 30]),
    ],
)
def test_checkpoints_are_saved_in_their_period_and_at_the_end(
    tmp_path, monkeypatch, arguments, expected
):
    saved = _record_saves(monkeypatch)
    hook = hooks.SaveCheckpoint(tmp_path, max_to_keep=99, **arguments)
    drive(hook, _saved_info(), [{"loss": 1.0}] * 3)
    assert saved == expected
    assert _names(tmp_path) == sorted({f"ckpt-{n}.npz" for n in expected})


def test_the_newest_checkpoints_are_kept_and_hold_the_state(tmp_path):
    info = _saved_info()
    drive(hooks.SaveCheckpoint(tmp_path / "new" / "dir", max_to_keep=2), info, [{}] * 3)
    assert _names(tmp_path / "new" / "dir") == ["ckpt-20.npz", "ckpt-30.npz"]
    other = _saved_info()
    checkpoint.restore(tmp_path / "new" / "dir", other.state)
    assert other.progress.num_steps_completed == 30


def test_an_interrupted_run_is_saved_a_diverged_or_unstarted_one_is_not(tmp_path):
    for name in ("interrupted", "diverged", "unstarted"):
        hook, info = hooks.SaveCheckpoint(tmp_path / name), _saved_info()
        info.progress.num_steps_completed = 100
        hook.on_train_begin(info)
        info.progress.num_steps_completed += 5 if name != "unstarted" else 0
        if name == "diverged":
            info.request_stop("divergence: loss is nan at step 104", kind=StopKind.DIVERGED)
            hook.on_epoch_end(info)
        hook.on_train_end(info)
    assert _names(tmp_path / "interrupted") == ["ckpt-105.npz"]
    assert _names(tmp_path / "diverged") == _names(tmp_path / "unstarted") == []


@pytest.mark.parametrize("name", ["every_epochs", "every_steps", "max_to_keep"])
@pytest.mark.parametrize("value", [0, -1, 2.5, True])
def test_bad_periods_are_refused(tmp_path, name, value):
    with pytest.raises(ValueError, match=f"{name} must be an integer of 1 or more, not {value}"):
        hooks.SaveCheckpoint(tmp_path, **{name: value})


def test_a_directory_that_cannot_be_written_is_refused_before_training(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="cannot write to"):
        hooks.SaveCheckpoint(tmp_path / "file" / "checkpoints")


def _records(every_steps):
    writer = MemoryWriter()
    epochs = [{"loss": 9.0, "val_loss": 8.0}, {"loss": 7.0, "val_loss": 6.0}]
    drive(hooks.WriteMetrics(writer, every_steps=every_steps), make_info(), epochs)
    return [(r["kind"], r["step"], r["epoch"], r["loss"]) for r in writer.records]


def test_logs_are_written_with_the_step_that_they_belong_to():
    assert _records(None) == [
        ("execution", 4, 0, 0.5),
        ("execution", 8, 0, 1.0),
        ("epoch", 10, 0, 9.0),
        ("execution", 14, 1, 1.75),
        ("execution", 18, 1, 2.25),
        ("epoch", 20, 1, 7.0),
    ]


def test_a_period_thins_the_training_logs_and_not_the_epochs():
    assert [r[:2] for r in _records(8)] == [
        ("execution", 8),
        ("epoch", 10),
        ("execution", 18),
        ("epoch", 20),
    ]


def test_the_writer_is_closed_at_the_end_also_without_logs():
    calls = []

    class Recorder(MemoryWriter):
        def close(self):
            calls.append("close")

    info = make_info()
    hook = hooks.WriteMetrics(Recorder())
    hook.on_train_begin(info)
    hook.on_train_end(info)
    assert calls == ["close"]


def test_write_metrics_refuses_what_is_no_writer_and_bad_periods():
    with pytest.raises(ValueError, match="writer must be an engine\\.storage\\.writers\\.Writer"):
        hooks.WriteMetrics("log.csv")
    with pytest.raises(ValueError, match="every_steps must be an integer of 1 or more, not 0"):
        hooks.WriteMetrics(MemoryWriter(), every_steps=0)
