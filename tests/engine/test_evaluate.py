"""evaluate gives Keras's numbers."""

import numpy as np
import pytest
import tensorflow as tf

from gradloop import engine
from gradloop.engine.evaluation import evaluate
from tests.engine.nets import (
    BATCH_SIZE,
    make_compiled,
    make_config,
    make_state,
    make_tiny,
    mirrored,
)


@pytest.mark.parametrize("steps", [None, 3])
@pytest.mark.parametrize("num_replicas", [1, 2])
def test_evaluate_equals_keras(arrays, num_replicas, steps):
    weighted = tf.data.Dataset.from_tensor_slices(arrays).batch(BATCH_SIZE)
    strategy = mirrored() if num_replicas == 2 else None
    expected = make_compiled(strategy=strategy).evaluate(
        weighted, steps=steps, return_dict=True, verbose=0
    )
    state = make_state(strategy=strategy)
    config = make_config(validation_steps=steps)
    assert evaluate(state, weighted, config) == expected
    assert evaluate(state, weighted, config) == expected  # the metrics are reset
    assert list(evaluate(state, weighted, config)) == list(expected)


def test_own_eval_step(dataset):
    def eval_step(state, batch):
        return {"num_seen": tf.shape(batch[0])[0]}

    logs = evaluate(make_tiny(), dataset.take(2), make_config(), eval_step=eval_step)
    assert logs == {"num_seen": 4.0}


def test_a_generator_that_never_ends_is_stopped():
    def generate():
        while True:
            yield np.ones((4, 4), "float32"), np.zeros(4)

    hook = engine.LambdaHook(
        on_eval_execution_end=lambda info: info.eval_step >= 3 and info.request_stop("enough")
    )
    logs = evaluate(make_tiny(), generate(), make_config(steps_per_execution=2), hooks=[hook])
    assert logs["loss"] > 0
