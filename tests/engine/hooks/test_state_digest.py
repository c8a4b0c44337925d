"""StateDigest: what changes a digest and what does not, and the table of a run that is resumed."""

import errno
from pathlib import Path

import keras
import numpy as np
import pytest

from gradloop import engine
from gradloop.engine.hooks.state_digest import digest_of_state
from tests.engine.nets import NUM_BATCHES, make_config, make_pipeline, make_state, mirrored
from tests.engine.observers import StopAfter


def train(path, arrays, *, epochs=2, every_steps=2, stop_after=None, hooks=(), state=None):
    state = state or make_state()
    hooks = [engine.StateDigest(path, every_steps=every_steps), *hooks]
    hooks += [] if stop_after is None else [StopAfter(stop_after)]
    config, resumes = make_config(epochs=epochs), state.progress.num_steps_completed > 0
    engine.fit(state, make_pipeline(arrays), config, hooks=hooks, resume=resumes)
    return state


def steps_of(path):
    return [int(line.split(",")[0]) for line in path.read_text().splitlines()[1:]]


def test_each_multiple_has_a_row_and_equal_runs_have_equal_tables(arrays, tmp_path):
    train(tmp_path / "a.csv", arrays)
    keras.layers.Dense(1)  # Keras names the layers of the next model differently
    train(tmp_path / "b.csv", arrays)
    assert steps_of(tmp_path / "a.csv") == list(range(2, 2 * NUM_BATCHES + 1, 2))
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    digests = [line.split(",")[1] for line in (tmp_path / "a.csv").read_text().splitlines()[1:]]
    assert len(set(digests)) == NUM_BATCHES


@pytest.mark.parametrize("owner", ["model", "optimizer"])
def test_one_bit_changes_the_digest_and_a_metric_does_not(owner, arrays, tmp_path):
    state = train(tmp_path / "digests.csv", arrays, epochs=1)
    before = digest_of_state(state)
    state.reset_metrics()
    assert digest_of_state(state) == before
    name, variable = next(
        (n, v) for n, v in state.named_variables() if n.startswith(owner) and "float" in v.dtype
    )
    bits = np.asarray(variable.numpy()).copy()
    bits.view(np.uint32).flat[0] ^= 1
    variable.assign(bits)
    assert digest_of_state(state) != before, name


def test_replicas_that_differ_are_told_from_those_that_agree():
    def build():
        keras.utils.set_random_seed(1)
        return keras.Sequential([keras.Input([4]), keras.layers.BatchNormalization()])

    def arguments():
        return {"optimizer": "sgd", "loss": "mse"}

    state = make_state(build, arguments, mirrored())
    before = digest_of_state(state)
    second = state.model.layers[0].moving_mean.value.values[1]
    second.assign(second + 1)
    assert digest_of_state(state) != before


@pytest.mark.parametrize("num_steps_more", [0, 2, 5])
def test_a_resumed_run_has_no_row_twice_and_none_missing(num_steps_more, arrays, tmp_path):
    """Saved at step 6, killed `num_steps_more` later, in the middle of a row."""
    train(tmp_path / "whole.csv", arrays)
    path, saved = tmp_path / "killed.csv", tmp_path / "saved"
    first = train(path, arrays, stop_after=6)
    checkpoint = engine.save_checkpoint(saved, first)
    whole = (tmp_path / "whole.csv").read_text()
    rows = whole.splitlines(keepends=True)[: 1 + (6 + num_steps_more) // 2]
    path.write_text("".join(rows) + "12,ab")
    second = make_state()
    second.build(make_pipeline(arrays).element_spec)
    engine.restore_checkpoint(checkpoint, second)
    train(path, arrays, state=second)
    assert path.read_text() == whole


def test_a_run_that_starts_anew_starts_its_table_anew(arrays, tmp_path):
    path = tmp_path / "digests.csv"
    train(path, arrays, epochs=1)
    once = path.read_bytes()
    train(path, arrays, epochs=1)
    assert path.read_bytes() == once


def test_rows_that_are_lost_are_named(tmp_path):
    hook = engine.StateDigest(tmp_path / "digests.csv", every_steps=2)
    with pytest.warns(UserWarning, match="has 0 of the 3 rows"):
        hook.restore({"num_rows": 3, "unwritten": []})


def test_a_rollback_drops_the_rows_of_what_is_done_again(arrays, tmp_path):
    hook = engine.StateDigest(tmp_path / "digests.csv", every_steps=2)
    train(hook.path, arrays, epochs=1)
    hook.restore({"num_rows": 1, "unwritten": []})
    assert steps_of(hook.path) == [2] and hook.state() == {"num_rows": 1, "unwritten": []}


def test_rows_come_later_if_the_disk_is_full(arrays, tmp_path, monkeypatch):
    """The disk takes a whole row and a part of the next; from step 6 on, it has room again."""
    train(tmp_path / "whole.csv", arrays, epochs=1)
    path, room = tmp_path / "full.csv", [True]

    def fill(info):
        room[0] = info.progress.num_steps_completed not in (2, 4)

    def open_for_some(self, mode="r", **options):
        file = open(self, mode, **options)  # noqa: SIM115 - handed on
        if mode == "a" and not room[0]:
            file.write(f"{'' if file.tell() else 'step,sha256' + chr(10)}2,{'a' * 64}\n4,a")
            file.close()
            raise OSError(errno.ENOSPC, "No space left on device")
        return file

    hook = engine.LambdaHook(on_execution_end=fill)
    with monkeypatch.context() as patch, pytest.warns(UserWarning, match="No space left") as seen:
        patch.setattr(Path, "open", open_for_some)
        train(path, arrays, epochs=1, hooks=[hook])
    assert path.read_text() == (tmp_path / "whole.csv").read_text()
    assert len([w for w in seen if "No space" in str(w.message)]) == 1


def test_workers_that_write_nothing_make_no_table(arrays, tmp_path, monkeypatch):
    monkeypatch.setattr(engine.TrainState, "writes", False)
    engine.save_checkpoint(tmp_path, train(tmp_path / "digests.csv", arrays, epochs=1))
    assert not (tmp_path / "digests.csv").exists()


def test_another_table_is_not_overwritten(arrays, tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("name,value\na,1\n")
    with pytest.raises(ValueError, match="is not a table of digests: name another file"):
        train(path, arrays)
    assert path.read_text() == "name,value\na,1\n"


def test_the_period_must_be_an_integer_above_0(tmp_path):
    with pytest.raises(ValueError, match="every_steps must be an integer of 1 or more"):
        engine.StateDigest(tmp_path / "digests.csv", every_steps=0)
