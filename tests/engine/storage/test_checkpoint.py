"""A checkpoint holds every variable and the progress, of each replica, bit for bit."""

import dataclasses
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradloop.engine import variables
from gradloop.engine.state import TrainState
from gradloop.engine.storage import checkpoint
from gradloop.engine.storage.format import load
from tests.engine.storage.states import FakeState, all_bytes, fake_state


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
    state.progress.num_epochs_completed = 1
    path = checkpoint.save(tmp_path, state)
    assert path == tmp_path / "ckpt-3.npz"
    other = _train_state(units_seed=1)
    assert all_bytes(other) != all_bytes(state)
    assert checkpoint.restore(path, other) == path
    assert all_bytes(other) == all_bytes(state)
    assert other.progress == state.progress
    # Dropout draws the same mask, Adam takes the same step: the state of both came along.
    _step(state, x, y)
    _step(other, x, y)
    assert all_bytes(other) == all_bytes(state)


def test_the_states_of_seed_generators_are_in_the_file(tmp_path):
    state = _train_state()
    values = load(checkpoint.save(tmp_path, state)).values
    assert any("seed_generator_state" in name for name in values)
    assert set(values) == {name for name, _ in state.named_variables()}


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64", "int64", "uint8", "bool"])
def test_dtypes_and_scalars_survive(tmp_path, dtype):
    numpy_dtype = tf.as_dtype(dtype).as_numpy_dtype
    state = fake_state(a=np.arange(6).reshape(2, 3).astype(numpy_dtype), b=np.array(1, numpy_dtype))
    other = fake_state(a=np.zeros((2, 3), numpy_dtype), b=np.array(0, numpy_dtype))
    checkpoint.restore(checkpoint.save(tmp_path, state), other)
    assert all_bytes(other) == all_bytes(state)


def test_nan_minus_zero_and_awkward_names_survive(tmp_path):
    name = "model/Größe.0/kernel:0#2"
    values = np.array([np.nan, -0.0, np.inf, 1e-45], "float32")
    state, other = (
        fake_state(**{name: values, "file": values}),
        fake_state(**{name: values, "file": values}),
    )
    for variable in other.variables.values():
        variable.assign(np.zeros(4))
    checkpoint.restore(checkpoint.save(tmp_path, state), other)
    assert all_bytes(other) == all_bytes(state)


def _mirrored_state(num_replicas):
    strategy = tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(num_replicas)])
    with strategy.scope():
        variables = {"mean": keras.Variable(np.zeros(2, "float32"), name="mean")}
        variables["kernel"] = keras.Variable(np.ones(2, "float32"), name="kernel")
        metric = keras.metrics.Mean()
    variables["total"] = metric.total
    return FakeState(variables, strategy=strategy)


def _drift(state):
    for name in ("mean", "total"):
        for index, copy in enumerate(state.variables[name].value.values):
            copy.assign(tf.fill(copy.shape, float(index + 1)))


def test_local_values_gives_one_array_where_replicas_agree_and_all_where_they_differ():
    state = _mirrored_state(2)
    _drift(state)
    kernel, mean = (variables.local_values(state.variables[n]) for n in ("kernel", "mean"))
    assert [v.tolist() for v in kernel] == [[1, 1]]
    assert [v.tolist() for v in mean] == [[1, 1], [2, 2]]
    # What reading the variables themselves would have saved.
    assert state.variables["mean"].numpy().tolist() == [1, 1]
    assert float(state.variables["total"].numpy()) == 3


def test_values_of_each_replica_come_back(tmp_path):
    state, other = _mirrored_state(2), _mirrored_state(2)
    _drift(state)
    checkpoint.restore(checkpoint.save(tmp_path, state), other)
    assert all_bytes(other) == all_bytes(state)
    assert len(all_bytes(other)["mean"]) == len(all_bytes(other)["total"]) == 2


def test_another_number_of_replicas_takes_what_there_is_and_replica_0_for_the_rest(tmp_path):
    two, three, one = _mirrored_state(2), _mirrored_state(3), _mirrored_state(1)
    _drift(two)
    path = checkpoint.save(tmp_path, two)
    checkpoint.restore(path, three)
    checkpoint.restore(path, one)
    means = [v.tolist() for v in variables.local_values(three.variables["mean"])]
    assert means == [[1, 1], [2, 2], [1, 1]]
    assert [v.tolist() for v in variables.local_values(one.variables["mean"])] == [[1, 1]]
    totals = [variables.local_values(state.variables["total"]) for state in (three, one)]
    assert totals == [[3, 0, 0], [3]]  # of a sum, the whole


