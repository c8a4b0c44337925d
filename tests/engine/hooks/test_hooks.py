"""Hooks see what the loop does; each does at the right moment what it promises."""

import io
import os
import re
import signal
import types
from pathlib import Path

import keras
import numpy as np
import pytest

from gradloop.engine import hooks
from gradloop.engine.hooks import HookInfo
from gradloop.engine.state import Progress, TrainState
from gradloop.engine.storage import checkpoint
from gradloop.engine.storage.writers import MemoryWriter


def _info(num_epochs=3, steps_per_epoch=10, **more):
    progress = Progress(num_epochs=num_epochs, steps_per_epoch=steps_per_epoch)
    state = types.SimpleNamespace(progress=progress, named_variables=list, extras={})
    return HookInfo(state, progress, **more)


def _drive(hook, info, epochs, *, execution_sizes=(4, 4, 2), first_epoch=0):
    """Calls a hook as the loop does: logs within an epoch lag one execution behind.

    `epochs` has the logs of each epoch's end; the loss within an epoch is the number of steps.
    """
    progress = info.progress
    hook.on_train_begin(info)
    for epoch, epoch_logs in enumerate(epochs, first_epoch):
        progress.epoch, progress.step = epoch, 0
        info.logs, info.logs_step = {}, progress.num_steps_completed
        hook.on_epoch_begin(info)
        pending = None
        for size in execution_sizes:
            progress.step += size
            progress.num_steps_completed += size
            if pending is not None:
                info.logs, info.logs_step = pending
            info.execution_steps = size
            pending = ({"loss": progress.num_steps_completed / 8}, progress.num_steps_completed)
            hook.on_execution_end(info)
        info.execution_steps = 0
        info.logs, info.logs_step = epoch_logs, progress.num_steps_completed
        hook.on_epoch_end(info)
        if info.stop_reason:
            break
    hook.on_train_end(info)


class _Terminal(io.StringIO):
    def isatty(self):
        return True


# HookInfo and LambdaHook.


def test_the_first_reason_to_stop_stands_but_a_divergence_outranks_it():
    info = _info()
    assert info.stop_reason is None and not info.has_diverged
    info.request_stop("enough")
    info.request_stop("other")
    assert info.stop_reason == "enough" and not info.has_diverged
    info.request_stop("divergence: loss is nan at step 3")
    info.request_stop("divergence: loss is nan at step 4")
    assert info.stop_reason == "divergence: loss is nan at step 3" and info.has_diverged


def test_lambda_hook_calls_its_functions_and_nothing_else():
    calls = []
    hook = hooks.LambdaHook(
        on_epoch_end=lambda info: calls.append(info.logs["loss"]),
        on_train_end=lambda info: calls.append("end"),
    )
    _drive(hook, _info(), [{"loss": 2.0}, {"loss": 1.0}])
    assert calls == [2.0, 1.0, "end"]


def test_lambda_hook_refuses_an_unknown_name_and_a_value_that_cannot_be_called():
    with pytest.raises(
        ValueError, match=r"'on_epoch_ends'.*on_train_begin.*did you mean on_epoch_e"
    ):
        hooks.LambdaHook(on_epoch_ends=print)
    with pytest.raises(ValueError, match="on_epoch_end must be a function of one argument, not 3"):
        hooks.LambdaHook(on_epoch_end=3)


def test_hook_methods_are_those_of_the_interface():
    methods = [name for name in vars(hooks.Hook) if name.startswith("on_")]
    assert sorted(methods) == sorted(hooks.base.HOOK_METHODS)


# ProgressBar.


def test_without_a_terminal_there_are_plain_lines_and_no_control_characters():
    stream = io.StringIO()
    hook = hooks.ProgressBar(stream=stream, interval_secs=0)
    logs = {"loss": 0.25, "accuracy": 0.5, "val_loss": 0.0000125, "val_accuracy": 1.0}
    _drive(hook, _info(), [logs])
    text = re.sub(r"\d+\.\d s", "T s", stream.getvalue())
    assert text.splitlines() == [
        "Epoch 1/3 - step 4/10 - T s",
        "Epoch 1/3 - step 8/10 - T s - loss: 0.5000",
        "Epoch 1/3 - step 10/10 - T s - loss: 1.0000",
        "Epoch 1/3 - 10 steps - T s - loss: 0.2500 - accuracy: 0.5000 - val_loss: 1.2500e-05"
        " - val_accuracy: 1.0000",
    ]
    assert not re.search(r"[\x00-\x09\x0b-\x1f]", stream.getvalue())


