"""SaveCheckpoint: a full disk, a thread that writes, a signal that leaves little time."""

import threading
import time

import numpy as np
import pytest

from gradloop import engine, signals
from gradloop.engine.hooks import SaveCheckpoint, StopKind
from gradloop.engine.storage.format import load
from gradloop.engine.storage.snapshot import Snapshot
from tests.engine.hooks.saved_runs import Request, make_state, names, recorded_writes, train


class Disk:
    """Fails for some steps, or waits, before a snapshot is written."""

    def __init__(self, monkeypatch, fails=(), error=None):
        self.fails = set(fails)
        self.error = error or OSError(28, "No space left on device")
        self.may_write = threading.Event()
        self.may_write.set()
        self.threads = set()
        write = Snapshot.write

        def call(snapshot, path):
            self.threads.add(threading.current_thread())
            assert self.may_write.wait(20)
            if snapshot.progress.num_steps_completed in self.fails:
                raise self.error
            write(snapshot, path)

        monkeypatch.setattr(Snapshot, "write", call)


BOTH = pytest.mark.parametrize("asynchronous", [False, True])


@BOTH
def test_a_full_disk_is_one_clear_warning_and_the_next_save_tries_again(
    tmp_path, monkeypatch, asynchronous
):
    Disk(monkeypatch, fails=[15, 20, 25])
    state = make_state()
    hook = SaveCheckpoint(tmp_path, every_steps=5, asynchronous=asynchronous, max_to_keep=9)
    with pytest.warns(UserWarning) as caught:
        train(state, [hook])
    (warning,) = caught
    message = str(warning.message)
    assert f"Cannot save step 15 in {tmp_path}: No space left on device; it takes" in message
    assert "MiB are free. Training goes on, and the next save tries again." in message
    assert f"{tmp_path / 'ckpt-10.npz'} stays" in message
    assert names(tmp_path) == ["ckpt-10.npz", "ckpt-30.npz", "ckpt-5.npz"]
    assert state.progress.num_epochs_completed == 3


@BOTH
def test_a_disk_that_fails_for_good_fails_no_run(tmp_path, monkeypatch, asynchronous):
    Disk(monkeypatch, fails=range(99))
    with pytest.warns(UserWarning, match="There is no checkpoint yet"):
        history = train(make_state(), [SaveCheckpoint(tmp_path, asynchronous=asynchronous)])
    assert len(history.epoch) == 3
    assert names(tmp_path) == []


@BOTH
def test_on_error_stop_ends_the_run_and_keeps_the_last_checkpoint(
    tmp_path, monkeypatch, asynchronous
):
    Disk(monkeypatch, fails=[20])
    hook = SaveCheckpoint(tmp_path, on_error="stop", asynchronous=asynchronous)
    with pytest.raises(
        OSError, match=r"step 20 .*No space left.* Make room, or train with on_error"
    ):
        train(make_state(), [hook])
    assert names(tmp_path) == ["ckpt-10.npz"]


@BOTH
def test_an_error_of_the_last_save_is_told(tmp_path, monkeypatch, asynchronous):
    disk = Disk(monkeypatch, fails=[30])

    def slow_down(info):
        disk.may_write.clear()
        threading.Timer(0.5, disk.may_write.set).start()

    hooks = [Request(28, slow_down), SaveCheckpoint(tmp_path, asynchronous=asynchronous)]
    with pytest.warns(UserWarning, match=r"Cannot save step 30 .*ckpt-20\.npz stays"):
        train(make_state(), hooks)
    hook = SaveCheckpoint(tmp_path / "stop", on_error="stop", asynchronous=asynchronous)
    with pytest.raises(OSError, match="Cannot save step 30"):
        train(make_state(), [hook])


def test_a_directory_that_vanishes_is_made_again_and_one_that_cannot_be_is_said(tmp_path):
    directory = tmp_path / "checkpoints"

    def replace_by_a_file(info):
        for path in directory.iterdir():
            path.unlink()
        directory.rmdir()
        directory.touch()

    hooks = [SaveCheckpoint(directory), Request(12, replace_by_a_file)]
    hooks += [Request(22, lambda info: directory.unlink())]
    with pytest.warns(UserWarning, match=r"Cannot save step 20 .*: cannot write to"):
        train(make_state(), hooks)
    assert names(directory) == ["ckpt-30.npz"]


