"""Each of the calls compares config, state and process, before any step."""

import keras
import pytest
import tensorflow as tf

from gradloop.engine.config import TrainConfig
from gradloop.engine.evaluation import evaluate
from gradloop.engine.loop import fit
from gradloop.engine.options import ConfigError
from gradloop.engine.prediction import predict
from tests.engine.nets import make_config, make_tiny


@pytest.mark.parametrize("call", [fit, evaluate, predict])
@pytest.mark.parametrize(
    "fields",
    [
        {"precision": "mixed_bfloat16"}, {"strategy": "mirrored"}, {"num_replicas": 2},
        {"seed": 12345}, {"deterministic": True}, {"intra_op_threads": 1},
        {"inter_op_threads": 1},
    ],
    ids=lambda fields: next(iter(fields)),
)  # fmt: skip
def test_fit_evaluate_and_predict_raise_alike_before_any_step(dataset, call, fields):
    state = make_tiny()
    before = state.weights_sha256()
    (name,) = fields
    with pytest.raises(ConfigError, match=f"^{name}=") as raised:
        call(state, dataset, TrainConfig(**fields))
    assert "\n" not in str(raised.value)
    assert (state.weights_sha256(), state.progress.num_steps_completed) == (before, 0)


def test_looking_at_the_seed_draws_no_random_number():
    def draw(*, looks):
        keras.utils.set_random_seed(1)
        state = make_tiny()
        if looks:
            predict(state, tf.data.Dataset.from_tensors(tf.ones((1, 4))), TrainConfig(seed=1))
        return float(tf.random.uniform(()))

    assert draw(looks=True) == draw(looks=False)


@pytest.mark.parametrize(
    ("call", "arguments", "message"),
    [
        (fit, {"epochs": 3}, r"TrainConfig\(epochs=3\)"),
        (fit, {"callbacks": []}, r"hooks=\[engine\.KerasCallbacks\(callbacks\)\]"),
        (evaluate, {"batch_size": 4}, r"global_batch_size"),
        (predict, {"verbose": 0}, r"ProgressBar"),
        (fit, {"hook": []}, r"legal are state, x, config.*Did you mean 'hooks'"),
    ],
)
def test_an_argument_of_keras_is_told_where_it_belongs(dataset, call, arguments, message):
    with pytest.raises(TypeError, match=f"engine.{call.__name__} has no .*{message}") as raised:
        call(make_tiny(), dataset, make_config(), **arguments)
    assert "\n" not in str(raised.value)