def test_plain_lines_keep_their_interval(monkeypatch):
    clock = types.SimpleNamespace(now=0.0)

    def tick():
        clock.now += 1.5
        return clock.now

    monkeypatch.setattr("gradloop.engine.hooks.progress_bar.time.monotonic", tick)
    stream = io.StringIO()
    hook = hooks.ProgressBar(stream=stream, interval_secs=10)
    _drive(hook, _info(steps_per_epoch=None), [{"loss": 1.0}], execution_sizes=[1] * 20)
    lines = stream.getvalue().splitlines()
    assert 2 <= len(lines[:-1]) <= 3, lines
    assert all(re.match(r"Epoch 1/3 - step \d+ - ", line) for line in lines[:-1])


def test_on_a_terminal_the_bar_gives_way_to_one_line_an_epoch():
    stream = _Terminal()
    hook = hooks.ProgressBar(stream=stream)
    _drive(hook, _info(), [{"loss": 0.5}, {"loss": 0.25}])
    shown = stream.getvalue()
    assert "Epoch 2/3:" in shown and "/10" in shown and "\r" in shown
    lines = [line.rpartition("\r")[2] for line in shown.split("\n") if line.strip()]
    assert [line.partition(" - ")[0] for line in lines] == ["Epoch 1/3", "Epoch 2/3"]
    assert lines[1].endswith("loss: 0.2500")


def test_a_terminal_that_tells_no_width_has_a_bar_too(monkeypatch):
    stream = _Terminal()
    stream.fileno = lambda: 1
    monkeypatch.setattr("os.get_terminal_size", lambda _: os.terminal_size((0, 0)))
    _drive(hooks.ProgressBar(stream=stream), _info(), [{"loss": 0.5}])
    assert "Epoch 1/3:   0%|" in stream.getvalue()


def test_the_bar_is_finished_after_an_exception_and_starts_where_a_run_resumes():
    stream = _Terminal()
    hook, info = hooks.ProgressBar(stream=stream), _info()
    info.progress.step = 6
    hook.on_train_begin(info)
    hook.on_epoch_begin(info)
    assert "6/10" in stream.getvalue()
    info.logs = {}
    hook.on_train_end(info)
    assert re.search(r"\r +\r$", stream.getvalue()), "the bar is still on the screen"


def test_lines_can_go_elsewhere():
    lines = []
    hook = hooks.ProgressBar(stream=io.StringIO(), line=lines.append)
    _drive(hook, _info(), [{"loss": 0.5}])
    assert len(lines) == 1 and lines[0].endswith("loss: 0.5000")


def test_arrays_among_the_logs_are_left_out_of_the_line():
    stream = io.StringIO()
    logs = {"loss": 0.5, "f1": np.zeros(10)}
    _drive(hooks.ProgressBar(stream=stream), _info(), [logs])
    assert stream.getvalue().endswith(" s - loss: 0.5000\n")


def test_a_negative_interval_is_refused():
    with pytest.raises(ValueError, match="interval_secs must be 0 or more, not -1"):
        hooks.ProgressBar(interval_secs=-1)


# EarlyStopping, against Keras's.


def _tiny_model():
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, name="out")])
    model.compile(optimizer="sgd", loss="mse", metrics=["accuracy", "mae"])
    model.evaluate(np.zeros((1, 1)), np.zeros((1, 1)), verbose=0)
    return model


