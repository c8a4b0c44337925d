"""global_batch_size is checked against the batches: at once, or when the first one is seen."""

import keras
import pytest
import tensorflow as tf

from gradloop.engine.config import TrainConfig
from gradloop.engine.evaluation import evaluate
from gradloop.engine.loop import fit
from gradloop.engine.options import ConfigError
from gradloop.engine.prediction import predict
from gradloop.engine.state import TrainState
from tests.engine.nets import (
    NUM_BATCHES,
    build_dense,
    make_config,
    make_pipeline,
    make_state,
    make_tiny,
    mirrored,
    num_updates,
)


def slices(arrays, num_examples=None):
    return tf.data.Dataset.from_tensor_slices(tuple(a[:num_examples] for a in arrays[:2]))


def of_unknown_length(dataset):
    return dataset.filter(lambda x, y: True)


# All have batches of 4; where the number of examples allows it, the last one has 2.
TOLD = {
    "pipeline": make_pipeline,
    "pipeline of full batches": lambda arrays: make_pipeline(arrays, drop_remainder=True),
    "static": lambda arrays: slices(arrays).batch(4, drop_remainder=True),
    "static, of unknown length": lambda arrays: of_unknown_length(TOLD["static"](arrays)),
}
SEEN = {
    "dynamic": lambda arrays: slices(arrays).batch(4),
    "of unknown length": lambda arrays: of_unknown_length(slices(arrays).batch(4)),
    "endless": lambda arrays: slices(arrays).batch(4).repeat(),
    "of the pipeline's": lambda arrays: make_pipeline(arrays).map(lambda x, y: (x, y)),
}


def train(dataset, size, *, state=None, steps_per_execution=3):
    config = make_config(
        global_batch_size=size, steps_per_epoch=NUM_BATCHES, steps_per_execution=steps_per_execution
    )
    state = state or make_tiny()
    return fit(state, dataset, config)


def refuses(dataset, size, *, found=4, **kwargs):
    message = (
        f"global_batch_size={size}, but the batches of the dataset have {found} examples: "
        f"set global_batch_size={found}, leave it out"
    )
    with pytest.raises(ConfigError, match=message):
        train(dataset, size, **kwargs)


@pytest.mark.parametrize("kind", TOLD)
@pytest.mark.parametrize("size", [3, 5])
def test_a_dataset_that_tells_its_batch_size_is_refused_before_any_step(arrays, kind, size):
    state = make_tiny()
    refuses(TOLD[kind](arrays), size, state=state)
    assert (num_updates(state), state.is_built) == (0, False)


@pytest.mark.parametrize("kind", SEEN)
@pytest.mark.parametrize("size", [3, 5])
def test_another_dataset_is_refused_after_its_first_execution(arrays, kind, size):
    state = make_tiny()
    refuses(SEEN[kind](arrays), size, state=state)
    assert num_updates(state) == 3
    assert state.progress.num_steps_completed == 0


@pytest.mark.parametrize("steps_per_execution", [1, 3, 100])
@pytest.mark.parametrize("kind", TOLD | SEEN)
@pytest.mark.filterwarnings("ignore:The data ended after")
def test_the_right_size_passes_with_a_partial_last_batch(arrays, kind, steps_per_execution):
    dataset = (TOLD | SEEN)[kind](arrays)
    history = train(dataset, 4, steps_per_execution=steps_per_execution)
    assert history.num_steps >= NUM_BATCHES - 1


@pytest.mark.parametrize("kind", ["of unknown length", "endless"])
def test_short_batches_are_noticed_in_executions_of_one_step_too(arrays, kind):
    refuses(SEEN[kind](arrays), 5, steps_per_execution=1)


@pytest.mark.parametrize("change", [lambda dataset: dataset, of_unknown_length])
def test_a_single_short_batch_may_be_the_rest_of_one(arrays, change):
    dataset = change(slices(arrays, 2).batch(4))
    history = fit(make_tiny(), dataset, make_config(epochs=2, global_batch_size=4))
    assert history.epoch_steps == [1, 1]