def test_final_weights_that_cannot_be_written_are_a_warning(tmp_path, monkeypatch):
    state = make_state("sgd")
    state.optimizer.use_ema = True
    write = Snapshot.write

    def fail_for_final(snapshot, path):
        if path.name == "final.npz":
            raise OSError(28, "No space left on device")
        write(snapshot, path)

    monkeypatch.setattr(Snapshot, "write", fail_for_final)
    with pytest.warns(UserWarning, match="cannot write in .*No space left"):
        train(state, [SaveCheckpoint(tmp_path)], epochs=1)
    assert names(tmp_path) == ["ckpt-10.npz"]


def test_an_error_that_is_none_of_the_disk_is_raised(tmp_path):
    class Wrong(engine.Hook):
        def state(self):
            return {"a": object()}

    with pytest.raises(TypeError, match="the state of /hooks/Wrong/a is a object"):
        train(make_state(), [Wrong(), SaveCheckpoint(tmp_path)])


# The thread.


def test_a_thread_writes_the_same_files(tmp_path):
    for asynchronous in (False, True):
        hook = SaveCheckpoint(
            tmp_path / str(asynchronous), every_steps=5, asynchronous=asynchronous, max_to_keep=9
        )
        train(make_state(), [hook])
    ours, theirs = (tmp_path / name for name in ("False", "True"))
    assert names(ours) == names(theirs) and len(names(ours)) == 6
    for name in names(ours):
        assert (ours / name).read_bytes() == (theirs / name).read_bytes(), name


def test_training_goes_on_with_the_next_steps_while_the_thread_writes(tmp_path, monkeypatch):
    disk = Disk(monkeypatch)
    reference = make_state()
    train(reference, [SaveCheckpoint(tmp_path / "reference", every_steps=5)], epochs=1)
    expected = load(tmp_path / "reference" / "ckpt-5.npz").values
    disk.may_write.clear()
    seen = []

    def look(info):
        seen.append(names(tmp_path / "run"))
        disk.may_write.set()

    hook = SaveCheckpoint(
        tmp_path / "run", every_epochs=None, every_steps=5, asynchronous=True, max_to_keep=9
    )
    train(make_state(), [Request(9, look), hook], epochs=1)
    assert seen == [[]]  # step 9 is done, and nothing is a checkpoint before it is durable
    values = load(tmp_path / "run" / "ckpt-5.npz").values
    assert {n: v[0].tobytes() for n, v in values.items()} == {
        n: v[0].tobytes() for n, v in expected.items()
    }
    assert threading.main_thread() in disk.threads and len(disk.threads) == 2


def test_a_second_save_waits_for_the_first_and_the_end_for_all(tmp_path, monkeypatch):
    disk = Disk(monkeypatch)
    disk.may_write.clear()
    timer = threading.Timer(0.5, disk.may_write.set)
    timer.start()
    written = recorded_writes(monkeypatch)
    hook = SaveCheckpoint(tmp_path, every_epochs=None, every_steps=5, asynchronous=True)
    train(make_state(), [hook], epochs=1)
    timer.join()
    assert [position[0] for position in written] == [5, 10, 10]
    assert names(tmp_path) == ["ckpt-10.npz", "ckpt-5.npz"]
    assert not [t for t in threading.enumerate() if t in disk.threads], "the thread is still there"


def test_a_run_that_fails_waits_for_what_is_being_written(tmp_path, monkeypatch):
    disk = Disk(monkeypatch)

    def fail(info):
        threading.Timer(0.2, disk.may_write.set).start()
        raise RuntimeError("test")

    hooks = [SaveCheckpoint(tmp_path, asynchronous=True), Request(12, fail)]
    hooks += [Request(8, lambda info: disk.may_write.clear())]
    with pytest.raises(RuntimeError):
        train(make_state(), hooks)
    assert names(tmp_path) == ["ckpt-10.npz"]


