"""Data that cannot seek: resumed exactly where it is deterministic, else said at the start."""

import contextlib
import copy
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradloop.engine.history import StopKind
from gradloop.engine.hooks import Hook, SaveCheckpoint
from gradloop.engine.loop import fit
from gradloop.engine.storage import checkpoint
from tests.engine.against_fit import assert_same_weights
from tests.engine.nets import (
    build_dense,
    compile_arguments,
    make_config,
    make_pipeline,
    make_state,
)
from tests.engine.observers import StopAfter


class Batches(keras.utils.PyDataset):
    """Shuffles itself at the end of epochs, from a seed."""

    is_deterministic = True

    def __init__(self, arrays):
        super().__init__()
        self._x, self._y = arrays[:2]
        self._rng = np.random.default_rng(0)
        self._order = np.arange(len(self._x))

    def __len__(self):
        return 5

    def __getitem__(self, index):
        chosen = self._order[index * 4 : index * 4 + 4]
        return self._x[chosen], self._y[chosen]

    def on_epoch_end(self):
        self._rng.shuffle(self._order)


def shuffled(arrays, seed=3):
    examples = tf.data.Dataset.from_tensor_slices(arrays[:2])
    return examples.shuffle(26, seed=seed).batch(4)


def generated(arrays):
    def batches():
        for start in range(0, 24, 4):
            yield arrays[0][start : start + 4], arrays[1][start : start + 4]

    specs = (tf.TensorSpec((None, 4)), tf.TensorSpec((None,), tf.int64))
    dataset = tf.data.Dataset.from_generator(batches, output_signature=specs)
    dataset.is_deterministic = True
    return dataset


def joined(arrays):
    """What comes last draws its order when the first part has ended."""
    first, last = (
        tf.data.Dataset.from_tensor_slices(tuple(array[part] for array in arrays[:2]))
        for part in (slice(0, 12), slice(12, 24))
    )
    return first.concatenate(last.shuffle(12, seed=3)).batch(4)


class Position:
    """Counts the batches that it has given, of six a pass."""

    def __init__(self, arrays, is_endless):
        self.number = 0
        self.arrays, self.is_endless = arrays, is_endless

    def batches(self):
        while self.number < 6 or self.is_endless:
            start = self.number % 6 * 4
            self.number += 1
            yield self.arrays[0][start : start + 4], self.arrays[1][start : start + 4]
        self.number = 0


def counted(arrays, *, is_endless=False):
    """A dataset with a state of its own."""
    position = Position(arrays, is_endless)
    specs = (tf.TensorSpec((None, 4)), tf.TensorSpec((None,), tf.int64))
    dataset = tf.data.Dataset.from_generator(position.batches, output_signature=specs)
    dataset.state = lambda: {"number": position.number}
    dataset.restore = lambda state: setattr(position, "number", state["number"])
    return dataset


def fused(arrays):
    """Two passes in one."""
    examples = tf.data.Dataset.from_tensor_slices(tuple(array[:12] for array in arrays[:2]))
    both = tf.data.experimental.shuffle_and_repeat(12, 2, seed=3)
    return examples.apply(both).batch(4)


def held(arrays):
    """A function has the dataset that shuffles, and takes two passes of it."""
    batches = shuffled(tuple(array[:12] for array in arrays))
    dataset = tf.data.Dataset.range(2).flat_map(lambda _: batches)
    dataset.is_deterministic = True
    return dataset


def fresh_state():
    keras.utils.clear_session(free_memory=False)
    return make_state(build_dense, compile_arguments)


MAKERS = {
    "shuffled": shuffled,
    "asked": shuffled,
    "repeated": lambda arrays: shuffled(arrays).repeat(),
    "twice": lambda arrays: shuffled(tuple(array[:12] for array in arrays)).repeat(2),
    "fused": fused,
    "joined": joined,
    "cached": lambda arrays: shuffled(arrays).cache(),
    "held": held,
    "generated": generated,
    "counted": counted,
    "PyDataset": Batches,
}
STEPS = {"repeated": 5, "asked": 7}  # of an epoch, if the config says it
TAKEN_WHOLE = ("repeated", "twice", "fused", "joined", "cached", "held")  # all passes are


def compare_resumed(name, make_stop, arrays, tmp_path):
    """Compares a run that ends early and goes on with one that does not."""
    config, make = make_config(epochs=3, steps_per_epoch=STEPS.get(name)), MAKERS[name]
    whole = fresh_state()
    expected = fit(whole, make(arrays), config)

    stopped = fresh_state()
    fit(stopped, make(arrays), config, hooks=[make_stop(expected.epoch_steps[0])])
    checkpoint.save(tmp_path, stopped)
    state, dataset = fresh_state(), make(arrays)
    state.build(shuffled(arrays).element_spec)
    checkpoint.restore(tmp_path, state)
    resumed = fit(state, dataset, config, resume=True)
    assert_same_weights(state.model, whole.model)
    assert resumed.history == expected.history


