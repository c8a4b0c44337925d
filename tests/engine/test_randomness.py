"""Random numbers from outside the state: what can be saved is saved, the rest is named."""

import keras
import pytest
import tensorflow as tf

from gradloop import engine
from gradloop.engine.traced_step import check_traced
from tests.engine.nets import build_dense, make_config, make_pipeline
from tests.engine.observers import StopAfter


class Noise(keras.layers.Layer):
    """Adds what a function draws, in training."""

    def __init__(self, draw):
        super().__init__(name="noise")
        self.draw = draw

    def call(self, x, training=False):
        return x + self.draw(tf.shape(x)) if training else x


def make_state(draw, seed=1):
    keras.utils.clear_session(free_memory=False)
    dense = build_dense()
    keras.utils.set_random_seed(seed)
    model = keras.Sequential([keras.Input((4,)), Noise(draw), *dense.layers])
    return engine.TrainState(model, "sgd", loss="sparse_categorical_crossentropy")


def train(state, arrays, *hooks, **kwargs):
    config = make_config(epochs=2)
    return engine.fit(state, make_pipeline(arrays), config, hooks=hooks, **kwargs)


@pytest.mark.parametrize("stop", [0, 5, 7])
def test_seedless_numbers_of_keras_go_on(arrays, tmp_path, stop):
    whole = make_state(keras.random.normal)
    expected = train(whole, arrays)

    state = make_state(keras.random.normal)
    if stop:
        train(state, arrays, StopAfter(stop), engine.SaveCheckpoint(tmp_path))
    else:
        state.build(make_pipeline(arrays).element_spec)
        keras.random.normal([2])  # what the process has drawn before
        engine.save_checkpoint(tmp_path, state)

    state = make_state(keras.random.normal, seed=9)  # Its own generator would begin elsewhere.
    state.build(make_pipeline(arrays).element_spec)
    engine.restore_checkpoint(tmp_path, state)
    found = train(state, arrays, resume=True)
    is_same = found.history == expected.history
    assert is_same == (stop > 0)
    assert (state.weights_sha256() == whole.weights_sha256()) == is_same
    if not stop:
        keras.utils.clear_session(free_memory=False)


def names_of(state):
    return [name for name, _ in state.named_variables() if name.startswith("random/")]


def test_the_generator_is_part_of_the_state_once_there_is_one_and_is_not_made_for_it(arrays):
    state = make_state(tf.zeros)
    train(state, arrays)
    assert names_of(state) == []
    state = make_state(keras.random.normal)
    train(state, arrays)
    assert names_of(state) == ["random/seed_generator_state"]


def test_a_file_without_the_generator_is_read(arrays, tmp_path):
    state = make_state(tf.zeros)
    train(state, arrays)
    path = engine.save_checkpoint(tmp_path, state)
    keras.random.normal([2])
    assert names_of(state)
    engine.restore_checkpoint(path, state)


def test_an_extra_cannot_take_its_name():
    with pytest.raises(ValueError, match=r"extras\['random'\]: the name is taken"):
        engine.TrainState(build_dense(), extras={"random": keras.random.SeedGenerator(1)})


def sampled(shape):
    classes = tf.zeros([2, 1], "int64")
    return tf.cast(tf.random.log_uniform_candidate_sampler(classes, 1, 4, True, 9)[0], "float32")


STATEFUL = {
    "RandomStandardNormal": tf.random.normal,
    "RandomUniform": tf.random.uniform,
    "TruncatedNormal": tf.random.truncated_normal,
    "RandomShuffle": lambda shape: tf.random.shuffle(tf.zeros(shape)),
    "RandomUniformInt": lambda shape: tf.random.uniform(shape, maxval=3, dtype="int32"),
    "Multinomial": lambda shape: tf.random.categorical(tf.zeros([1, 4]), 4),
    "RandomGamma": lambda shape: tf.random.gamma([4], 1.0),
    "RandomPoissonV2": lambda shape: tf.random.poisson([4], 1.0),
    "LogUniformCandidateSampler": sampled,
}


@pytest.mark.parametrize("operation", STATEFUL)
def test_each_operation_without_a_state_of_its_own_is_named_once(operation):
    def draw_twice():
        return [STATEFUL[operation]([2, 4]) for _ in range(2)]

    state = make_state(tf.zeros)
    state.resumption.is_saved = True
    traced = tf.function(draw_twice).get_concrete_function()
    with pytest.warns(UserWarning, match=f"step draws random numbers with {operation}, at ") as w:
        check_traced(traced, state, "step", trains=True)
    assert len(w) == 1
    check_traced(traced, state, "step", trains=False)
    stateless = tf.function(lambda: tf.random.stateless_truncated_normal([2], [1, 2]))
    check_traced(stateless.get_concrete_function(), state, "step", trains=True)


def test_the_layer_is_named_where_a_hook_saves_the_run(arrays, tmp_path):
    message = r"with RandomStandardNormal, at sequential.*/noise.*other numbers.*state\.seed\(\)"
    with pytest.warns(UserWarning, match=message) as caught:
        train(make_state(tf.random.normal), arrays, engine.SaveCheckpoint(tmp_path))
    assert len(caught) == 1


def test_they_are_not_where_nobody_saves_the_run(arrays):
    train(make_state(tf.random.normal), arrays)


def test_numbers_of_a_seed_and_of_evaluation_are_no_fault(arrays, tmp_path):
    class AlsoInEvaluation(Noise):
        def call(self, x, training=False):
            return x if training else x + tf.random.normal(tf.shape(x))

    keras.utils.clear_session(free_memory=False)
    layers = [AlsoInEvaluation(None), keras.layers.Dropout(0.2), keras.layers.Dense(3, "softmax")]
    model = keras.Sequential([keras.Input((4,)), *layers])
    state = engine.TrainState(model, "sgd", loss="sparse_categorical_crossentropy")

    def step(state, batch):
        noise = tf.random.stateless_normal(tf.shape(batch[0]), seed=state.seed())
        return engine.train_step(state, (batch[0] + noise, batch[1]))

    data, save = make_pipeline(arrays), engine.SaveCheckpoint(tmp_path)
    train(state, arrays, save, train_step=step, validation_data=data)