def test_a_thread_knows_the_best_epoch_too(tmp_path, monkeypatch):
    Disk(monkeypatch, fails=[20])
    scores = engine.LambdaHook(
        on_epoch_end=lambda info: info.add("score", -(info.progress.epoch**2))
    )
    hook = SaveCheckpoint(tmp_path, keep_best="score", mode="min", asynchronous=True)
    with pytest.warns(UserWarning, match="Cannot save step 20"):
        train(make_state(), [scores, hook])
    assert load(tmp_path / "best.npz").progress.num_steps_completed == 30
    assert hook.state()["best"] == {"value": -4, "num_steps": 30}


@BOTH
def test_a_save_that_fails_does_not_forget_the_best_epoch(tmp_path, monkeypatch, asynchronous):
    Disk(monkeypatch, fails=[20])
    scores = engine.LambdaHook(on_epoch_end=lambda info: info.add("score", info.progress.epoch))
    hook = SaveCheckpoint(tmp_path, keep_best="score", mode="min", asynchronous=asynchronous)
    with pytest.warns(UserWarning, match="Cannot save step 20"):
        train(make_state(), [scores, hook])
    assert load(tmp_path / "best.npz").progress.num_steps_completed == 10
    assert hook.state()["best"] == {"value": 0, "num_steps": 10}


@BOTH
def test_an_old_checkpoint_that_cannot_be_removed_is_no_failed_save(
    tmp_path, monkeypatch, asynchronous
):
    unlink = type(tmp_path).unlink

    def refuse(path, **options):
        if path.name == "ckpt-10.npz":
            raise PermissionError(1, "Operation not permitted")
        unlink(path, **options)

    monkeypatch.setattr(type(tmp_path), "unlink", refuse)
    hook = SaveCheckpoint(tmp_path, max_to_keep=1, asynchronous=asynchronous, on_error="stop")
    with pytest.warns(UserWarning, match="cannot remove old checkpoints .*not permitted"):
        train(make_state(), [hook])
    assert {"ckpt-10.npz", "ckpt-30.npz"} <= set(names(tmp_path))


# The time that a signal leaves.


@pytest.mark.parametrize(("grace_secs", "is_saved"), [(None, True), (60.0, True), (1.0, False)])
def test_a_save_that_does_not_fit_is_not_begun(tmp_path, monkeypatch, grace_secs, is_saved):
    hook = SaveCheckpoint(tmp_path, grace_secs=grace_secs)

    def interrupt(info):
        now = time.monotonic()
        monkeypatch.setattr(signals, "received_at", lambda: now)
        hook._saves.secs = 5.0  # as of a large model
        info.request_stop("test", kind=StopKind.INTERRUPTED, immediately=True)

    hooks = [Request(14, interrupt), hook]
    if is_saved:
        train(make_state(), hooks)
    else:
        with pytest.warns(
            UserWarning, match=r"Step 14 is not saved: of grace_secs=1, .*ckpt-10\.n"
        ):
            train(make_state(), hooks)
    assert names(tmp_path) == ["ckpt-10.npz", *(["ckpt-14.npz"] if is_saved else [])]


def test_the_first_save_of_a_run_is_always_begun(tmp_path, monkeypatch):
    monkeypatch.setattr(signals, "received_at", lambda: time.monotonic() - 100)
    stop = Request(
        4, lambda info: info.request_stop("t", kind=StopKind.INTERRUPTED, immediately=True)
    )
    train(make_state(), [stop, SaveCheckpoint(tmp_path, grace_secs=1)])
    assert names(tmp_path) == ["ckpt-4.npz"]


def test_copies_take_the_same_memory_again():
    from gradloop.engine.storage.snapshot import capture

    state, buffers = make_state(), {}
    train(state, [], epochs=1)
    first = dict(capture(state).copied(buffers).values)
    before = {name: values[0].copy() for name, values in first.items()}
    train(state, [], epochs=1)
    assert all(np.array_equal(first[name][0], before[name]) for name in first)
    second = dict(capture(state).copied(buffers).values)
    assert all(second[name][0] is first[name][0] for name in first)
