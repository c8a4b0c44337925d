"""Data that a new process cannot repeat: named at the start, and refused where they must be."""

import pytest
import tensorflow as tf

from gradloop.engine.hooks import LambdaHook
from gradloop.engine.loop import fit
from tests.engine.nets import make_config, make_tiny
from tests.engine.observers import StopAfter


def saves():
    """Returns a hook that may save."""
    return LambdaHook(on_save_point=lambda info: None)


def shuffled_without_seed(dataset):
    return dataset.unbatch().shuffle(9).batch(4)


def noisy(dataset):
    return dataset.map(lambda x, y: (x + tf.random.normal([]), y))


def unordered(dataset):
    options = tf.data.Options()
    options.deterministic = False
    return dataset.with_options(options)


def held_by_a_function(dataset):
    shuffled = dataset.shuffle(9, seed=1)
    return tf.data.Dataset.range(1).flat_map(lambda _: shuffled)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (shuffled_without_seed, "shuffles without a seed"),
        (noisy, "RandomStandardNormal"),
        (unordered, "deterministic=False"),
        (held_by_a_function, "takes from another dataset"),
    ],
)
def test_what_cannot_be_resumed_exactly_is_said_at_the_start(change, reason, dataset):
    tf.random.set_seed(None)
    changed = change(dataset)
    with pytest.warns(UserWarning, match=rf"cannot be resumed exactly.*{reason}"):
        fit(make_tiny(), changed, make_config(), hooks=[saves()])
    fit(make_tiny(), changed, make_config())  # It is not saved: nothing is said.
    other = rf"other batches of its validation data 'val': .*{reason}"
    with pytest.warns(UserWarning, match=other):
        fit(make_tiny(), dataset, make_config(), validation_data=changed, hooks=[saves()])


def test_what_a_person_states_counts(dataset):
    dataset.is_deterministic = False
    with pytest.warns(UserWarning, match="is_deterministic is False"):
        fit(make_tiny(), dataset, make_config(), hooks=[saves()])
    generated = tf.data.Dataset.from_generator(
        lambda: iter(dataset), output_signature=dataset.element_spec
    )
    generated.is_deterministic = True
    fit(make_tiny(), generated, make_config(), hooks=[saves()])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda d: d.shuffle(9, seed=1), "its order has gone on in this process"),
        (noisy, "other batches the next time, as it has the operation RandomStandardNormal"),
        (held_by_a_function, "its order has gone on in this process"),
    ],
)
def test_some_data_cannot_go_on_within_a_pass_in_the_same_process(change, reason, dataset):
    state, changed = make_tiny(), change(dataset)
    fit(state, changed, make_config(epochs=2), hooks=[StopAfter(4)])
    with pytest.raises(ValueError, match=reason):
        fit(state, changed, make_config(epochs=2), resume=True)
