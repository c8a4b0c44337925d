"""restore_checkpoint: a part of a checkpoint, and what was not there yet when it was saved."""

import keras
import numpy as np
import pytest

from gradloop import engine


def make_state(optimizer="sgd", **arguments):
    keras.utils.clear_session()
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    state = engine.TrainState(model, optimizer, loss="mse", **arguments)
    return state


@pytest.fixture
def data():
    return np.ones((8, 2), "float32"), np.zeros((8, 1), "float32")


def build(state, data):
    engine.fit(state, data[0], engine.TrainConfig(epochs=1), y=data[1])
    return state


def test_weights_alone_begin_a_new_run(data, tmp_path):
    saved = build(make_state("adam"), data)
    path = engine.save_checkpoint(tmp_path, saved)
    state = build(make_state("sgd"), data)
    before = state.optimizer.iterations.numpy()
    engine.restore_checkpoint(path, state, only="model")
    np.testing.assert_array_equal(state.model.get_weights()[0], saved.model.get_weights()[0])
    assert state.optimizer.iterations.numpy() == before
    with pytest.raises(engine.CheckpointError, match="belongs to another model or optimizer"):
        engine.restore_checkpoint(path, state)


def test_progress_is_not_restored_with_a_part(data, tmp_path):
    path = engine.save_checkpoint(tmp_path, build(make_state(), data))
    fresh = make_state()
    fresh.build(build_spec(data))
    engine.restore_checkpoint(path, fresh, only="model")
    assert fresh.progress.num_steps_completed == 0


def build_spec(data):
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices(data).batch(4).element_spec


def test_an_unknown_part_names_those_that_there_are(data, tmp_path):
    state = build(make_state(), data)
    path = engine.save_checkpoint(tmp_path, state)
    with pytest.raises(engine.CheckpointError, match=r"only='teacher'.*metrics, model, optimizer"):
        engine.restore_checkpoint(path, state, only="teacher")


def test_a_checkpoint_from_before_the_first_step_can_be_restored_later(data, tmp_path):
    def step(state, batch):
        state.seed()
        return engine.train_step(state, batch)

    state = make_state()
    state.build(build_spec(data))
    path = engine.save_checkpoint(tmp_path, state)
    config = engine.TrainConfig(gradient_accumulation_steps=3)
    first = engine.fit(state, data[0], config, y=data[1], train_step=step)
    engine.restore_checkpoint(path, state)
    again = engine.fit(state, data[0], config, y=data[1], train_step=step)
    assert again.history == first.history
