"""What a loss scale skips: it counts in no metric, is logged, and ends a run that only skips."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradloop import engine
from gradloop.engine.history import StopKind
from tests.engine.nets import make_compiled, make_config, make_state, mirrored

BATCH_SIZE = 4
BAD_BATCH = 2  # of 5, from 0


@pytest.fixture(params=[1, 2], ids=["one device", "mirrored"])
def strategy(request):
    return mirrored(request.param) if request.param > 1 else None


def make_data(*, is_good=False):
    """Five batches; the third is bad in its last example, which the last replica gets."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(5 * BATCH_SIZE, 4)).astype("float32")
    y = rng.integers(0, 3, len(x))
    bad = slice(BAD_BATCH * BATCH_SIZE, (BAD_BATCH + 1) * BATCH_SIZE)
    x[bad.stop - 1] = np.nan
    if is_good:
        x, y = np.delete(x, bad, 0), np.delete(y, bad, 0)
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(BATCH_SIZE)


def build():
    keras.utils.set_random_seed(1)
    layers = [keras.layers.BatchNormalization(), keras.layers.Dense(3, activation="softmax")]
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(8), *layers])


def build_random():
    keras.utils.set_random_seed(1)
    layers = [keras.layers.Dropout(0.5), keras.layers.Dense(3, activation="softmax")]
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(8), *layers])


def arguments(initial_scale=8.0):
    inner = keras.optimizers.SGD(0.1, momentum=0.9)
    return {
        "optimizer": keras.optimizers.LossScaleOptimizer(inner, initial_scale=initial_scale),
        "loss": keras.losses.SparseCategoricalCrossentropy(),
        "metrics": [keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
    }


def noting_step(state, batch):
    logs = engine.train_step(state, batch)
    return {**logs, "mean": tf.reduce_mean(batch[0])}


def test_a_skipped_batch_counts_nowhere(strategy):
    def train(data):
        state = make_state(build, arguments, strategy)
        history = engine.fit(state, data, make_config(), train_step=noting_step)
        return state, history.history

    state, found = train(make_data())
    other, expected = train(make_data(is_good=True))
    assert found.pop("num_skipped_steps") == [1.0]
    assert found.pop("loss_scale") == [4.0]
    assert expected.pop("num_skipped_steps") == [0.0]
    assert expected.pop("loss_scale") == [8.0]
    assert found == expected  # loss, accuracy and mean
    for variable, same in zip(state.model.variables, other.model.variables, strict=True):
        np.testing.assert_array_equal(variable.numpy(), same.numpy(), variable.path)


def test_in_fit_it_counts():
    model = make_compiled(build, arguments)
    theirs = model.fit(make_data(), verbose=0, shuffle=False).history
    assert np.isnan(theirs["loss"][0])
    assert np.isnan(model.layers[1].moving_mean.numpy()).all()
    state = make_state(build, arguments)
    ours = engine.fit(state, make_data(), make_config(parity="fit")).history
    np.testing.assert_equal(ours, theirs)
    for variable, same in zip(state.model.variables, model.variables, strict=True):
        np.testing.assert_array_equal(variable.numpy(), same.numpy(), variable.path)


def test_random_numbers_go_on_as_in_fit():
    state = make_state(build_random, arguments)
    engine.fit(state, make_data(), make_config())
    model = make_compiled(build_random, arguments)
    model.fit(make_data(), verbose=0, shuffle=False)
    for variable, same in zip(state.model.variables, model.variables, strict=True):
        np.testing.assert_array_equal(variable.numpy(), same.numpy(), variable.path)


def test_skipped_steps_are_counted_over_the_run(strategy, tmp_path):
    first = make_state(build, arguments, strategy)
    engine.fit(first, make_data(), make_config(), hooks=[engine.SaveCheckpoint(tmp_path)])
    state = make_state(build, arguments, strategy)
    state.build(make_data().element_spec)
    engine.restore_checkpoint(engine.latest_checkpoint(tmp_path), state)
    history = engine.fit(state, make_data(), make_config(epochs=2), resume=True)
    assert history.history["num_skipped_steps"] == [1.0, 2.0]
    assert history.history["loss_scale"] == [4.0, 2.0]


@tf.custom_gradient
def spoil(x):
    """Nothing shows it in the forward pass."""
    return tf.identity(x), lambda gradient: gradient * float("nan")


def build_spoilt():
    keras.utils.set_random_seed(1)
    x = keras.Input((4,))
    h = keras.layers.Lambda(spoil)(keras.layers.Dense(8, name="below")(x))
    return keras.Model(x, keras.layers.Dense(3, activation="softmax", name="above")(h))


def test_a_run_that_only_skips_ends(strategy):
    state = make_state(build_spoilt, arguments, strategy)
    data = make_data(is_good=True).repeat(20)
    before = [weight.copy() for weight in state.model.get_weights()]
    with pytest.warns(UserWarning, match="in a row") as caught:
        history = engine.fit(state, data, make_config(max_skipped_steps=5))
    assert history.stop_kind is StopKind.DIVERGED
    # 3 halvings of the initial scale, 5 more; executions of 3 steps, one of which comes late.
    assert history.num_steps == 12
    assert "9 steps in a row were skipped, and the loss scale is 0.0156" in history.stop_reason
    assert "of below/kernel, below/bias are not finite" in history.stop_reason
    assert [str(w.message) for w in caught] == [history.stop_reason]
    np.testing.assert_equal(state.model.get_weights(), before)


def test_a_scale_that_begins_too_high_is_searched():
    state = make_state(build, lambda: arguments(2.0**127))
    history = engine.fit(
        state, make_data(is_good=True).repeat(10), make_config(max_skipped_steps=1)
    )
    assert history.history["num_skipped_steps"][0] > 1
    assert history.stop_reason is None
