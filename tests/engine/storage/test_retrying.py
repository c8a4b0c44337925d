"""A disk that is full, or a folder that is gone, ends no run; afterwards each record is there."""

import contextlib
import errno
import resource

import pytest
import tensorflow as tf

from gradloop.engine.hooks.base import Media
from gradloop.engine.storage import retrying as module
from gradloop.engine.storage.retrying import retrying
from gradloop.engine.storage.tensorboard import TensorBoardWriter
from gradloop.engine.storage.writers import (
    CSVWriter,
    JSONLinesWriter,
    MemoryWriter,
    MultiWriter,
    Writer,
)

FILE_WRITERS = [CSVWriter, JSONLinesWriter]


@contextlib.contextmanager
def full_disk(num_bytes):
    """Lets no file grow beyond a size, where writing it takes a part of a line and then fails."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def write(writer, *steps):
    for step in steps:
        logs = {"loss": 1 / step} | ({"val_loss": 0.5} if step > 4 else {})
        writer.write(step, logs, epoch=0, kind="execution")


def undisturbed(make, path, *steps):
    writer = make(path)
    write(writer, *steps)
    writer.close()
    return path.read_bytes()


@pytest.mark.parametrize("make", FILE_WRITERS)
@pytest.mark.parametrize("room", [0, 1, 10, 45])
@pytest.mark.parametrize("flushes", [False, True])
def test_records_come_when_the_disk_has_room_again(tmp_path, make, room, flushes):
    expected = undisturbed(make, tmp_path / "expected", *range(1, 9))
    path = tmp_path / "metrics"
    writer = retrying(make(path))
    write(writer, 1, 2)
    if flushes:
        writer.flush()
    size = path.stat().st_size
    with pytest.warns(match=r"cannot write to .*metrics: File too large\."), full_disk(size + room):
        write(writer, 3, 4, 5, 6)
        writer.flush()
    write(writer, 7)
    assert len(path.read_bytes().splitlines()) == 7 + (make is CSVWriter)
    write(writer, 8)
    writer.close()
    assert path.read_bytes() == expected


def test_a_folder_that_is_gone_and_comes_back_is_warned_of_once_each_time(tmp_path):
    folder, away = tmp_path / "run", tmp_path / "away"
    expected = undisturbed(CSVWriter, tmp_path / "expected", *range(1, 9))
    writer = retrying(CSVWriter(folder / "metrics"))
    write(writer, 1)
    for step in (2, 5):
        writer.close()  # Else its open file is written wherever the folder is.
        folder.rename(away)
        with pytest.warns(UserWarning, match="cannot write to .*metrics: No such file") as caught:
            write(writer, step, step + 1)
        assert len(caught) == 1
        away.rename(folder)
        write(writer, step + 2)
    write(writer, 8)
    writer.close()
    assert (folder / "metrics").read_bytes() == expected


def test_of_several_writers_the_others_go_on_and_get_nothing_twice(tmp_path):
    memory = MemoryWriter()
    writer = retrying(MultiWriter(memory, CSVWriter(tmp_path / "metrics")))
    write(writer, 1)
    size = (tmp_path / "metrics").stat().st_size
    with pytest.warns(UserWarning, match="cannot write to .*metrics"), full_disk(size):
        write(writer, 2)
        assert [record["step"] for record in memory.records] == [1, 2]
    write(writer, 3)
    writer.close()
    assert [record["step"] for record in memory.records] == [1, 2, 3]


@pytest.mark.parametrize("make", FILE_WRITERS)
def test_a_run_that_is_saved_meanwhile_is_resumed_with_all_records(tmp_path, make):
    expected = undisturbed(make, tmp_path / "expected", *range(1, 9))
    path = tmp_path / "metrics"
    writer = retrying(make(path))
    write(writer, 1, 2)
    with pytest.warns(UserWarning, match="cannot write"), full_disk(path.stat().st_size + 5):
        write(writer, 3, 4, 5)
        state = writer.state()
    write(writer, 6, 7)  # after the save: the run that is resumed writes them again
    writer.close()
    with pytest.warns(UserWarning, match="cannot write"), full_disk(60):
        writer = retrying(make(path))
        writer.restore(state)  # There is no room yet.
    write(writer, 6, 7, 8)
    writer.close()
    assert path.read_bytes() == expected


def test_a_run_that_goes_back_writes_on_from_there(tmp_path):
    expected = undisturbed(CSVWriter, tmp_path / "expected", *range(1, 9))
    writer = retrying(CSVWriter(tmp_path / "metrics"))
    write(writer, 1, 2, 3)
    state = writer.state()
    assert "kept" not in state
    write(writer, 4, 5, 6)
    writer.restore(state)
    write(writer, *range(4, 9))
    writer.close()
    assert (tmp_path / "metrics").read_bytes() == expected


def test_the_oldest_records_are_lost_where_there_are_too_many_and_it_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_KEPT", 3)
    path = tmp_path / "metrics"
    writer = retrying(JSONLinesWriter(path))
    write(writer, 1)
    writer.flush()
    with pytest.warns(match="Up to 3 records are kept"), full_disk(path.stat().st_size):
        write(writer, 2, 3, 4, 5, 6)
    with pytest.warns(UserWarning, match="can be written again, and lacks 2 records"):
        write(writer, 7)
    writer.close()
    steps = [line.split(",")[0] for line in path.read_text().splitlines()]
    assert steps == [f'{{"step": {step}' for step in (1, 4, 5, 6, 7)]


def test_what_is_never_written_is_counted_at_the_end(tmp_path):
    path = tmp_path / "metrics"
    writer = retrying(CSVWriter(path))
    write(writer, 1)
    writer.flush()
    with pytest.warns(UserWarning) as caught, full_disk(path.stat().st_size):
        write(writer, 2, 3)
        writer.close()
    first, second = (str(warning.message) for warning in caught)
    assert "metrics: File too large" in first
    assert "metrics lacks the last 2 records" in second


def test_only_errors_of_the_system_are_survived(tmp_path):
    with pytest.raises(ValueError, match="may not be named 'step'"):
        retrying(MemoryWriter()).write(1, {"step": 1.0}, epoch=0, kind="execution")


def test_a_writer_without_a_state_gets_again_only_what_failed():
    class Own(Writer):
        def __init__(self):
            self.steps, self.is_full = [], False

        def write(self, step, logs, *, epoch, kind):
            if self.is_full:
                raise OSError(errno.ENOSPC, "No space left on device")
            self.steps.append(step)

    own = Own()
    writer = retrying(own)
    write(writer, 1, 2)
    own.is_full = True
    with pytest.warns(UserWarning, match="cannot write to Own: No space left on device"):
        write(writer, 3, 4)
    own.is_full = False
    write(writer, 5)
    assert own.steps == [1, 2, 3, 4, 5]


def test_tensorboard_has_each_event_once_after_a_full_disk(tmp_path):
    pytest.importorskip("tensorboard")
    writer = retrying(TensorBoardWriter(tmp_path))
    write(writer, 1)
    writer.flush()
    (path,) = (tmp_path / "train").iterdir()
    size = path.stat().st_size + 20
    with pytest.warns(match="cannot write to .*File too large"), full_disk(size):
        write(writer, *range(2, 40))
        assert writer.write_media(40, Media("text", "said", "lost"))
        writer.flush()
    write(writer, 40)
    writer.close()
    steps = [
        event.step
        for path in sorted((tmp_path / "train").iterdir())
        for event in tf.compat.v1.train.summary_iterator(str(path))
        if event.summary.value
    ]
    assert sorted(steps) == list(range(1, 41))
