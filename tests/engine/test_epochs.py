"""Epochs, steps and the ends of data mean what they mean to Keras."""

import keras
import pytest
import tensorflow as tf

from gradloop.engine.evaluation import evaluate
from gradloop.engine.loop import fit
from tests.engine.against_fit import assert_fits_alike
from tests.engine.nets import (
    build_dense,
    compile_arguments,
    make_config,
    make_state,
    mirrored,
    num_updates,
)

IGNORED = ("ignore:Your input ran out of data", "ignore:The data ended after")


@pytest.mark.parametrize(
    "fields",
    [
        {"epochs": 3, "validation_freq": 2, "validation_steps": 2},
        {"epochs": 3, "initial_epoch": 1, "steps_per_execution": 1},
        # 7 batches: the third epoch is cut.
        {"epochs": 3, "steps_per_epoch": 3, "steps_per_execution": 2},
        {"epochs": 2, "steps_per_epoch": 7, "steps_per_execution": "auto"},
        {"epochs": 2, "steps_per_epoch": 9, "steps_per_execution": 32},
    ],
    ids=lambda fields: "-".join(f"{name}={value}" for name, value in fields.items()),
)
@pytest.mark.filterwarnings(*IGNORED)
def test_epochs_and_steps_mean_what_they_mean_to_keras(dataset, fields):
    assert_fits_alike(dataset, val_ds=dataset, **fields)


@pytest.mark.parametrize("steps_per_epoch", [None, 4])
@pytest.mark.filterwarnings(*IGNORED)
def test_unknown_cardinality_is_trained_to_the_end(dataset, steps_per_epoch):
    unknown = dataset.filter(lambda x, y: True)
    # Plain SGD, no dropout: fit starts a step on the batch that is not there, so that its
    # iterations and its dropout masks move on by one too many.
    _, history = assert_fits_alike(
        unknown, build=build_dense, arguments=lambda: {**compile_arguments(), "optimizer": "sgd"},
        val_ds=unknown, epochs=2, steps_per_epoch=steps_per_epoch,
    )  # fmt: skip
    assert history.epoch_steps == ([7, 7] if steps_per_epoch is None else [4, 3])


def test_generator_is_read_anew_each_epoch(arrays):
    x, y, _ = arrays

    def generate():
        yield from ((x[i : i + 5], y[i : i + 5]) for i in range(0, 20, 5))

    signature = (tf.TensorSpec((None, 4), tf.float32), tf.TensorSpec((None,), tf.int64))
    generated = tf.data.Dataset.from_generator(generate, output_signature=signature)
    history = fit(make_state(), generated, make_config(epochs=3))
    assert history.epoch_steps == [4, 4, 4]


def test_infinite_data_goes_on_where_the_last_epoch_stopped(dataset):
    assert_fits_alike(dataset.repeat(), epochs=3, steps_per_epoch=5, val_ds=dataset)


def test_infinite_data_needs_steps(dataset):
    with pytest.raises(ValueError, match="no end: set steps_per_epoch"):
        fit(make_state(), dataset.repeat(), make_config())
    with pytest.raises(ValueError, match="validation_steps"):
        fit(make_state(), dataset, make_config(), validation_data=dataset.repeat())


class Indexed(keras.utils.PyDataset):
    """As many batches as its length says, which is the next one after each epoch."""

    def __init__(self, arrays, *lengths):
        super().__init__()
        self._arrays, self._lengths = arrays[:2], list(lengths)

    @property
    def num_batches(self):
        return self._lengths[0]

    def __getitem__(self, index):
        start = index % 6 * 4
        return tuple(array[start : start + 4] for array in self._arrays)

    def on_epoch_end(self):
        self._lengths[:-1] = self._lengths[1:-1]


def test_data_that_are_shorter_than_they_say_end_the_epoch_with_a_warning(arrays):
    state = make_state()
    with pytest.warns(UserWarning, match=r"after 4 of 6 steps .*\(__len__\)"):
        history = fit(state, Indexed(arrays, 6, 6, 4), make_config(epochs=3))
    assert history.epoch_steps == [6, 4, 4]
    assert state.progress.num_steps_completed == num_updates(state) == 14


def test_a_pydataset_without_a_length_is_endless(arrays, dataset):
    endless = Indexed(arrays, None)
    with pytest.raises(ValueError, match="no end: set steps_per_epoch"):
        fit(make_state(), endless, make_config(), shuffle=False)
    with pytest.raises(ValueError, match="validation_steps"):
        fit(make_state(), dataset, make_config(), validation_data=endless)
    config = make_config(epochs=2, steps_per_epoch=5)
    assert fit(make_state(), endless, config, shuffle=False).epoch_steps == [5, 5]


def test_too_few_data_for_steps_per_epoch_warns_once_an_epoch(dataset):
    with pytest.warns(UserWarning, match="after 7 of 9 steps") as caught:
        history = fit(make_state(), dataset, make_config(epochs=2, steps_per_epoch=9))
    assert history.epoch_steps == [7, 7]
    assert len([w for w in caught if "of 9 steps" in str(w.message)]) == 2


@pytest.mark.parametrize("steps_per_epoch", [None, 2])
@pytest.mark.parametrize("is_known", [True, False])
@pytest.mark.filterwarnings("ignore")
def test_empty_dataset_is_an_error(dataset, is_known, steps_per_epoch):
    empty = dataset.take(0) if is_known else dataset.filter(lambda x, y: False)
    with pytest.raises(ValueError, match="no batch"):
        fit(make_state(), empty, make_config(steps_per_epoch=steps_per_epoch))


@pytest.mark.parametrize("is_known", [True, False])
def test_empty_validation_or_evaluation_is_an_error(dataset, is_known):
    empty = dataset.take(0) if is_known else dataset.filter(lambda x, y: False)
    with pytest.raises(ValueError, match="no batch"):
        evaluate(make_state(), empty, make_config())
    with pytest.raises(ValueError, match="no batch"):
        fit(make_state(), dataset, make_config(), validation_data=empty)


def test_a_distributed_dataset_gives_the_same_bits(dataset):
    distributed = mirrored().experimental_distribute_dataset(dataset)
    losses = [
        fit(make_state(strategy=mirrored()), data, make_config(epochs=2)).history["loss"]
        for data in (dataset, distributed)
    ]
    assert losses[0] == losses[1]


@pytest.mark.parametrize(
    "distribute",
    [
        lambda strategy, data: strategy.experimental_distribute_dataset(data),
        lambda strategy, data: lambda context: data,
    ],
)
def test_class_weights_of_a_distributed_dataset_are_refused(distribute, dataset):
    data = distribute(mirrored(), dataset)
    with pytest.raises(ValueError, match=r"distributed already: .*dataset\.map"):
        fit(make_state(strategy=mirrored()), data, make_config(), class_weight={0: 2.0})
