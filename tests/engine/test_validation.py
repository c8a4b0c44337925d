"""Validation: on several datasets, and within epochs."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradloop import engine
from gradloop.engine.storage.writers import MemoryWriter
from tests.engine.nets import NUM_BATCHES, make_config, make_pipeline, make_state


def other(arrays):
    return -arrays[0], arrays[1]


def dataset_of(arrays):
    return tf.data.Dataset.from_tensor_slices(arrays[:2]).batch(4)


def test_datasets_have_names(arrays, dataset):
    sets = {"val": dataset, "test": other(arrays)}
    history = engine.fit(make_state(), dataset, make_config(epochs=2), validation_data=sets)
    assert set(history.history) == {
        "loss", "accuracy", "val_loss", "val_accuracy", "test_loss", "test_accuracy",
    }  # fmt: skip
    alone = engine.fit(make_state(), dataset, make_config(epochs=2), validation_data=dataset)
    assert history.history["val_loss"] == alone.history["val_loss"]
    apart = engine.fit(
        make_state(), dataset, make_config(epochs=2), validation_data=dataset_of(other(arrays))
    )
    np.testing.assert_allclose(history.history["test_loss"], apart.history["val_loss"], rtol=1e-5)
    assert history.history["test_loss"] != history.history["val_loss"]
    assert history.history["loss"] == alone.history["loss"]


@pytest.mark.parametrize("kind", ["list", "generator", "function"])
def test_named_data_are_of_any_kind_that_unnamed_ones_are(arrays, dataset, kind):
    def make():
        if kind == "function":
            return lambda context: dataset_of(arrays)
        return list(arrays[:2]) if kind == "list" else (arrays[:2] for _ in itertools.count())

    config = make_config(validation_steps=1)
    named, alone = (
        engine.fit(make_state(), dataset, config, validation_data=data).history
        for data in ({"val": make()}, make())
    )
    assert named == alone
    assert "val_accuracy" in named


def test_hooks_see_which_one_is_evaluated(arrays, dataset):
    names = []
    hook = engine.LambdaHook(on_eval_begin=lambda info: names.append(info.eval_name))
    sets = {"val": dataset, "test": dataset}
    state = make_state()
    engine.fit(state, dataset, make_config(), validation_data=sets, hooks=[hook])
    engine.evaluate(state, dataset, make_config(), hooks=[hook])
    assert names == ["val", "test", ""]


def test_early_stopping_may_watch_any_of_them(dataset):
    hook = engine.EarlyStopping("test_loss", patience=0, min_delta=9.0)
    history = engine.fit(
        make_state(),
        dataset,
        make_config(epochs=5),
        validation_data={"test": dataset},
        hooks=[hook],
    )
    assert history.epoch == [0, 1]


def test_a_dict_of_arrays_is_the_inputs_of_a_model():
    inputs = {"a": keras.Input((2,), name="a"), "b": keras.Input((2,), name="b")}

    class Sum(keras.layers.Layer):
        def call(self, x):
            self.add_loss(tf.reduce_mean(x))
            return x

    model = keras.Model(inputs, Sum()(keras.layers.Dense(1)(inputs["a"] + inputs["b"])))
    state = engine.TrainState(model, "sgd")
    x = {"a": np.ones((4, 2), "float32"), "b": np.ones((4, 2), "float32")}
    history = engine.fit(state, x, engine.TrainConfig(), validation_data=x)
    assert set(history.history) == {"loss", "val_loss"}


@pytest.mark.parametrize("period", [3, NUM_BATCHES])
def test_validation_within_epochs_changes_no_number(dataset, period):
    seen, writer = [], MemoryWriter()
    hook = engine.LambdaHook(
        on_validation_end=lambda info: seen.append(
            (info.progress.num_steps_completed, sorted(info.logs))
        )
    )
    hooks = [hook, engine.WriteMetrics(writer, every_steps=3)]
    config = make_config(epochs=2, validate_every_steps=period)
    state, plain = make_state(), make_state()
    history = engine.fit(state, dataset, config, validation_data=dataset, hooks=hooks)
    wanted = engine.fit(plain, dataset, make_config(epochs=2), validation_data=dataset)
    assert history.history == wanted.history
    for a, b in zip(state.model.variables, plain.model.variables, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
    steps = [step for step in range(1, 2 * NUM_BATCHES + 1) if step % period == 0]
    assert seen == [(step, ["val_accuracy", "val_loss"]) for step in steps]
    records = [r["step"] for r in writer.records if r["kind"] == "execution" and "val_loss" in r]
    assert records == steps


def test_what_was_validated_at_the_last_step_is_not_validated_again(dataset):
    evaluations = []
    hook = engine.LambdaHook(on_eval_end=lambda info: evaluations.append(info.logs))
    config = make_config(validate_every_steps=NUM_BATCHES)
    history = engine.fit(make_state(), dataset, config, validation_data=dataset, hooks=[hook])
    assert len(evaluations) == 1
    assert history.history["val_loss"] == [evaluations[0]["loss"]]


def interrupt(info):
    """Ends the run as a signal does."""
    info.request_stop("s", kind=engine.StopKind.INTERRUPTED, immediately=True)


def test_a_validation_at_the_last_step_is_not_repeated_by_a_run_that_goes_on(arrays, tmp_path):
    evaluations = []
    note = engine.LambdaHook(on_eval_end=lambda info: evaluations.append(info.logs["loss"]))

    def train(folder, *hooks):
        keras.utils.clear_session(free_memory=False)
        state, data = make_state(), make_pipeline(arrays)
        state.build(data.element_spec)
        resume = engine.latest_checkpoint(folder) is not None
        if resume:
            engine.restore_checkpoint(folder, state)
        config = make_config(epochs=3, validate_every_steps=NUM_BATCHES, validation_steps=2)
        return engine.fit(
            state, data, config, validation_data=dataset_of(arrays).shuffle(7, seed=3),
            hooks=[note, *hooks, engine.SaveCheckpoint(folder)], resume=resume,
        ).history  # fmt: skip

    expected, all_of_it = train(tmp_path / "whole"), list(evaluations)
    evaluations.clear()
    train(tmp_path / "again", engine.LambdaHook(on_validation_end=interrupt))
    assert train(tmp_path / "again") == expected
    assert evaluations == all_of_it and len(evaluations) == 3


class StopInValidation(engine.Hook):
    """Ends the run, as a signal does, in its first validation."""

    def on_eval_begin(self, info):
        info.request_stop("s", kind=engine.StopKind.INTERRUPTED, immediately=True)


def test_a_validation_that_is_cut_short_again_and_again_comes_in_the_end(arrays, dataset, tmp_path):
    seen = []
    note = engine.LambdaHook(
        on_validation_end=lambda info: seen.append(info.progress.num_steps_completed)
    )
    config = make_config(validate_every_steps=2, steps_per_execution=2)
    for hook in (StopInValidation(), StopInValidation(), note):
        state = make_state()
        state.build(dataset.element_spec)
        resume = engine.latest_checkpoint(tmp_path) is not None
        if resume:
            engine.restore_checkpoint(tmp_path, state)
        hooks = [hook, engine.SaveCheckpoint(tmp_path)]
        engine.fit(
            state, make_pipeline(arrays), config,
            validation_data=dataset, hooks=hooks, resume=resume,
        )  # fmt: skip
    assert seen == [2, 4, 6]


def test_a_run_that_goes_on_without_validations_within_epochs_owes_none(arrays, dataset, tmp_path):
    for hook, period in ((StopInValidation(), 2), (engine.LambdaHook(), None)):
        state = make_state()
        state.build(dataset.element_spec)
        if period is None:
            engine.restore_checkpoint(tmp_path, state)
        engine.fit(
            state, make_pipeline(arrays), make_config(validate_every_steps=period),
            validation_data=dataset, hooks=[hook, engine.SaveCheckpoint(tmp_path)],
            resume=period is None,
        )  # fmt: skip
    assert int(state.optimizer.iterations) == NUM_BATCHES


def test_two_datasets_of_one_form_share_a_graph(dataset):
    sets = {"val": dataset, "test": dataset}
    assert engine.fit(make_state(), dataset, make_config(), validation_data=sets).num_traces == 2


def test_a_period_without_data_is_refused(dataset):
    with pytest.raises(engine.ConfigError, match="validate_every_steps=2 needs validation_data"):
        engine.fit(make_state(), dataset, make_config(validate_every_steps=2))


def test_the_same_cell_of_a_notebook_runs_twice(arrays):
    def cell():
        config = engine.TrainConfig(seed=3, epochs=2, validate_every_steps=3)
        engine.configure_runtime(config)
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "softmax")])
        state = engine.TrainState(model, "adam", loss="sparse_categorical_crossentropy")
        history = engine.fit(state, dataset_of(arrays), config, validation_data=dataset_of(arrays))
        assert history.num_traces == 2
        return history.history

    assert cell() == cell()