def test_replicas_become_one_variable_and_back(tmp_path):
    mirrored = _mirrored_state(2)
    _drift(mirrored)
    plain = fake_state(mean=np.zeros(2, "f4"), kernel=np.zeros(2, "f4"), total=np.zeros((), "f4"))
    checkpoint.restore(checkpoint.save(tmp_path, mirrored), plain)
    assert plain.variables["mean"].numpy().tolist() == [1, 1]
    again = _mirrored_state(2)
    _drift(again)
    checkpoint.restore(checkpoint.save(tmp_path / "plain", plain), again)
    assert [v.tolist() for v in variables.local_values(again.variables["mean"])] == [[1, 1]]


GOLDEN = Path(__file__).parent / "golden" / "ckpt-format1.npz"


def test_a_file_of_format_1_is_read():
    """Written by the last version of that format; every later version must read it."""
    expected = {
        "model/dense_3/kernel": np.arange(6, dtype="float32").reshape(2, 3),
        "model/dense_3/bias": np.array([np.nan, -0.0, np.inf], "float32"),
        "model/half/scale": np.array([1.5, -2], tf.bfloat16.as_numpy_dtype),
        "model/empty/table": np.zeros((0, 2), "float32"),
        "optimizer/sgd/iteration": np.array(7, "int64"),
        "metrics/mean/total": np.array(2.5, "float32"),
    }
    state = fake_state(**{name: np.zeros_like(value) for name, value in expected.items()})
    checkpoint.restore(GOLDEN, state)
    assert all_bytes(state) == {name: [value.tobytes()] for name, value in expected.items()}
    assert dataclasses.asdict(state.progress) == {
        "epoch": 2, "step": 1, "num_steps_completed": 7, "num_epochs_completed": 2,
        "num_epochs": 4, "steps_per_epoch": 3,
    }  # fmt: skip
    assert state.resumption.capture() == {}


def test_the_other_parts_of_a_run_come_along(tmp_path):
    state, other = fake_state(a=np.zeros(3)), fake_state(a=np.zeros(3))
    state.resumption.restore({"hooks": {"best": np.arange(3)}, "logs": [{"loss": np.inf}, 3]})
    checkpoint.restore(checkpoint.save(tmp_path, state), other)
    tree = other.resumption.capture()
    assert tree["hooks"]["best"].tolist() == [0, 1, 2]
    assert tree["logs"] == [{"loss": np.inf}, 3]


def test_a_part_of_a_checkpoint_does_not_bring_them(tmp_path):
    state, other = fake_state(**{"model/a": np.ones(3)}), fake_state(**{"model/a": np.zeros(3)})
    state.resumption.restore({"stop": "early"})
    checkpoint.restore(checkpoint.save(tmp_path, state), other, only="model")
    assert other.resumption.capture() == {}
    assert all_bytes(other) == all_bytes(state)


def test_equal_states_become_equal_files_which_numpy_reads(tmp_path):
    values = {"model/kernel": np.arange(6.0).reshape(2, 3), "model/empty": np.zeros((0, 4))}
    paths = [checkpoint.save(tmp_path / name, fake_state(**values)) for name in "ab"]
    assert paths[0].read_bytes() == paths[1].read_bytes()
    with np.load(paths[0]) as file:
        np.testing.assert_array_equal(file["replica0/model/kernel"], values["model/kernel"])
        assert file["replica0/model/empty"].shape == (0, 4)


def test_a_progress_that_no_run_can_be_at_is_not_saved(tmp_path):
    state = fake_state(a=np.zeros(3))
    state.progress.epoch = 4
    with pytest.raises(ValueError, match="epoch is 4 after 0 completed ones"):
        checkpoint.save(tmp_path, state)
    assert list(tmp_path.iterdir()) == []


def test_a_read_only_array_of_a_variable_keeps_its_values():
    variable = keras.Variable(np.zeros(4, "float32"))
    (before,) = variables.local_values(variable)
    variable.assign_add(np.ones(4))
    assert before.tolist() == [0] * 4
    with pytest.raises(ValueError, match="read-only"):
        before[0] = 1
