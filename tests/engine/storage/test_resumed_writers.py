"""Files of a run that was killed and resumed have each record once, byte for byte."""

import os
import random

import numpy as np
import pytest
import tensorflow as tf

from gradloop.engine.hooks.base import Media
from gradloop.engine.storage.tensorboard import TensorBoardWriter
from gradloop.engine.storage.writers import (
    CSVWriter,
    JSONLinesWriter,
    MemoryWriter,
    MultiWriter,
    Writer,
)

FILE_WRITERS = [CSVWriter, JSONLinesWriter]
NUM_RECORDS = 30


def write(writer, step):
    """Writes a record; the header of a table widens at steps 4 and 13."""
    logs = {"loss": 1 / step, "f1": np.array([0.1, step])}
    logs |= {"val_loss": 0.1 * step} if step % 4 == 0 else {}
    logs |= {"b": float("nan")} if step > 12 else {}
    writer.write(step, logs, epoch=step // 4, kind="epoch" if step % 4 == 0 else "execution")


def write_all(writer, steps=range(1, NUM_RECORDS + 1)):
    for step in steps:
        write(writer, step)
    writer.close()


@pytest.mark.parametrize("make", FILE_WRITERS)
def test_every_state_brings_back_the_bytes_of_its_moment(tmp_path, make):
    path = tmp_path / "metrics"
    write_all(make(path), [1])  # of an earlier run, which counts too
    writer, moments = make(path), []
    for step in range(2, NUM_RECORDS):
        moments.append((writer.state(), path.read_bytes()))
        write(writer, step)
    writer.close()
    whole = path.read_bytes()
    for state, content in moments:
        path.write_bytes(whole)
        make(path).restore(state)
        assert path.read_bytes() == content
    assert len({content for _, content in moments}) == NUM_RECORDS - 2


@pytest.mark.parametrize("make", FILE_WRITERS)
@pytest.mark.parametrize("seed", range(20))
def test_after_kills_at_random_moments_the_file_is_the_one_of_a_run_without(tmp_path, make, seed):
    chance = random.Random(seed)
    path, expected = tmp_path / "metrics", tmp_path / "expected"
    write_all(make(expected))
    step = saved = 0
    state = make(path).state()
    while step < NUM_RECORDS:
        writer, step = make(path), saved
        writer.restore(state)
        killed_at = min(step + chance.randint(1, 12), NUM_RECORDS)
        while step < killed_at:
            step += 1
            write(writer, step)
            if chance.random() < 0.2:
                state, saved = writer.state(), step
        writer.close()
        if chance.random() < 0.5 and saved < step < NUM_RECORDS:  # The kill tore a line.
            os.truncate(path, path.stat().st_size - 3)
    assert path.read_bytes() == expected.read_bytes()


@pytest.mark.parametrize("make", FILE_WRITERS)
def test_a_writer_that_is_open_or_closed_tells_the_same(tmp_path, make):
    writer = make(tmp_path / "metrics")
    write(writer, 1)
    state = writer.state()
    writer.close()
    assert writer.state() == make(tmp_path / "metrics").state() == state
    assert state["records"] == 1


@pytest.mark.parametrize("make", FILE_WRITERS)
def test_an_open_writer_can_go_back(tmp_path, make):
    writer, expected = make(tmp_path / "metrics"), make(tmp_path / "expected")
    write_all(expected)
    for step in range(1, 4):
        write(writer, step)
    state = writer.state()
    for step in range(4, 9):
        write(writer, step)
    writer.restore(state)
    write_all(writer, range(4, NUM_RECORDS + 1))
    assert writer.path.read_bytes() == expected.path.read_bytes()


@pytest.mark.parametrize("make", FILE_WRITERS)
def test_records_that_are_missing_are_counted_in_a_warning_and_the_rest_is_kept(tmp_path, make):
    path = tmp_path / "metrics"
    write_all(make(path))
    state, whole = make(path).state(), path.read_bytes()
    lines = whole.splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-2]))
    with pytest.warns(UserWarning, match=rf"metrics lacks 2 of the {NUM_RECORDS} records"):
        make(path).restore(state)
    assert path.read_bytes() == b"".join(lines[:-2])
    path.unlink()
    with pytest.warns(UserWarning, match=f"metrics lacks {NUM_RECORDS} of the {NUM_RECORDS}"):
        make(path).restore(state)


