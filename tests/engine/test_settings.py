"""A run that goes on with other settings says so, or is refused."""

import keras
import pytest

from gradloop.engine.loop import fit
from gradloop.engine.options import ConfigError
from gradloop.engine.settings import check_settings
from gradloop.engine.storage import checkpoint
from tests.engine.nets import (
    build_dense,
    compile_arguments,
    make_config,
    make_pipeline,
    make_state,
    mirrored,
)
from tests.engine.observers import StopAfter


def save(arrays, directory, stop_at, **fields):
    keras.utils.clear_session(free_memory=False)
    state = make_state(build_dense, compile_arguments)
    is_within = stop_at < (fields.get("steps_per_epoch") or 7)
    hooks = [StopAfter(stop_at)] if is_within else []
    fit(state, make_pipeline(arrays), make_config(**fields), hooks=hooks)
    return checkpoint.save(directory, state)


def resume(arrays, path, *, strategy=None, arguments=None, **fields):
    keras.utils.clear_session(free_memory=False)
    changed = lambda: compile_arguments() | (arguments() if arguments else {})  # noqa: E731
    state = make_state(build_dense, changed, strategy)
    dataset = make_pipeline(arrays)
    state.build(dataset.element_spec)
    checkpoint.restore(path, state)
    fit(state, dataset, make_config(epochs=2, **fields), resume=True)
    return state


def less_momentum():
    return {"optimizer": keras.optimizers.SGD(0.1, momentum=0.5)}


def one_class_less():
    return {"loss": keras.losses.SparseCategoricalCrossentropy(ignore_class=2)}


def test_the_same_settings_say_nothing(arrays, tmp_path):
    resume(arrays, save(arrays, tmp_path, 4, global_batch_size=4), global_batch_size=4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arguments": less_momentum}, '"momentum": 0.9.*"momentum": 0.5'),
        ({"arguments": one_class_less}, '"ignore_class": null.*"ignore_class": 2'),
        ({"numerics": "fast"}, r"numerics=exact \(now fast\)"),
        ({"run_eagerly": True}, r"run_eagerly=false \(now true\)"),
    ],
)
def test_what_changes_the_bits_is_warned_about(changes, message, arrays, tmp_path):
    path = save(arrays, tmp_path, 4)
    with pytest.warns(UserWarning, match=rf"The run was saved with .*{message}.*from here on"):
        resume(arrays, path, **changes)


def test_another_number_of_replicas_is_warned_about(arrays, tmp_path):
    path = save(arrays, tmp_path, 7)
    # What follows from it is not named, such as that gradients are clipped after their sum.
    with pytest.warns(UserWarning, match=r"saved with num_replicas=1 \(now 2\): from here on"):
        resume(arrays, path, strategy=mirrored(2))


def test_the_learning_rate_is_part_of_what_was_saved(arrays, tmp_path):
    path = save(arrays, tmp_path, 4)
    faster = lambda: {"optimizer": keras.optimizers.SGD(0.5, momentum=0.9)}  # noqa: E731
    state = resume(arrays, path, arguments=faster)
    assert float(state.learning_rate()) == pytest.approx(0.1)


def test_steps_of_other_examples_are_refused_within_an_epoch_alone(arrays, tmp_path):
    path = save(arrays, tmp_path / "within", 4, steps_per_epoch=6)
    with pytest.raises(ConfigError, match=r"within an epoch with steps_per_epoch=6 \(now 5\)"):
        resume(arrays, path, steps_per_epoch=5)
    path = save(arrays, tmp_path / "end", 5, steps_per_epoch=5)
    with pytest.warns(UserWarning, match=r"steps_per_epoch=5 \(now 7\)"):
        resume(arrays, path)


def test_a_run_of_which_nothing_is_known_goes_on():
    check_settings(None, {"loss": "mse"}, is_within_epoch=True)
