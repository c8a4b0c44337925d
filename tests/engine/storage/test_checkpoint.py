"""A checkpoint gives back every bit, or says why it cannot; a kill never costs the old one."""

import dataclasses
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradloop.engine.state import Progress, TrainState
from gradloop.engine.storage import checkpoint
from gradloop.engine.storage.checkpoint import CheckpointError


@dataclasses.dataclass
class FakeState:
    """As much of TrainState as a checkpoint sees."""

    variables: dict
    progress: Progress = dataclasses.field(default_factory=Progress)

    def named_variables(self):
        return list(self.variables.items())


def _fake(num_steps=0, **values):
    variables = {name: keras.Variable(value, dtype=value.dtype) for name, value in values.items()}
    return FakeState(variables, Progress(num_steps_completed=num_steps))


def _bytes(state):
    return {
        name: [value.tobytes() for value in checkpoint.local_values(variable)]
        for name, variable in state.named_variables()
    }


def _model():
    return keras.Sequential(
        [
            keras.Input((3,), name="x"),
            keras.layers.Dense(4, name="hidden"),
            keras.layers.BatchNormalization(name="norm"),
            keras.layers.Dropout(0.5, name="dropout"),
            keras.layers.Dense(1, name="out"),
        ],
        name="net",
    )


def _train_state(units_seed=0):
    keras.utils.clear_session()
    keras.utils.set_random_seed(units_seed)
    state = TrainState(_model(), keras.optimizers.Adam(), loss="mse", metrics=["mae"])
    spec = (tf.TensorSpec((None, 3)), tf.TensorSpec((None, 1)))
    state.build(spec)
    return state


def _step(state, x, y):
    with tf.GradientTape() as tape:
        loss = state.compute_loss(x, y, state.model(x, training=True))
    state.apply_gradients(tape.gradient(loss, state.model.trainable_variables))


def test_every_variable_and_the_progress_come_back_bit_for_bit(tmp_path):
    state = _train_state()
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(8, 3)).astype("float32"), rng.normal(size=(8, 1)).astype("float32")
    for _ in range(3):
        _step(state, x, y)
    state.progress.num_steps_completed, state.progress.epoch, state.progress.step = 3, 1, 2
    path = checkpoint.save(tmp_path, state)
    assert path == tmp_path / "ckpt-3.npz"
    other = _train_state(units_seed=1)
    assert _bytes(other) != _bytes(state)
    assert checkpoint.restore(path, other) == path
    assert _bytes(other) == _bytes(state)
    assert other.progress == state.progress
    # Dropout draws the same mask, Adam takes the same step: the state of both came along.
    _step(state, x, y)
    _step(other, x, y)
    assert _bytes(other) == _bytes(state)


def test_the_states_of_seed_generators_are_in_the_file(tmp_path):
    state = _train_state()
    values = checkpoint.load(checkpoint.save(tmp_path, state)).values
    assert any("seed_generator_state" in name for name in values)
    assert set(values) == {name for name, _ in state.named_variables()}


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64", "int64", "uint8", "bool"])
def test_dtypes_and_scalars_survive(tmp_path, dtype):
    numpy_dtype = tf.as_dtype(dtype).as_numpy_dtype
    state = _fake(a=np.arange(6).reshape(2, 3).astype(numpy_dtype), b=np.array(1, numpy_dtype))
    other = _fake(a=np.zeros((2, 3), numpy_dtype), b=np.array(0, numpy_dtype))
    checkpoint.restore(checkpoint.save(tmp_path, state), other)
    assert _bytes(other) == _bytes(state)


def test_nan_minus_zero_and_awkward_names_survive(tmp_path):
    name = "model/Größe.0/kernel:0#2"
    values = np.array([np.nan, -0.0, np.inf, 1e-45], "float32")
    state, other = _fake(**{name: values, "file": values}), _fake(**{name: values, "file": values})
    for variable in other.variables.values():
        variable.assign(np.zeros(4))
    checkpoint.restore(checkpoint.save(tmp_path, state), other)
    assert _bytes(other) == _bytes(state)


# Replicas.


def _mirrored_state(num_replicas):
    strategy = tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(num_replicas)])
    with strategy.scope():
        variables = {"mean": keras.Variable(np.zeros(2, "float32"), name="mean")}
        variables["kernel"] = keras.Variable(np.ones(2, "float32"), name="kernel")
        metric = keras.metrics.Mean()
    variables["total"] = metric.total
    return FakeState(variables)


def _drift(state):
    for name in ("mean", "total"):
        for index, copy in enumerate(state.variables[name].value.values):
            copy.assign(tf.fill(copy.shape, float(index + 1)))


