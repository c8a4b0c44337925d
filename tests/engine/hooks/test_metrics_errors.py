"""WriteMetrics where its files cannot be written: the run ends, or the numbers come later."""

import pytest

from gradloop import engine
from gradloop.engine.storage.writers import CSVWriter, JSONLinesWriter, MemoryWriter, MultiWriter
from tests.engine.nets import make_config, make_pipeline, make_tiny


class Full(engine.Hook):
    """Moves the folder away in the middle of the second epoch, and back in that of the third."""

    def __init__(self, folder):
        self.folder, self.away = folder, folder.with_name("away")

    def on_epoch_begin(self, info):
        if info.progress.epoch == 1:
            self.folder.rename(self.away)
        if info.progress.epoch == 2:
            self.away.rename(self.folder)


def train(arrays, folder, on_error, *hooks):
    writers = [CSVWriter(folder / "m.csv"), JSONLinesWriter(folder / "m.jsonl")]
    hook = engine.WriteMetrics(MultiWriter(*writers), every_steps=3, on_error=on_error)
    # Closed, as a file on a network that fails: an open file moves with its folder.
    close = engine.LambdaHook(on_epoch_end=lambda info: [writer.close() for writer in writers])
    config = make_config(epochs=4)
    hooks = [*hooks, hook, close]
    history = engine.fit(make_tiny(), make_pipeline(arrays), config, hooks=hooks)
    return history, [(folder / name).read_bytes() for name in ("m.csv", "m.jsonl")]


def test_training_goes_on_and_afterwards_each_record_is_there(arrays, tmp_path):
    expected = train(arrays, tmp_path / "whole", "continue")
    folder = tmp_path / "run"
    with pytest.warns(UserWarning, match=r"cannot write to .*run/m.*: No such file") as caught:
        history, files = train(arrays, folder, "continue", Full(folder))
    assert len(caught) == 2  # one for each file
    assert history.history == expected[0].history
    assert files == expected[1]
    assert b"\n9,1,execution," in files[0]


def test_by_default_the_error_ends_the_run(arrays, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"run/m\.csv|run"):
        train(arrays, tmp_path / "run", "stop", Full(tmp_path / "run"))


def test_another_word_is_refused():
    with pytest.raises(ValueError, match="on_error must be one of stop, continue, not 'ignore'"):
        engine.WriteMetrics(MemoryWriter(), on_error="ignore")
