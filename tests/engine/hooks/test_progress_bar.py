"""ProgressBar: a bar on a terminal, plain lines elsewhere."""

import io
import os
import re
import types

import numpy as np
import pytest

from gradloop.engine import hooks
from tests.engine.hooks.runs import drive, make_info


class _Terminal(io.StringIO):
    def isatty(self):
        return True


def test_without_a_terminal_there_are_plain_lines_and_no_control_characters():
    stream = io.StringIO()
    hook = hooks.ProgressBar(stream=stream, interval_secs=0)
    logs = {"loss": 0.25, "accuracy": 0.5, "val_loss": 0.0000125, "val_accuracy": 1.0}
    drive(hook, make_info(), [logs])
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
    drive(hook, make_info(steps_per_epoch=None), [{"loss": 1.0}], execution_sizes=[1] * 20)
    lines = stream.getvalue().splitlines()
    assert 2 <= len(lines[:-1]) <= 3, lines
    assert all(re.match(r"Epoch 1/3 - step \d+ - ", line) for line in lines[:-1])


def test_on_a_terminal_the_bar_gives_way_to_one_line_an_epoch():
    stream = _Terminal()
    hook = hooks.ProgressBar(stream=stream)
    drive(hook, make_info(), [{"loss": 0.5}, {"loss": 0.25}])
    shown = stream.getvalue()
    assert "Epoch 2/3:" in shown and "/10" in shown and "\r" in shown
    lines = [line.rpartition("\r")[2] for line in shown.split("\n") if line.strip()]
    assert [line.partition(" - ")[0] for line in lines] == ["Epoch 1/3", "Epoch 2/3"]
    assert lines[1].endswith("loss: 0.2500")


def test_a_terminal_that_tells_no_width_has_a_bar_too(monkeypatch):
    stream = _Terminal()
    stream.fileno = lambda: 1
    monkeypatch.setattr("os.get_terminal_size", lambda _: os.terminal_size((0, 0)))
    drive(hooks.ProgressBar(stream=stream), make_info(), [{"loss": 0.5}])
    assert "Epoch 1/3:   0%|" in stream.getvalue()


def test_the_bar_is_finished_after_an_exception_and_starts_where_a_run_resumes():
    stream = _Terminal()
    hook, info = hooks.ProgressBar(stream=stream), make_info()
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
    drive(hook, make_info(), [{"loss": 0.5}])
    assert len(lines) == 1 and lines[0].endswith("loss: 0.5000")


def test_arrays_among_the_logs_are_left_out_of_the_line():
    stream = io.StringIO()
    logs = {"loss": 0.5, "f1": np.zeros(10)}
    drive(hooks.ProgressBar(stream=stream), make_info(), [logs])
    assert stream.getvalue().endswith(" s - loss: 0.5000\n")


def test_a_negative_interval_is_refused():
    with pytest.raises(ValueError, match="interval_secs must be 0 or more, not -1"):
        hooks.ProgressBar(interval_secs=-1)


def drive_with_times(monkeypatch, info, hook, traces, secs=(5.0, 1.0, 1.0)):
    """One epoch of executions that take these seconds; each may trace a graph first."""
    clock = types.SimpleNamespace(now=0.0)
    monkeypatch.setattr("gradloop.engine.hooks.bar_text.time.perf_counter", lambda: clock.now)
    function = types.SimpleNamespace(num_traces=0)
    info.state.functions["train"] = function
    hook.on_train_begin(info)
    hook.on_epoch_begin(info)
    for number_secs, has_traced in zip(secs, traces, strict=True):
        clock.now += number_secs
        function.num_traces += has_traced
        info.progress.step += 2
        info.execution_steps = 2
        hook.on_execution_end(info)
    info.logs = {"loss": 0.5}
    hook.on_epoch_end(info)


def test_the_speed_is_in_examples_and_leaves_tracing_out(monkeypatch):
    stream = io.StringIO()
    hook = hooks.ProgressBar(stream=stream, examples_per_step=64)
    drive_with_times(monkeypatch, make_info(), hook, traces=(True, False, False))
    assert " - 128 images/s - loss: 0.5000" in stream.getvalue()  # 2 steps of 64 a second


def test_where_each_execution_traces_there_is_no_speed(monkeypatch):
    stream = io.StringIO()
    hook = hooks.ProgressBar(stream=stream, examples_per_step=64)
    drive_with_times(monkeypatch, make_info(), hook, traces=(True, True, True))
    assert "images/s" not in stream.getvalue()


def test_the_learning_rate_is_shown_once_it_has_changed():
    stream, info = io.StringIO(), make_info()
    rates = iter([0.1, 0.1, 0.05])
    info.state.learning_rate = lambda: next(rates)
    drive(hooks.ProgressBar(stream=stream), info, [{"loss": 0.5}, {"loss": 0.25}])
    first, second = stream.getvalue().splitlines()
    assert "learning_rate" not in first
    assert second.endswith("loss: 0.2500 - learning_rate: 0.05")


def test_on_a_terminal_the_bar_shows_the_speed(monkeypatch):
    stream = _Terminal()
    monkeypatch.setattr("gradloop.engine.hooks.progress_bar.columns_of", lambda stream: 100)

    def update(bar, num_steps):  # at once, however little time has passed
        bar.n += num_steps
        bar.refresh()

    monkeypatch.setattr("tqdm.tqdm.update", update)
    hook = hooks.ProgressBar(stream=stream, examples_per_step=64)
    drive_with_times(monkeypatch, make_info(steps_per_epoch=6), hook, (True, False, False))
    bars = [shown for shown in stream.getvalue().split("\r") if "|" in shown]
    assert "images/s" not in bars[0]
    assert re.search(r"Epoch 1/3: 100%\|.{10,}\| 6/6, 128 images/s, 00:00 left", bars[-1])