_CURVES = {
    "falls": [1.0, 0.8, 0.6, 0.5, 0.4, 0.3],
    "rises": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6],
    "plateau": [1.0, 0.5, 0.5, 0.5, 0.5, 0.5],
    "bounces": [1.0, 0.7, 0.9, 0.65, 0.8, 0.6],
    "tiny_steps": [1.0, 0.99, 0.98, 0.97, 0.96, 0.95],
    "below_float32": [1.0, 1.0 - 1e-9, 1.0 - 2e-9, 1.0 - 3e-9, 1.0 - 4e-9, 1.0 - 5e-9],
    "nan": [1.0, float("nan"), 0.5, float("nan"), float("nan"), float("nan")],
}
_ARGUMENTS = [
    {},
    {"patience": 1},
    {"patience": 2, "min_delta": 0.05},
    {"patience": 1, "min_delta": -0.015},
    {"patience": 1, "baseline": 0.65},
    {"patience": 1, "start_from_epoch": 2},
    {"patience": 1, "mode": "max"},
    {"patience": 2, "monitor": "val_accuracy", "restore_best_weights": True},
    {"patience": 1, "monitor": "loss", "restore_best_weights": True},
    {"patience": 5, "restore_best_weights": True},
    {"monitor": "val_mae", "start_from_epoch": 1, "restore_best_weights": True},
]


def _run_keras(arguments, values, model):
    callback = keras.callbacks.EarlyStopping(**arguments)
    callback.set_model(model)
    model.stop_training = False
    callback.on_train_begin()
    trace = []
    for epoch, value in enumerate(values):
        model.set_weights([np.full((1, 1), epoch), np.zeros(1)])
        callback.on_epoch_end(epoch, {arguments.get("monitor", "val_loss"): value})
        trace.append((model.stop_training, callback.wait, callback.best, callback.best_epoch))
        if model.stop_training:
            break
    callback.on_train_end()
    return trace, callback.stopped_epoch, float(model.get_weights()[0][0, 0])


def _run_ours(arguments, values, model):
    hook, info = hooks.EarlyStopping(**arguments), _info()
    info.state.model = model
    hook.on_train_begin(info)
    trace = []
    for epoch, value in enumerate(values):
        model.set_weights([np.full((1, 1), epoch), np.zeros(1)])
        info.progress.epoch, info.logs = epoch, {arguments.get("monitor", "val_loss"): value}
        hook.on_epoch_end(info)
        trace.append((info.stop_reason is not None, hook.wait, hook.best, hook.best_epoch))
        if info.stop_reason is not None:
            break
    hook.on_train_end(info)
    return trace, hook.stopped_epoch, float(model.get_weights()[0][0, 0])


def test_early_stopping_does_what_keras_does_epoch_by_epoch():
    model = _tiny_model()
    stops = set()
    for arguments in _ARGUMENTS:
        for name, values in _CURVES.items():
            expected = _run_keras(arguments, values, model)
            assert str(_run_ours(arguments, values, model)) == str(expected), (arguments, name)
            stops.add(expected[1])
    assert len(stops) > 3, "the curves must stop at different epochs, or not at all"


def test_early_stopping_can_be_used_again():
    model = _tiny_model()
    hook = hooks.EarlyStopping(monitor="loss")
    for _ in range(2):
        info = _info()
        info.state.model = model
        _drive(hook, info, [{"loss": 1.0}, {"loss": 2.0}, {"loss": 3.0}])
        assert hook.stopped_epoch == 1
        assert info.stop_reason == (
            "early stopping: loss has not improved on 1 (epoch 1) for 1 epochs"
        )


def test_early_stopping_brings_back_the_weights_of_all_models():
    model, teacher = _tiny_model(), _tiny_model()
    state = TrainState(model, "sgd", loss="mse", extras={"teacher": teacher})
    info = HookInfo(state, state.progress)
    hook = hooks.EarlyStopping(monitor="loss", patience=5, restore_best_weights=True)
    hook.on_train_begin(info)
    for epoch, loss in enumerate([1.0, 0.5, 2.0]):
        for each in (model, teacher):
            each.set_weights([np.full((1, 1), epoch), np.zeros(1)])
        info.progress.epoch, info.logs = epoch, {"loss": loss}
        hook.on_epoch_end(info)
    hook.on_train_end(info)
    assert [each.get_weights()[0].item() for each in (model, teacher)] == [1.0, 1.0]


