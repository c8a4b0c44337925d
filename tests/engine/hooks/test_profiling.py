"""The hook Profile in runs: the same numbers, a marker per step, and no profiler left running."""

import itertools
import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradloop.data import pipeline
from gradloop.engine import hooks
from gradloop.engine.config import TrainConfig
from gradloop.engine.hooks import Profile
from gradloop.engine.loop import fit
from gradloop.engine.profiling.xplane import read_trace
from gradloop.engine.state import TrainState
from gradloop.engine.storage.extras import MissingExtra
from gradloop.engine.strategy import make_strategy

NUM_BATCHES = 7


def make_data(kind="pipeline"):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(26, 4)).astype("float32")
    y = rng.integers(0, 3, 26)
    if kind == "pipeline":
        return pipeline.make_dataset(x, y, global_batch_size=4, shuffle=True)
    dataset = tf.data.Dataset.from_tensor_slices((x, y))
    if kind == "unknown length":
        dataset = dataset.filter(lambda x, y: True)
    return dataset.batch(4)


def make_state(strategy=None):
    keras.utils.clear_session(free_memory=False)  # the names of variables are in the digest
    keras.utils.set_random_seed(1)
    with (strategy or tf.distribute.get_strategy()).scope():
        layers = [keras.layers.Dense(8), keras.layers.Dropout(0.5), keras.layers.Dense(3)]
        return TrainState(
            keras.Sequential([keras.Input((4,)), *layers]),
            keras.optimizers.RMSprop(),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
        )


def train(*more, data="pipeline", strategy=None, **fields):
    state = make_state(strategy)
    config = TrainConfig(**{"epochs": 2, "steps_per_execution": 5, **fields})
    fit(state, make_data(data), config, hooks=more)
    return state


def executions(sizes):
    return hooks.LambdaHook(on_execution_end=lambda info: sizes.append(info.execution_steps))


def profiler_is_free(directory):
    tf.profiler.experimental.start(str(directory))
    tf.profiler.experimental.stop(save=False)
    return True


@pytest.mark.parametrize("data", ["pipeline", "tf.data", "unknown length"])
def test_the_numbers_stay_and_every_step_has_a_marker(tmp_path, data):
    sizes = []
    state = train(Profile(tmp_path / "p", 4, 9, line=lambda _: None), executions(sizes), data=data)
    assert state.weights_sha256() == train(data=data).weights_sha256()
    # Up to the first step, then one by one across the end of the epoch, then as before.
    assert sizes == [3, 1, 1, 1, 1, 1, 1, 5]
    trace = read_trace(tmp_path / "p")
    assert sorted(trace.steps) == [4, 5, 6, 7, 8, 9]
    calls = [trace.steps[step] for step in sorted(trace.steps)]
    assert all(a[1] <= b[0] for a, b in itertools.pairwise(calls))


def test_two_replicas_keep_their_numbers_and_have_a_reduce(tmp_path):
    strategy = make_strategy(TrainConfig(strategy="mirrored", num_replicas=2))
    fields = {"strategy": strategy, "data": "tf.data"}
    state = train(Profile(tmp_path, 3, 5, line=lambda _: None), **fields)
    assert state.weights_sha256() == train(**fields).weights_sha256()
    summary = json.loads((tmp_path / "profile.json").read_text())
    assert summary["reduce"]["count"] >= 3
    assert summary["input"]["next_secs"] > 0


def test_batches_are_distinguished_from_computation_in_both_ways(tmp_path):
    for data, in_graph in (("pipeline", True), ("tf.data", False)):
        train(Profile(tmp_path / data, 3, 5, line=lambda _: None), data=data)
        found = json.loads((tmp_path / data / "profile.json").read_text())
        assert found["input"]["made_in_graph"] == in_graph
        assert 0 < found["input"]["next_secs"] < found["window_secs"]
        computing = [row for row in found["operations"] if row["category"] == "compute"]
        assert any("MatMul" in row["type"] for row in computing)


def test_it_writes_texts_and_a_picture_and_says_a_few_lines(tmp_path):
    pytest.importorskip("matplotlib")
    lines = []
    train(Profile(tmp_path, 2, 3, line=lines.append))
    assert (tmp_path / "summary.txt").read_text().startswith("Steps 2 to 3 on CPU")
    assert (tmp_path / "profile.png").stat().st_size > 1000
    assert len(list((tmp_path / "plugins" / "profile").rglob("*.xplane.pb"))) == 1
    assert len(lines) == 1 and "steps 2 to 3" in lines[0]


def test_without_matplotlib_a_line_says_so(tmp_path, monkeypatch):
    def missing(*args):
        raise MissingExtra("matplotlib is missing")

    monkeypatch.setattr(hooks.profiling, "plot_profile", missing)
    lines = []
    train(Profile(tmp_path, 2, 3, line=lines.append))
    assert lines[1:] == ["no picture: matplotlib is missing"]
    assert (tmp_path / "summary.txt").exists()


def test_a_run_that_ends_before_the_last_step_leaves_what_there_is(tmp_path):
    stop = hooks.LambdaHook(
        on_execution_end=lambda info: (
            info.request_stop("enough", immediately=True)
            if info.progress.num_steps_completed == 5
            else None
        )
    )
    train(Profile(tmp_path, 4, 12, line=lambda _: None), stop)
    assert sorted(read_trace(tmp_path).steps) == [4, 5]
    assert profiler_is_free(tmp_path)


def test_a_run_that_ends_before_the_first_step_says_so(tmp_path):
    lines = []
    train(Profile(tmp_path, 50, 60, line=lines.append))
    assert lines == ["no profile: the run ended before step 50"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_stops_the_profiler_and_is_not_hidden(tmp_path, error):
    def fail(info):
        if info.progress.num_steps_completed == 4:
            raise error("planted")

    with pytest.raises(error, match="planted"):
        train(Profile(tmp_path, 3, 9, line=lambda _: None), hooks.LambdaHook(on_execution_end=fail))
    assert sorted(read_trace(tmp_path).steps) == [3, 4]
    assert profiler_is_free(tmp_path)


def test_an_error_inside_a_step_stops_the_profiler(tmp_path):
    class Broken(hooks.Hook):
        def around_execution(self, num_steps_completed):
            if num_steps_completed == 3:
                raise RuntimeError("planted")
            return tf.name_scope("nothing")

    with pytest.raises(RuntimeError, match="planted"):
        train(Profile(tmp_path, 4, 9, line=lambda _: None), Broken())
    assert profiler_is_free(tmp_path)


def test_steps_count_from_the_start_of_this_fit(tmp_path):
    state = make_state()
    fit(state, make_data(), TrainConfig(epochs=1))
    profile = Profile(tmp_path, 2, 3, line=lambda _: None)
    config = TrainConfig(epochs=2, initial_epoch=1)
    fit(state, make_data(), config, hooks=[profile])
    assert sorted(read_trace(tmp_path).steps) == [2, 3]


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ((0, 3), "first_step must be an integer of 1 or more, not 0"),
        ((5, 2), "last_step must be an integer of 5 or more, not 2"),
        ((1.5, 2), "first_step must be an integer"),
    ],
)
def test_bad_steps_are_refused(tmp_path, steps, message):
    with pytest.raises(ValueError, match=message):
        Profile(tmp_path / "p", *steps)
    assert not (tmp_path / "p").exists()
