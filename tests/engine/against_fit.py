"""The same training by Keras and by the engine: all bits of history and weights are equal."""

import numpy as np

from gradloop.engine.loop import fit
from tests.engine import nets

# The fields of a config that are arguments of `keras.Model.fit`.
_OF_FIT = {"epochs", "initial_epoch", "steps_per_epoch", "validation_freq", "validation_steps"}


def assert_same_history(actual, expected):
    assert list(actual) == list(expected)
    for name in expected:
        np.testing.assert_array_equal(
            np.array(actual[name]), np.array(expected[name]), err_msg=name
        )


def assert_same_weights(model, expected):
    for weight, other in zip(model.variables, expected.variables, strict=True):
        np.testing.assert_array_equal(weight.numpy(), other.numpy(), err_msg=weight.path)


def assert_fits_alike(
    train_ds,
    *,
    build=nets.build_model,
    arguments=nets.compile_arguments,
    strategy=None,
    val_ds=None,
    class_weight=None,
    **fields,
):
    """Returns the engine's state and history."""
    expected = nets.make_compiled(build, arguments, strategy)
    keras_history = expected.fit(
        train_ds, validation_data=val_ds, class_weight=class_weight, verbose=0, shuffle=False,
        **{name: value for name, value in fields.items() if name in _OF_FIT},
    )  # fmt: skip
    state = nets.make_state(build, arguments, strategy)
    history = fit(
        state, train_ds, nets.make_config(**fields),
        validation_data=val_ds, class_weight=class_weight,
    )  # fmt: skip
    assert_same_history(history.history, keras_history.history)
    assert history.epoch == keras_history.epoch
    assert_same_weights(state.model, expected)
    assert nets.num_updates(state) == sum(history.epoch_steps) > 0
    return state, history