@pytest.mark.parametrize("make", FILE_WRITERS)
def test_where_nothing_is_known_the_file_stays(tmp_path, make):
    path = tmp_path / "metrics"
    write_all(make(path))
    content = path.read_bytes()
    make(path).restore({})
    assert path.read_bytes() == content


def test_a_table_that_is_not_one_of_metrics_is_never_cut(tmp_path):
    path = tmp_path / "metrics.csv"
    write_all(CSVWriter(path), [1, 2])
    state = CSVWriter(path).state()
    path.write_text("name,age\nann,3\nbob,4\neve,5\n")
    with pytest.raises(ValueError, match=r"metrics\.csv exists and is not a table of metrics"):
        CSVWriter(path).restore(state)
    assert path.read_text().count("\n") == 4


def test_several_writers_find_their_states_by_kind(tmp_path):
    def make(*kinds):
        return MultiWriter(*(kind(tmp_path / kind.__name__) for kind in kinds))

    writer = make(CSVWriter, JSONLinesWriter)
    write(writer, 1)
    state = writer.state()
    write(writer, 2)
    writer.close()
    make(JSONLinesWriter).restore(state)
    assert len((tmp_path / "JSONLinesWriter").read_text().splitlines()) == 1
    assert len((tmp_path / "CSVWriter").read_text().splitlines()) == 3
    writer = make(JSONLinesWriter, CSVWriter)
    writer.restore(state)
    assert len((tmp_path / "CSVWriter").read_text().splitlines()) == 2


def test_memory_goes_back_and_a_new_one_misses_nothing():
    writer = MemoryWriter()
    write(writer, 1)
    writer.write_media(1, Media("text", "a", "b"))
    state = writer.state()
    write(writer, 2)
    writer.write_media(2, Media("text", "a", "b"))
    writer.restore(state)
    assert [r["step"] for r in writer.records] == [1] == [step for step, _ in writer.media]
    MemoryWriter().restore(state)


def test_a_persons_own_writer_is_flushed_and_needs_no_state():
    class Own(Writer):
        num_flushes = 0

        def write(self, step, logs, *, epoch, kind):
            pass

        def flush(self):
            self.num_flushes += 1

    writer = Own()
    assert writer.state() == {}
    assert writer.num_flushes == 1
    writer.restore({})


def events(directory):
    """Returns tag and step of all events of a folder, file by file."""
    paths = sorted(directory.glob("*.tfevents.*"), key=lambda path: path.stat().st_mtime_ns)
    return [
        (value.tag, event.step)
        for path in paths
        for event in tf.compat.v1.train.summary_iterator(str(path))
        for value in event.summary.value
    ]


def test_tensorboard_has_each_event_once(tmp_path):
    pytest.importorskip("tensorboard")
    foreign = tmp_path / "train" / "notes.txt"
    other = tmp_path / "events.out.tfevents.1.profile-empty"
    state = TensorBoardWriter(tmp_path).state()
    for first in (1, 4, 7):  # Each process gets two records further than what is saved.
        writer = TensorBoardWriter(tmp_path)
        writer.restore(state)
        for step in range(first, first + 3):
            write(writer, step)
        state = writer.state()
        for step in range(first + 3, first + 5):
            write(writer, step)
        writer.flush()
        foreign.write_text("stays")
        other.write_text("stays")
    writer.close()
    writer = TensorBoardWriter(tmp_path)
    writer.restore(state)
    steps = [step for tag, step in events(tmp_path / "train") if tag == "execution_loss"]
    assert steps == [1, 2, 3, 5, 6, 7, 9]
    assert events(tmp_path / "validation") == [("epoch_loss", 1), ("epoch_loss", 2)]
    assert foreign.exists() and other.exists()


def test_tensorboard_warns_of_events_that_are_missing_and_leaves_what_it_does_not_know(tmp_path):
    pytest.importorskip("tensorboard")
    write_all(TensorBoardWriter(tmp_path), [1, 2])
    state = TensorBoardWriter(tmp_path).state()
    before = events(tmp_path / "train")
    TensorBoardWriter(tmp_path).restore({})
    assert events(tmp_path / "train") == before != []
    (path,) = (tmp_path / "train").iterdir()
    os.truncate(path, 60)
    with pytest.warns(UserWarning, match=r"train/events.* had more events when the run was saved"):
        TensorBoardWriter(tmp_path).restore(state)