@pytest.mark.parametrize("stop_at", [2, 5, 12])
@pytest.mark.parametrize("name", MAKERS)
def test_a_dataset_that_cannot_seek_is_resumed_exactly(name, stop_at, arrays, tmp_path):
    number = f" {stop_at}" if name in TAKEN_WHOLE else ""
    reads_again = pytest.warns(UserWarning, match=f"{number} batches are read again")
    with reads_again if name != "counted" else contextlib.nullcontext():
        compare_resumed(name, lambda _: StopAfter(stop_at), arrays, tmp_path)


class Pause(Hook):
    """Ends the run after a step, and lets its epoch end first."""

    def __init__(self, num_steps):
        self.every_steps = num_steps

    def on_execution_end(self, info):
        if info.progress.num_steps_completed == self.every_steps:
            info.request_stop("later", kind=StopKind.STEP_LIMIT)


# Whether a step was the last of an epoch, the dataset of unknown length with a state knows later.
@pytest.mark.parametrize("name", [name for name in MAKERS if name != "counted"])
@pytest.mark.filterwarnings("ignore:The dataset has no seek")
def test_a_pause_at_the_end_of_an_epoch_changes_nothing(name, arrays, tmp_path):
    compare_resumed(name, Pause, arrays, tmp_path)


@pytest.mark.parametrize(
    ("name", "num_batches"), [("shuffled", 7), ("generated", 6), ("PyDataset", 5)]
)
def test_after_an_epoch_that_a_hook_has_ended_comes_a_whole_one(
    name, num_batches, arrays, tmp_path
):
    stopped, state, config = fresh_state(), fresh_state(), make_config(epochs=2)
    fit(stopped, MAKERS[name](arrays), config, hooks=[Pause(3)])
    checkpoint.save(tmp_path, stopped)
    state.build(shuffled(arrays).element_spec)
    checkpoint.restore(tmp_path, state)
    history = fit(state, MAKERS[name](arrays), config, resume=True)
    assert history.epoch_steps == [3, num_batches]


def whole_and_part(arrays):
    dataset = shuffled(arrays)
    return dataset, dataset.take(3)


def two_parts(arrays):
    dataset = shuffled(arrays)
    return dataset.take(4), {"val": dataset.skip(4), "other": shuffled(arrays)}


def only_validation(arrays):
    return make_pipeline(arrays), shuffled(arrays)


def a_state_of_its_own(arrays):
    dataset = counted(arrays, is_endless=True)
    return make_pipeline(arrays), {"val": dataset, "again": dataset}


class StopInEvaluation(Hook):
    """Asks for the end of the run when an evaluation ends, the first of which has number 1."""

    def __init__(self, number):
        self._number = number

    def on_eval_end(self, info):
        self._number -= 1
        if not self._number:
            info.request_stop("later", immediately=True)


@pytest.mark.parametrize(
    ("make", "stop"),
    [
        (whole_and_part, StopAfter(5)),
        (whole_and_part, StopInEvaluation(4)),
        (two_parts, StopAfter(6)),
        (only_validation, StopInEvaluation(2)),
        (a_state_of_its_own, StopInEvaluation(2)),
    ],
)
def test_the_data_of_validations_are_resumed_too(make, stop, arrays, tmp_path):
    config = make_config(epochs=2, validation_steps=2, validate_every_steps=2)

    def go(state, hooks=(), *, resume=False):
        dataset, validation_data = make(arrays)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The dataset has no seek")
            return fit(
                state,
                dataset,
                config,
                validation_data=validation_data,
                hooks=[*hooks, SaveCheckpoint(tmp_path)] if hooks or resume else (),
                resume=resume,
            )

    whole = fresh_state()
    expected = go(whole)
    go(fresh_state(), [copy.copy(stop)])
    state = fresh_state()
    state.build(shuffled(arrays).element_spec)
    checkpoint.restore(tmp_path, state)
    resumed = go(state, resume=True)
    assert_same_weights(state.model, whole.model)
    assert resumed.history == expected.history


def test_arrays_are_resumed_in_their_order(arrays, tmp_path):
    config = make_config(epochs=2, global_batch_size=4)
    keras.utils.set_random_seed(5)
    whole = fresh_state()
    fit(whole, arrays[0], config, y=arrays[1])
    stopped = fresh_state()
    fit(stopped, arrays[0], config, y=arrays[1], hooks=[StopAfter(4)])
    checkpoint.save(tmp_path, stopped)
    state = fresh_state()
    state.build(shuffled(arrays).element_spec)
    checkpoint.restore(tmp_path, state)
    with pytest.warns(UserWarning, match="4 batches are read again"):
        fit(state, arrays[0], config, y=arrays[1], resume=True)
    assert_same_weights(state.model, whole.model)
