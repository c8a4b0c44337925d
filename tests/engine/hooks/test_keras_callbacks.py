"""Callbacks of Keras see in the engine's loop what they see in fit, and do what they do there."""

import keras
import numpy as np
import pytest

from gradloop import engine

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 4)).astype("float32")
Y = RNG.integers(0, 3, 40)
ARRAYS = {"y": Y, "validation_data": (X[:16], Y[:16])}


def compiled(**optimizer):
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [keras.Input([4]), keras.layers.Dropout(0.2), keras.layers.Dense(3, activation="softmax")]
    )
    model.compile(
        keras.optimizers.Adam(0.05, **optimizer),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    return model


def train_both(make_callbacks, epochs=4, steps_per_execution=None, **optimizer):
    """Returns the callbacks of fit and of the engine, after equal trainings."""
    theirs, ours = compiled(**optimizer), compiled(**optimizer)
    their_callbacks, our_callbacks = make_callbacks(), make_callbacks()
    keras.utils.set_random_seed(2)
    expected = theirs.fit(
        X, **ARRAYS, epochs=epochs, batch_size=8, callbacks=their_callbacks, verbose=0
    )
    keras.utils.set_random_seed(2)
    config = engine.TrainConfig(
        epochs=epochs, global_batch_size=8, steps_per_execution=steps_per_execution
    )
    found = engine.fit(
        engine.TrainState(ours), X, config, **ARRAYS, hooks=[engine.KerasCallbacks(our_callbacks)]
    )
    assert found.history == expected.history
    assert found.epoch == expected.epoch
    for one, other in zip(ours.weights, theirs.weights, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())
    return their_callbacks, our_callbacks


class Recorder(keras.callbacks.Callback):
    """Writes down each call with its logs."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def on_train_begin(self, logs=None):
        self.calls.append(("train begin", self.params["epochs"], self.params["steps"]))

    def on_epoch_begin(self, epoch, logs=None):
        self.calls.append(("epoch begin", epoch))

    def on_train_batch_begin(self, batch, logs=None):
        self.calls.append(("batch begin", batch))

    def on_train_batch_end(self, batch, logs=None):
        self.calls.append(("batch end", batch, dict(logs)))

    def on_test_begin(self, logs=None):
        self.calls.append(("test begin",))

    def on_test_batch_end(self, batch, logs=None):
        self.calls.append(("test batch end", batch, dict(logs)))

    def on_test_end(self, logs=None):
        self.calls.append(("test end", dict(logs)))

    def on_epoch_end(self, epoch, logs=None):
        self.calls.append(("epoch end", epoch, dict(logs)))

    def on_train_end(self, logs=None):
        self.calls.append(("train end", dict(logs)))


def test_a_callback_sees_the_calls_and_the_logs_of_fit():
    (theirs,), (ours,) = train_both(lambda: [Recorder()], epochs=2)
    assert ours.calls == theirs.calls
    assert [call[0] for call in ours.calls].count("batch end") == 2 * 5


def halve(epoch, rate):
    return rate / 2


def test_the_learning_rate_follows_and_is_in_the_history():
    train_both(lambda: [keras.callbacks.LearningRateScheduler(halve)])
    train_both(lambda: [keras.callbacks.ReduceLROnPlateau("loss", patience=0, min_delta=10.0)])


def test_early_stopping_brings_back_the_best_weights():
    train_both(
        lambda: [keras.callbacks.EarlyStopping("loss", min_delta=1.0, restore_best_weights=True)],
        epochs=6,
    )


def test_swapped_averages_are_those_of_fit():
    train_both(lambda: [keras.callbacks.SwapEMAWeights(swap_on_epoch=True)], use_ema=True)


def test_files_are_those_of_fit(tmp_path):
    numbers = iter(range(2))

    def make():
        folder = tmp_path / str(next(numbers))
        folder.mkdir()
        return [
            keras.callbacks.CSVLogger(str(folder / "log.csv")),
            keras.callbacks.ModelCheckpoint(str(folder / "{epoch}.keras")),
        ]

    train_both(make, epochs=2)
    assert (tmp_path / "0" / "log.csv").read_text() == (tmp_path / "1" / "log.csv").read_text()
    one, other = (keras.saving.load_model(tmp_path / n / "2.keras") for n in ("0", "1"))
    for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert other.evaluate(X, Y, verbose=0, return_dict=True).keys() == {"accuracy", "loss"}


def test_backup_and_restore_continues_at_its_epoch(tmp_path):
    class Fails(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 1:
                raise RuntimeError("planted")

    config = engine.TrainConfig(epochs=4, global_batch_size=8)
    backup = keras.callbacks.BackupAndRestore(str(tmp_path))
    with pytest.raises(RuntimeError, match="planted"):
        hooks = [engine.KerasCallbacks([backup, Fails()])]
        engine.fit(engine.TrainState(compiled()), X, config, y=Y, hooks=hooks)
    backup = keras.callbacks.BackupAndRestore(str(tmp_path))
    state = engine.TrainState(compiled())
    history = engine.fit(state, X, config, y=Y, hooks=[engine.KerasCallbacks([backup])])
    assert history.epoch == [2, 3]


def test_executions_of_several_steps_are_counted_as_fit_counts_them():
    counts = keras.callbacks.LambdaCallback
    seen = []
    hook = engine.KerasCallbacks([counts(on_train_batch_end=lambda b, logs: seen.append(b))])
    config = engine.TrainConfig(global_batch_size=8, steps_per_execution=2)
    engine.fit(engine.TrainState(compiled()), X, config, y=Y, hooks=[hook])
    assert seen == [1, 3, 5]


def test_callbacks_that_work_at_epochs_leave_executions_long():
    sizes = []
    watch = engine.LambdaHook(on_execution_end=lambda info: sizes.append(info.execution_steps))
    hook = engine.KerasCallbacks([keras.callbacks.LearningRateScheduler(halve)])
    config = engine.TrainConfig(global_batch_size=8, epochs=4)
    engine.fit(engine.TrainState(compiled()), X, config, y=Y, hooks=[hook, watch])
    assert max(sizes) > 1


def stop_evaluating(self, *args, **kwargs):
    self.model.stop_evaluating = True


@pytest.mark.parametrize("moment", ["on_test_batch_end", "on_test_begin"])
def test_a_validation_that_is_stopped_does_not_end_the_training(moment):
    def make():
        return [type("Stops", (keras.callbacks.Callback,), {moment: stop_evaluating})()]

    train_both(make, epochs=2)


def test_a_validation_within_an_epoch_that_is_stopped_has_its_logs():
    stops = type("Stops", (keras.callbacks.Callback,), {"on_test_batch_end": stop_evaluating})
    config = engine.TrainConfig(global_batch_size=8, validate_every_steps=2, epochs=2)
    seen = []
    watch = engine.LambdaHook(on_validation_end=lambda info: seen.append(sorted(info.logs)))
    engine.fit(
        engine.TrainState(compiled()), X, config, **ARRAYS,
        hooks=[engine.KerasCallbacks([stops()]), watch],
    )  # fmt: skip
    assert seen == [["val_accuracy", "val_loss"]] * 5


def test_the_end_of_an_evaluation_sees_its_metrics():
    def make():
        return [Results()]

    theirs, ours = train_both(make, epochs=2)
    assert len(theirs[0].seen) == 2 and ours[0].seen == theirs[0].seen


class Results(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.seen = []

    def on_test_end(self, logs=None):
        self.seen.append({k: float(v) for k, v in self.model.get_metrics_result().items()})


def test_a_hook_that_is_used_again_is_of_the_run_that_uses_it():
    recorder = Recorder()
    hook = engine.KerasCallbacks([recorder])
    models = compiled(), compiled()
    engine.evaluate(engine.TrainState(models[0]), X, engine.TrainConfig(), y=Y, hooks=[hook])
    for epochs, model in enumerate(models, start=1):
        config = engine.TrainConfig(epochs=epochs, global_batch_size=8)
        engine.fit(engine.TrainState(model), X, config, y=Y, hooks=[hook])
        assert recorder.model is model
    begins = [call for call in recorder.calls if call[0] == "train begin"]
    assert begins == [("train begin", 1, 5), ("train begin", 2, 5)]


def test_what_is_no_callback_is_refused():
    with pytest.raises(ValueError, match="is no callback"):
        engine.KerasCallbacks([engine.StopOnNaN()])
