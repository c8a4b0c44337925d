"""The ladder: each rung does what it says, and all of them are measured."""

import json

import numpy as np
import pytest
import tensorflow as tf

from benchmarks import ladder
from benchmarks.arms.constant_data import ConstantDataset
from benchmarks.race import rungs
from gradloop import engine
from gradloop.data.sets import synthetic
from gradloop.models import registry

NAMES = ["forward", "+ backward", "+ optimizer", "+ metrics", "+ hooks", "+ logging", "+ real data"]


@pytest.fixture
def arrays():
    (x, y), _ = synthetic.load_data(num_train=40, num_test=1)
    return x, y, 10


@pytest.fixture
def batch(arrays):
    x, y, num_classes = arrays
    return tf.constant(x[:8, ..., None] / np.float32(255)), tf.one_hot(y[:8], num_classes)


@pytest.fixture
def state(arrays):
    return rungs.make_state(registry.get("dense"), arrays)


def run_steps(step, state, batch, num_steps):
    resident = ConstantDataset(batch).resident
    state.build(resident.element_spec)
    function = engine.make_train_function(step, state, state.strategy, engine.TrainConfig())
    function(resident, tf.constant(num_steps))


def test_forward_computes_the_loss_of_each_step_and_trains_nothing(state, batch):
    forward, before = rungs.Forward(), state.weights_sha256()
    loss = float(state.compute_loss(batch[0], batch[1], state.model(batch[0])))
    run_steps(forward, state, batch, 3)
    assert float(forward._sum) == pytest.approx(3 * loss, rel=1e-5)
    assert state.weights_sha256() == before


def test_backward_computes_every_gradient_and_trains_nothing(state, batch):
    backward, before = rungs.Backward(state.model), state.weights_sha256()
    run_steps(backward, state, batch, 2)
    with tf.GradientTape() as tape:
        loss = state.compute_loss(batch[0], batch[1], state.model(batch[0], training=True))
    expected = tape.gradient(loss, state.model.trainable_variables)
    for sink, gradient in zip(backward._sinks, expected, strict=True):
        np.testing.assert_allclose(sink, gradient, rtol=1e-4, atol=1e-6)
        assert np.any(gradient)
    assert state.weights_sha256() == before


def test_update_gives_the_weights_of_the_default_step(arrays, batch):
    digests = set()
    for step in (rungs.update, engine.train_step):
        tf.keras.utils.set_random_seed(0)
        state = rungs.make_state(registry.get("dense"), arrays)
        run_steps(step, state, batch, 5)
        digests.add(state.weights_sha256())
    assert len(digests) == 1


def test_what_a_rung_adds_sums_to_the_top():
    rows = ladder.summarize({"a": [3.0, 1.0, 2.0], "b": [5.0, 5.0, 9.0], "c": [4.0, 4.0, 4.0]})
    assert [row["usecs"] for row in rows] == [2.0, 5.0, 4.0]
    assert [row["adds_usecs"] for row in rows] == [2.0, 3.0, -1.0]
    lines = ladder.to_table(rows).splitlines()
    assert lines[2].split() == ["b", "5.0", "5.0", "to", "7.0", "3.0", "75.0%"]


def test_rungs_run_by_turns():
    order = []
    made = {name: lambda n, name=name: order.append((name, n)) or 1.0 for name in "abc"}
    usecs = ladder.measure(made, num_steps=10, num_repeats=2)
    warm_up = [("a", 5), ("a", 10), ("b", 5), ("b", 10), ("c", 5), ("c", 10)]
    assert order[:6] == warm_up
    assert "".join(name for name, _ in order[6:]) == "abccba"
    assert usecs == {name: [1e5, 1e5] for name in "abc"}


def test_as_many_steps_as_take_a_second():
    assert ladder.choose_num_steps({"+ metrics": lambda n: n * 1e-3}) == 1000
    assert ladder.choose_num_steps({"+ metrics": lambda n: n * 10.0}) == 5


def test_the_program_prints_and_writes(tmp_path, capsys, monkeypatch):
    small = lambda **_: synthetic.load_data(num_train=40, num_test=1)  # noqa: E731
    (x, y), (x_test, y_test) = small()
    loaded = ladder.data.DatasetArrays(x, y, x_test, y_test, 10)
    monkeypatch.setattr(ladder.data, "load", lambda name: loaded)
    flags = ["--model", "dense", "--dataset", "synthetic", "--global_batch_size", "8"]
    # More steps than the five batches of an epoch.
    flags += ["--num_steps", "7", "--num_repeats", "2"]
    output, chart = tmp_path / "ladder.json", tmp_path / "ladder.svg"
    assert ladder.main([*flags, "--output", str(output), "--chart", str(chart)]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in NAMES)
    record = json.loads(output.read_text("utf-8"))
    assert [row["rung"] for row in record["rungs"]] == NAMES
    assert all(len(samples) == 2 and min(samples) > 0 for samples in record["usecs"].values())
    assert chart.stat().st_size > 1000


@pytest.mark.parametrize(
    "flags", [["--num_steps", "0"], ["--global_batch_size", "-3"], ["--num_repeats", "0"]]
)
def test_wrong_usage_is_one_line(flags, capsys):
    assert ladder.main(["--dataset", "synthetic", *flags]) == 2
    error = capsys.readouterr().err
    assert flags[1] in error
    assert error.count("\n") == 1


def test_a_batch_that_the_data_cannot_fill_is_one_line(capsys):
    flags = ["--model", "dense", "--dataset", "synthetic", "--global_batch_size", "99999999"]
    assert ladder.main(flags) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_an_unknown_model_ends_with_2(capsys):
    with pytest.raises(SystemExit) as ended:
        ladder.main(["--model", "cmn"])
    assert ended.value.code == 2
