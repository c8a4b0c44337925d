"""What a step of one's own returns, and what becomes of it."""

import pytest
import tensorflow as tf

from gradloop.engine.loop import fit
from gradloop.engine.step_logs import total
from tests.engine.nets import NUM_BATCHES, NUM_EXAMPLES, make_config, make_state, mirrored


def test_logs_of_a_custom_step_are_the_mean_over_its_examples(dataset):
    def train_step(state, batch):
        x, y = batch
        with tf.GradientTape() as tape:
            y_pred = state.model(x, training=True)
            loss = state.compute_loss(x, y, y_pred)
        state.apply_gradients(tape.gradient(loss, state.model.trainable_variables))
        logs = state.update_metrics(loss, x, y, y_pred)
        return {"num_examples": tf.shape(x)[0], **logs, "a_constant": 3.0}

    state = make_state()
    history = fit(state, dataset, make_config(epochs=2), train_step=train_step)
    expected = fit(make_state(), dataset, make_config(epochs=2))
    mean = (4 * 4 * (NUM_EXAMPLES // 4) + 2 * 2) / NUM_EXAMPLES  # twelve batches of 4, one of 2
    assert list(history.history) == ["a_constant", "accuracy", "loss", "num_examples"]
    assert history.history["loss"] == expected.history["loss"]  # the metric's: of the whole epoch
    assert history.history["num_examples"] == [pytest.approx(mean)] * 2
    assert history.history["a_constant"] == [3.0, 3.0]


def test_logs_of_a_custom_step_are_the_mean_over_replicas(dataset):
    def train_step(state, batch):
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        return {"replica": tf.cast(replica, tf.float32), "is_second": replica == 1, "id": replica}

    state = make_state(strategy=mirrored())
    history = fit(state, dataset, make_config(), train_step=train_step)
    assert history.history == {"id": [0.5], "is_second": [0.5], "replica": [0.5]}


@pytest.mark.parametrize(
    ("logs", "message"),
    [
        ({"per_example": tf.ones([4])}, r"'per_example' with shape \(4,\).*scalars"),
        (tf.constant(1.0), "dict"),
    ],
)
def test_logs_that_are_no_scalars_are_an_error(dataset, logs, message):
    with pytest.raises((ValueError, TypeError), match=message):
        fit(make_state(), dataset, make_config(), train_step=lambda state, batch: logs)


def test_step_without_logs(dataset):
    history = fit(make_state(), dataset, make_config(), train_step=lambda state, batch: None)
    assert history.history == {}
    assert history.epoch_steps == [NUM_BATCHES]


def test_one_step_may_sum_what_another_one_averages(dataset):
    def count(state, batch):
        return {"count": tf.shape(batch[0])[0]}

    def count_all(state, batch):
        return {"count": total(tf.shape(batch[0])[0])}

    state = make_state()
    found = [
        fit(state, dataset, make_config(), train_step=step).history["count"][0]
        for step in (count, count_all, count)
    ]
    assert found == [found[0], NUM_EXAMPLES, found[0]] != [NUM_EXAMPLES] * 3
