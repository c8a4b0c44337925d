"""find_learning_rate: the curve, and that everything is put back."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradloop import engine
from gradloop.engine.tuning.learning_rate import _has_diverged


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 3)).astype("float32")
    return x, (x @ np.array([[1.0], [-2.0], [0.5]])).astype("float32")


def make_state(optimizer=None, loss="mse"):
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dropout(0.1), keras.layers.Dense(1)])
    return engine.TrainState(model, optimizer or keras.optimizers.SGD(0.5, momentum=0.9), loss=loss)


def test_the_loss_falls_where_the_suggestion_is_and_the_run_ends_where_it_diverges(data):
    state = make_state()
    curve = engine.find_learning_rate(
        state, data[0], engine.TrainConfig(), y=data[1], between=(1e-5, 100.0), num_steps=80
    )
    assert 1e-3 < curve.suggestion < 2.0
    assert len(curve.losses) == len(curve.learning_rates) < 80
    assert min(curve.losses) < 0.3 * curve.losses[0]
    ratios = np.divide(curve.learning_rates[1:], curve.learning_rates[:-1])
    np.testing.assert_allclose(ratios, ratios[0])


def test_a_loss_below_zero_falls_and_diverges_like_any_other(data):
    def loss(y, y_pred):
        return keras.losses.mean_squared_error(y, y_pred) - 100.0

    curve = engine.find_learning_rate(
        make_state(loss=loss), data[0], engine.TrainConfig(),
        y=data[1], between=(1e-5, 100.0), num_steps=80,
    )  # fmt: skip
    assert 1e-3 < curve.suggestion < 2.0
    assert 10 < len(curve.losses) < 80
    assert min(curve.losses) < -99.0


@pytest.mark.parametrize(
    ("losses", "loss", "expected"),
    [
        ([], 1.0, False),
        ([1.0, 0.5], 1.9, False),
        ([1.0, 0.5], 2.1, True),
        ([-0.5, -0.52], 3.0, False),  # too few to tell
        ([-0.5] * 10, 0.9, False),
        ([-0.5] * 10, 1.1, True),
        ([0.3, *[-0.01] * 9], 0.9, False),
        ([0.3, *[-0.01] * 9], 1.0, True),
    ],
)
def test_a_loss_has_diverged_by_the_size_of_those_before_it(losses, loss, expected):
    assert _has_diverged(losses, loss) is expected


def draw_step(state, batch):
    tf.random.stateless_uniform([], seed=state.seed())
    return engine.train_step(state, batch)


def test_everything_is_as_before(data):
    state = make_state()
    dataset = tf.data.Dataset.from_tensor_slices(data).batch(8)
    config = engine.TrainConfig(epochs=2)
    state.build(dataset.element_spec)
    before = {name: v.numpy() for name, v in state.named_variables()}
    state.resumption.restore({"history": {"epoch": [0]}})
    engine.find_learning_rate(state, dataset, config, num_steps=20, train_step=draw_step)
    after = {name: v.numpy() for name, v in state.named_variables()}
    for name, value in before.items():
        np.testing.assert_array_equal(after[name], value, err_msg=name)
    assert state.progress.num_steps_completed == 0
    assert state.resumption.capture() == {"history": {"epoch": [0]}}
    found = engine.fit(state, dataset, config, train_step=draw_step)
    wanted = engine.fit(make_state(), dataset, config, train_step=draw_step)
    assert found.history == wanted.history


def test_the_curve_can_be_drawn(data, tmp_path):
    pytest.importorskip("matplotlib")
    curve = engine.find_learning_rate(
        make_state(), data[0], engine.TrainConfig(), y=data[1], num_steps=10
    )
    assert curve.plot(tmp_path / "new" / "curve.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"between": (1.0, 0.1)}, r"between=\(1.0, 0.1\)"),
        ({"num_steps": 2}, "num_steps=2"),
    ],
)
def test_a_range_that_does_not_grow_is_refused(data, arguments, message):
    with pytest.raises(ValueError, match=message):
        engine.find_learning_rate(
            make_state(), data[0], engine.TrainConfig(), y=data[1], **arguments
        )


def test_a_schedule_is_refused(data):
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 1, 0.5)
    with pytest.raises(ValueError, match="a number, not a schedule"):
        engine.find_learning_rate(
            make_state(keras.optimizers.SGD(schedule)), data[0], engine.TrainConfig(), y=data[1]
        )


def test_what_is_refused_changes_nothing(data):
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 1, 0.5)
    state = make_state(keras.optimizers.SGD(schedule))
    config = engine.TrainConfig(gradient_accumulation_steps=4)
    stop = engine.LambdaHook(
        every_steps=1, on_execution_end=lambda info: info.request_stop("enough", immediately=True)
    )
    engine.fit(state, data[0], config, y=data[1], hooks=[stop])
    before = {name: v.numpy() for name, v in state.named_variables()}
    assert state.step_variables.has_open_window
    with pytest.raises(ValueError, match="a number, not a schedule"):
        engine.find_learning_rate(state, data[0], config, y=data[1])
    assert state.step_variables.has_open_window
    for name, variable in state.named_variables():
        np.testing.assert_array_equal(variable.numpy(), before[name], err_msg=name)