def test_local_values_gives_one_array_where_replicas_agree_and_all_where_they_differ():
    state = _mirrored_state(2)
    _drift(state)
    kernel, mean = (checkpoint.local_values(state.variables[n]) for n in ("kernel", "mean"))
    assert [v.tolist() for v in kernel] == [[1, 1]]
    assert [v.tolist() for v in mean] == [[1, 1], [2, 2]]
    # What reading the variables themselves would have saved.
    assert state.variables["mean"].numpy().tolist() == [1, 1]
    assert float(state.variables["total"].numpy()) == 3


def test_values_of_each_replica_come_back(tmp_path):
    state, other = _mirrored_state(2), _mirrored_state(2)
    _drift(state)
    checkpoint.restore(checkpoint.save(tmp_path, state), other)
    assert _bytes(other) == _bytes(state)
    assert len(_bytes(other)["mean"]) == len(_bytes(other)["total"]) == 2


def test_another_number_of_replicas_takes_what_there_is_and_replica_0_for_the_rest(tmp_path):
    two, three, one = _mirrored_state(2), _mirrored_state(3), _mirrored_state(1)
    _drift(two)
    path = checkpoint.save(tmp_path, two)
    checkpoint.restore(path, three)
    checkpoint.restore(path, one)
    means = [v.tolist() for v in checkpoint.local_values(three.variables["mean"])]
    assert means == [[1, 1], [2, 2], [1, 1]]
    assert [v.tolist() for v in checkpoint.local_values(one.variables["mean"])] == [[1, 1]]


def test_replicas_become_one_variable_and_back(tmp_path):
    mirrored = _mirrored_state(2)
    _drift(mirrored)
    plain = _fake(mean=np.zeros(2, "f4"), kernel=np.zeros(2, "f4"), total=np.zeros((), "f4"))
    checkpoint.restore(checkpoint.save(tmp_path, mirrored), plain)
    assert plain.variables["mean"].numpy().tolist() == [1, 1]
    again = _mirrored_state(2)
    _drift(again)
    checkpoint.restore(checkpoint.save(tmp_path / "plain", plain), again)
    assert [v.tolist() for v in checkpoint.local_values(again.variables["mean"])] == [[1, 1]]


# Another model.


def _message(path, state):
    before = _bytes(state)
    with pytest.raises(CheckpointError) as caught:
        checkpoint.restore(path, state)
    assert _bytes(state) == before, "something was assigned before all was verified"
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_another_model_is_refused_with_the_variables_that_differ(tmp_path):
    ones = np.ones((2, 3), "float32")
    path = checkpoint.save(tmp_path, _fake(a=ones, b=ones, c=ones, d=ones))
    zeros = np.zeros((2, 3), "float32")
    message = _message(path, _fake(a=zeros, b=zeros[:1], c=zeros.astype("float16"), e=zeros))
    assert "missing in the file: e;" in message
    assert "only in the file: d;" in message
    assert "another shape: b ((2, 3), here (1, 3));" in message
    assert "another dtype: c (float32, here float16)" in message
    assert str(path) in message


def test_many_differences_are_counted_not_listed(tmp_path):
    path = checkpoint.save(tmp_path, _fake(**{f"v{i}": np.ones(1) for i in range(9)}))
    assert "only in the file: v0, v1, v2 and 6 more" in _message(path, _fake(w=np.ones(1)))


# Damage.


def test_truncated_garbage_missing_and_pickled_files_are_named(tmp_path):
    state = _fake(a=np.arange(100, dtype="float32"))
    good = checkpoint.save(tmp_path, state).read_bytes()
    bad = tmp_path / "bad.npz"
    for content in (b"", b"garbage" * 50, good[: len(good) // 2], good[:-1]):
        bad.write_bytes(content)
        assert str(bad) in _message(bad, state)
    np.savez(bad, metadata=np.array([{"format": 1}], dtype=object))
    assert "allow_pickle=False" in _message(bad, state)
    np.savez(bad, weights=np.ones(3))
    assert "metadata" in _message(bad, state)
    assert "there is no checkpoint" in _message(tmp_path / "none.npz", state)


def test_a_flipped_bit_is_found_or_does_no_harm(tmp_path):
    state = _fake(a=np.arange(50, dtype="float32"), b=np.ones((), "int64"))
    path = checkpoint.save(tmp_path, state)
    good = path.read_bytes()
    expected = checkpoint.load(path)
    rng = random.Random(0)
    num_found = 0
    for _ in range(400):
        content = bytearray(good)
        content[rng.randrange(len(good))] ^= 1 << rng.randrange(8)
        path.write_bytes(content)
        try:
            loaded = checkpoint.load(path)
        except CheckpointError:
            num_found += 1
        else:  # A time stamp or the like.
            assert loaded.progress == expected.progress
            assert _arrays(loaded) == _arrays(expected)
    assert num_found > 200


def _arrays(loaded):
    return {name: [v.tobytes() for v in values] for name, values in loaded.values.items()}


def test_the_digest_catches_an_array_that_was_replaced(tmp_path):
    path = checkpoint.save(tmp_path, _fake(a=np.ones(3, "float32")))
    with np.load(path) as file:
        arrays = dict(file)
    arrays["replica0/a"] = np.full(3, 2, "float32")
    np.savez(path, **arrays)
    with pytest.raises(CheckpointError, match="other bytes in a"):
        checkpoint.load(path)


def test_a_format_of_the_future_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "FORMAT", 2)
    path = checkpoint.save(tmp_path, _fake(a=np.ones(3)))
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match="has format 2; this version reads format 1"):
        checkpoint.load(path)