def test_early_stopping_names_the_keys_there_are():
    info = _info()
    info.state.model = _tiny_model()
    info.logs = {"loss": 1.0, "val_loss": 1.0}
    for monitor in ("acuracy", "val_acuracy"):
        with pytest.raises(ValueError, match=f"monitors '{monitor}', but the logs have loss, val_"):
            hooks.EarlyStopping(monitor).on_epoch_end(info)


def test_early_stopping_waits_for_validation_and_knows_when_there_is_none():
    info = _info()
    info.state.model = _tiny_model()
    hook = hooks.EarlyStopping(patience=1)
    _drive(hook, info, [{"loss": 1.0}, {"loss": 1.0, "val_loss": 2.0}, {"loss": 1.0}])
    assert info.stop_reason is None and hook.best == 2.0 and hook.wait == 0
    info.has_validation = False
    with pytest.raises(ValueError, match="no validation data: pass some, or monitor 'loss'"):
        hook.on_train_begin(info)


def test_early_stopping_asks_for_a_mode_that_it_cannot_infer():
    info = _info()
    info.state.model = _tiny_model()
    info.logs = {"reward": 1.0, "generator_loss": 1.0}
    with pytest.raises(ValueError, match="'reward' is better high or low: pass mode='max'"):
        hooks.EarlyStopping("reward").on_epoch_end(info)
    hooks.EarlyStopping("generator_loss").on_epoch_end(info)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mode": "up"}, "mode must be one of auto, min, max, not 'up'"),
        ({"patience": -1}, "patience must be an integer of 0 or more, not -1"),
        ({"patience": 1.5}, "patience must be an integer of 0 or more, not 1.5"),
        ({"start_from_epoch": -2}, "start_from_epoch must be an integer of 0 or more"),
    ],
)
def test_early_stopping_refuses_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        hooks.EarlyStopping(**arguments)


# StopOnNaN.


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_stop_on_nan_names_loss_and_step(value):
    info = _info(logs={"accuracy": 0.5, "generator_loss": value}, logs_step=7)
    hooks.StopOnNaN().on_execution_end(info)
    assert info.stop_reason == f"divergence: generator_loss is {value} at step 7"


def test_stop_on_nan_looks_at_training_losses_only():
    info = _info(logs={"loss": 1.0, "val_loss": float("nan"), "auc": float("nan")})
    hooks.StopOnNaN().on_execution_end(info)
    hooks.StopOnNaN().on_epoch_end(info)
    assert info.stop_reason is None


# StopOnSignal.


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_asks_to_stop_once_and_the_handlers_come_back(number):
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    info, hook = _info(), hooks.StopOnSignal()
    hook.on_train_begin(info)
    signal.raise_signal(number)
    assert info.stop_reason == hooks.INTERRUPTED and info.stops_now
    # The next one is not caught: a run that hangs can be ended.
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before
    hook.on_train_end(info)
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before


# SaveCheckpoint.


def _saved_info():
    info = _info()
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
    _drive(hook, _saved_info(), [{"loss": 1.0}] * 3)
    assert saved == expected
    assert _names(tmp_path) == sorted({f"ckpt-{n}.npz" for n in expected})


def test_the_newest_checkpoints_are_kept_and_hold_the_state(tmp_path):
    info = _saved_info()
    _drive(hooks.SaveCheckpoint(tmp_path / "new" / "dir", max_to_keep=2), info, [{}] * 3)
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
            info.request_stop("divergence: loss is nan at step 104")
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


# WriteMetrics.


def _records(every_steps):
    writer = MemoryWriter()
    epochs = [{"loss": 9.0, "val_loss": 8.0}, {"loss": 7.0, "val_loss": 6.0}]
    _drive(hooks.WriteMetrics(writer, every_steps=every_steps), _info(), epochs)
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

    info = _info()
    hook = hooks.WriteMetrics(Recorder())
    hook.on_train_begin(info)
    hook.on_train_end(info)
    assert calls == ["close"]


def test_write_metrics_refuses_what_is_no_writer_and_bad_periods():
    with pytest.raises(ValueError, match="writer must be an engine\\.writers\\.Writer"):
        hooks.WriteMetrics("log.csv")
    with pytest.raises(ValueError, match="every_steps must be an integer of 1 or more, not 0"):
        hooks.WriteMetrics(MemoryWriter(), every_steps=0)
