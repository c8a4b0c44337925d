"""A run that was stopped goes on where it was, with the same bits."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradloop.engine.hooks import LambdaHook, SaveCheckpoint
from gradloop.engine.hooks.base import HOOK_METHODS
from gradloop.engine.loop import fit
from gradloop.engine.step import train_step
from gradloop.engine.step_logs import last
from gradloop.engine.storage import checkpoint
from tests.engine.against_fit import assert_same_weights
from tests.engine.nets import (
    NUM_BATCHES,
    make_config,
    make_pipeline,
    make_state,
    make_tiny,
    num_updates,
)
from tests.engine.observers import StopAfter


@pytest.mark.parametrize("stop_at", [6, 7, 10])  # of 7 steps an epoch
def test_resumed_run_ends_with_the_same_weights_and_logs(arrays, dataset, stop_at, tmp_path):
    whole, config = make_state(), make_config(epochs=3)
    expected = fit(whole, make_pipeline(arrays), config, validation_data=dataset).history

    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(0)
    hooks = [StopAfter(stop_at), SaveCheckpoint(tmp_path)]
    stopped = fit(make_state(), make_pipeline(arrays), config, hooks=hooks, validation_data=dataset)

    keras.utils.clear_session(free_memory=False)
    state = make_state()
    state.build(dataset.element_spec)
    checkpoint.restore(tmp_path, state)
    assert state.progress.num_steps_completed == num_updates(state) == stop_at
    resumed = fit(state, make_pipeline(arrays), config, validation_data=dataset, resume=True)
    assert num_updates(state) == 21
    assert_same_weights(state.model, whole.model)
    for name, values in expected.items():
        # Of an epoch that was interrupted, the logs are those of the whole epoch.
        assert resumed.history[name] == values
    assert stopped.history.get("loss", []) == resumed.history["loss"][: len(stopped.epoch)]


def test_a_hook_saves_a_run_where_all_hooks_know_what_has_happened(dataset, tmp_path):
    state, saved = make_tiny(), {}

    def save(moment):
        try:
            saved[moment] = checkpoint.save(tmp_path, state).name
        except ValueError as error:
            assert "can be saved in on_save_point of a hook" in str(error)
            saved[moment] = None

    moments = [name for name in HOOK_METHODS if "predict" not in name]
    hook = LambdaHook(**{name: lambda info, name=name: save(name) for name in moments})
    config = make_config(validate_every_steps=3)
    fit(state, dataset, config, validation_data=dataset, hooks=[hook])
    assert set(saved) == set(moments)
    assert {name for name in saved if saved[name]} == {"on_save_point", "on_train_end"}
    assert checkpoint.save(tmp_path, state).name == "ckpt-7.npz"


def test_resumed_run_stands_where_it_was_in_a_pass_longer_than_an_epoch(arrays):
    config = make_config(epochs=4, steps_per_epoch=3)  # three epochs a pass over the data: 3, 3, 1
    whole, state = make_tiny(), make_tiny()
    with pytest.warns(UserWarning, match="after 1 of 3 steps"):
        fit(whole, make_pipeline(arrays), config)
    fit(state, make_pipeline(arrays), config, hooks=[StopAfter(4)])
    with pytest.warns(UserWarning, match="after 1 of 3 steps"):
        fit(state, make_pipeline(arrays), config, resume=True)
    assert_same_weights(state.model, whole.model)


def test_resume_within_an_epoch_needs_a_dataset_that_gives_the_same_batches(dataset):
    state = make_tiny()
    generated = tf.data.Dataset.from_generator(
        lambda: iter(dataset), output_signature=dataset.element_spec
    )
    fit(state, generated, make_config(epochs=2), hooks=[StopAfter(4)])
    again = generated.map(lambda x, y: (x, y))
    with pytest.raises(ValueError, match=r"stopped after 4 steps .* no seek.*GeneratorDataset"):
        fit(state, again, make_config(epochs=2), resume=True)


def test_a_failed_run_leaves_the_last_good_checkpoint(tmp_path):
    def batches():
        for step in range(5):
            if step == 4 and state.progress.num_epochs_completed:
                raise ValueError("the disk is gone")
            yield np.ones((2, 4), "float32"), np.zeros(2, "int64")

    specs = (tf.TensorSpec((None, 4)), tf.TensorSpec((None,), tf.int64))
    state = make_tiny()
    failing = tf.data.Dataset.from_generator(batches, output_signature=specs)
    failing.is_deterministic = True
    with pytest.raises(tf.errors.OpError, match="the disk is gone"):
        fit(state, failing, make_config(epochs=2), hooks=[SaveCheckpoint(tmp_path)])
    assert [path.name for path in tmp_path.iterdir()] == ["ckpt-5.npz"]
    assert num_updates(state) > 5
    checkpoint.restore(tmp_path, state)
    assert num_updates(state) == 5


def test_resume_after_the_last_epoch_does_nothing(dataset):
    state = make_tiny()
    fit(state, dataset, make_config(epochs=2))
    before = state.weights_sha256()
    history = fit(state, dataset, make_config(epochs=2), resume=True)
    assert (history.num_steps, state.weights_sha256()) == (0, before)
    history = fit(state, dataset, make_config(epochs=3), resume=True)
    assert history.epoch == [0, 1, 2]


def test_class_weights_leave_the_pipeline_its_position(arrays):
    weights, config = {0: 2.0, 1: 0.5, 2: 1.0}, make_config(epochs=3, initial_epoch=1)
    whole, state, dataset = make_tiny(), make_tiny(), make_pipeline(arrays)
    fit(whole, make_pipeline(arrays, class_weight=weights), config)
    fit(state, dataset, config, class_weight=weights, hooks=[StopAfter(4)])
    fit(state, dataset, config, class_weight=weights, resume=True)
    assert_same_weights(state.model, whole.model)


def test_logs_of_float64_keep_their_digits(dataset):
    def step(state, batch):
        return {**train_step(state, batch), "third": last(tf.constant(1 / 3, tf.float64))}

    state, third = make_tiny(), [1 / 3]
    assert fit(make_tiny(), dataset, make_config(), train_step=step).history["third"] == third
    fit(state, dataset, make_config(), train_step=step, hooks=[StopAfter(NUM_BATCHES)])
    history = fit(state, dataset, make_config(), train_step=step, resume=True)
    assert history.history["third"] == third