# Which one, and how many.


def test_latest_skips_damaged_files_and_says_so(tmp_path, capsys):
    assert checkpoint.latest(tmp_path / "none") is None
    for num_steps in (9, 10, 100):
        checkpoint.save(tmp_path, _fake(num_steps, a=np.full(3, num_steps)))
    assert checkpoint.latest(tmp_path).name == "ckpt-100.npz"
    (tmp_path / "ckpt-100.npz").write_bytes(b"PK")
    (tmp_path / "ckpt-999-old.npz").write_bytes(b"not ours")
    assert checkpoint.latest(tmp_path).name == "ckpt-10.npz"
    captured = capsys.readouterr()
    assert "ckpt-100.npz" in captured.err and captured.out == ""
    state = _fake(a=np.zeros(3, "int64"))
    assert checkpoint.restore(tmp_path, state).name == "ckpt-10.npz"
    assert state.progress.num_steps_completed == 10


def test_a_directory_without_an_intact_checkpoint_is_an_error_to_restore(tmp_path):
    (tmp_path / "ckpt-1.npz").write_bytes(b"PK")
    with pytest.raises(CheckpointError, match="no intact checkpoint in"):
        checkpoint.restore(tmp_path, _fake(a=np.zeros(3)))


def test_retain_keeps_the_newest_by_number_and_clears_leftovers(tmp_path):
    for num_steps in (1, 2, 10, 9):
        checkpoint.save(tmp_path, _fake(num_steps, a=np.zeros(3)))
    (tmp_path / "ckpt-11.npz.123.tmp").write_bytes(b"half")
    (tmp_path / "notes.tmp").write_bytes(b"not ours")
    removed = checkpoint.retain(tmp_path, 2)
    assert sorted(p.name for p in removed) == ["ckpt-1.npz", "ckpt-2.npz"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["ckpt-10.npz", "ckpt-9.npz", "notes.tmp"]
    with pytest.raises(ValueError, match="1 or more, not 0"):
        checkpoint.retain(tmp_path, 0)


def test_an_unwritable_directory_is_a_value_error_with_a_cure(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="Name another directory"):
        checkpoint.save(tmp_path / "file" / "checkpoints", _fake(a=np.zeros(3)))


# Kills.


@pytest.mark.parametrize("moment", ["gradloop.files.os.fsync", "gradloop.files.os.replace"])
def test_an_interrupt_before_the_rename_leaves_the_old_file(tmp_path, monkeypatch, moment):
    path = checkpoint.save(tmp_path, _fake(5, a=np.zeros(3)))
    before = path.read_bytes()

    def die(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(moment, die)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save(tmp_path, _fake(5, a=np.ones(3)))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


_SAVER = """
import dataclasses, sys, types
sys.path.insert(0, sys.argv[1])
package = types.ModuleType("engine")  # Without engine/__init__, which would import TensorFlow.
package.__path__ = [sys.argv[1] + "/engine"]
sys.modules["engine"] = package
import numpy as np
from gradloop.engine.storage import checkpoint

@dataclasses.dataclass
class Progress:
    num_steps_completed: int = 7

class Variable:
    value = np.zeros(300_000)

class State:
    progress = Progress()
    def named_variables(self):
        return [("a", Variable)]

for number in range(100_000):
    Variable.value = np.full(300_000, float(number))
    checkpoint.save(sys.argv[2], State())
    if number == 0:
        print("ready", flush=True)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_sigkill_at_any_time_leaves_an_intact_file(tmp_path):
    root = Path(checkpoint.__file__).parents[1]
    for attempt in range(5):
        directory = tmp_path / str(attempt)
        command = [sys.executable, "-c", _SAVER, str(root), str(directory)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout.readline() == "ready\n"
            time.sleep(random.Random(attempt).uniform(0.01, 0.1))
            process.kill()
        assert process.returncode == -signal.SIGKILL
        (array,) = checkpoint.load(directory / "ckpt-7.npz").values["a"]
        assert (array == array[0]).all()
        shutil.rmtree(directory)


def test_checkpoints_of_a_longer_run_are_refused(tmp_path):
    (tmp_path / "ckpt-10.npz").touch()
    checkpoint.check_none_beyond(tmp_path, 10)
    checkpoint.check_none_beyond(tmp_path / "nowhere", 0)
    with pytest.raises(ValueError, match=r"ckpt-10\.npz is from a run that went further"):
        checkpoint.check_none_beyond(tmp_path, 9)