@pytest.mark.parametrize("change", [lambda dataset: dataset, of_unknown_length])
def test_a_single_batch_that_is_too_large_is_refused(arrays, change):
    dataset = change(slices(arrays, 4).batch(4))
    with pytest.raises(ConfigError, match="have 4 examples"):
        fit(make_tiny(), dataset, make_config(global_batch_size=3))


def test_a_pipeline_of_fewer_examples_than_a_batch(arrays):
    dataset = make_pipeline([a[:2] for a in arrays])
    assert fit(make_tiny(), dataset, make_config(global_batch_size=4)).num_steps == 1


@pytest.mark.parametrize("kind", ["dynamic", "static", "of unknown length"])
def test_the_parts_of_all_replicas_count_together(arrays, kind):
    dataset = (TOLD | SEEN)[kind](arrays).take(6)
    state = make_state(build_dense, strategy=mirrored())
    fit(state, dataset, make_config(global_batch_size=4, num_replicas=2))
    with pytest.raises(ConfigError, match="have 4 examples"):
        fit(state, dataset, make_config(global_batch_size=2))


@pytest.mark.parametrize("input", ["resident", "streamed"])
def test_the_size_is_checked_whoever_makes_the_batches(arrays, input):
    if input == "resident" and tf.config.list_physical_devices("GPU"):
        pytest.skip("the graph makes batches on a CPU alone")
    fit(make_tiny(), make_pipeline(arrays), make_config(global_batch_size=4, input=input))
    with pytest.raises(ConfigError, match="have 4 examples"):
        fit(make_tiny(), make_pipeline(arrays), make_config(global_batch_size=8, input=input))


@pytest.mark.parametrize(
    ("kind", "size"), [("dynamic", None), ("static", 3), ("of unknown length", None)]
)
def test_a_size_that_does_not_divide_among_replicas_is_said_once(arrays, kind, size):
    x, y, _ = (array[:20] for array in arrays)
    dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(3, drop_remainder=kind == "static")
    dataset = of_unknown_length(dataset) if kind == "of unknown length" else dataset
    config = make_config(global_batch_size=size, epochs=2, uneven="fit")
    message = (
        "Batches of 3 do not divide among 2 replicas: the examples of the smaller parts weigh "
        "more, as in fit. Use a multiple of 2, or uneven='exact'."
    )
    state = make_state(build_dense, strategy=mirrored())
    with pytest.warns(UserWarning) as caught:
        fit(state, dataset, config, validation_data=dataset)
    assert [str(one.message) for one in caught] == [message]


def test_a_partial_last_batch_and_one_replica_are_no_reason_to_warn(arrays):
    dataset = slices(arrays, 7).batch(4)  # the last one has 3
    fit(make_state(build_dense, strategy=mirrored()), dataset, make_config(epochs=2))
    evaluate(make_state(build_dense, strategy=mirrored()), slices(arrays).batch(3), make_config())
    fit(make_tiny(), slices(arrays).batch(3), make_config())


class OfScalars(keras.Model):
    """Takes one example that has no batch around it."""

    def __init__(self):
        super().__init__()
        self.head = keras.layers.Dense(1)

    def call(self, x):
        return self.head(keras.ops.reshape(x, (1, 1)))


def test_batches_without_a_leading_dimension_have_no_size():
    scalars = tf.data.Dataset.from_tensors((1.0, 2.0)).repeat(3)
    history = fit(
        TrainState(OfScalars(), "sgd"), scalars, TrainConfig(global_batch_size=4),
        train_step=lambda state, batch: {"sum": batch[0] + batch[1]},
    )  # fmt: skip
    assert history.history == {"sum": [3.0]}


def test_it_is_the_size_of_training_batches_alone(arrays):
    config, others = make_config(global_batch_size=4), slices(arrays).batch(5)
    state = make_tiny()
    fit(state, slices(arrays).batch(4), config, validation_data=others)
    evaluate(state, others, config)
    predict(state, others, config)
