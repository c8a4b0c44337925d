"""WriteMetrics: what is written, and when."""

import pytest

from gradloop.engine import hooks
from gradloop.engine.storage.writers import MemoryWriter
from tests.engine.hooks.runs import drive, make_info


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
