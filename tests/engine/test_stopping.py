"""A hook asks for a stop: what still happens, and what is left out."""

import keras
import pytest
import tensorflow as tf

from gradloop.engine.evaluation import evaluate
from gradloop.engine.history import StopKind
from gradloop.engine.hooks import Hook, LambdaHook
from gradloop.engine.loop import fit
from tests.engine.against_fit import assert_same_history, assert_same_weights
from tests.engine.nets import make_compiled, make_config, make_state, make_tiny
from tests.engine.observers import Recorder


def stop_at_step_6():
    """The second execution of two: the stop comes where a callback would set stop_training."""
    return LambdaHook(
        on_execution_end=lambda info: info.progress.step == 6 and info.request_stop("enough")
    )


def test_stop_request_ends_after_validation_and_epoch_end(dataset):
    moments = []
    state = make_tiny()
    history = fit(
        state, dataset, make_config(epochs=3), validation_data=dataset,
        hooks=[Recorder(moments), stop_at_step_6()],
    )  # fmt: skip
    assert [moment for moment in moments if moment != "eval_execution_end"] == [
        "train_begin", "epoch_begin", "execution_end", "save_point", "execution_end", "save_point",
        "eval_begin", "eval_end", "epoch_end", "save_point", "save_point", "train_end",
    ]  # fmt: skip
    assert (history.stop_reason, history.stop_kind) == ("enough", StopKind.REQUESTED)
    assert history.epoch_steps == [6]
    # The validation is a whole one.
    logs = evaluate(state, dataset, make_config())
    assert history.history["val_loss"] == [logs["loss"]]


class StopTraining(keras.callbacks.Callback):
    """Keras's way to ask for a stop."""

    def on_train_batch_end(self, batch, logs=None):
        self.model.stop_training = batch == 5


def test_stop_request_leaves_what_stop_training_leaves(dataset):
    def arguments():
        return {
            "optimizer": keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.5),
            "loss": "mse",
        }

    expected = make_compiled(arguments=arguments)
    data = dataset.map(lambda x, y: (x, tf.one_hot(y, 3)))
    keras_history = expected.fit(
        data, validation_data=data, epochs=2, verbose=0, shuffle=False, callbacks=[StopTraining()]
    )
    state = make_state(arguments=arguments)
    history = fit(
        state, data, make_config(epochs=2), validation_data=data, hooks=[stop_at_step_6()]
    )
    assert_same_history(history.history, keras_history.history)
    assert_same_weights(state.model, expected)  # the averages of the weights among them


@pytest.mark.parametrize("moment", ["on_execution_end", "on_eval_end"])
def test_immediate_stop_leaves_out_validation_and_epoch_end(dataset, moment):
    moments = []
    stop = LambdaHook(**{moment: lambda info: info.request_stop("now", immediately=True)})
    state = make_tiny()
    history = fit(
        state, dataset, make_config(epochs=3), validation_data=dataset,
        hooks=[Recorder(moments), stop],
    )  # fmt: skip
    assert "epoch_end" not in moments
    assert ("eval_begin" in moments) == (moment == "on_eval_end")
    assert moments[-1] == "train_end"
    assert history.history == {}
    assert history.stop_reason == "now"
    assert state.progress.num_epochs_completed == 0


def test_stop_at_the_end_of_an_epoch(dataset):
    stop = LambdaHook(on_epoch_end=lambda info: info.progress.epoch == 1 and info.request_stop("2"))
    history = fit(make_tiny(), dataset, make_config(epochs=5), hooks=[stop])
    assert history.epoch == [0, 1]


class Asks(Hook):
    """Requests stops of several kinds at once."""

    def __init__(self, *kinds):
        self.kinds = kinds

    def on_epoch_end(self, info):
        for kind in self.kinds:
            info.request_stop(kind.value, kind=kind)


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        ((), None),
        ((StopKind.INTERRUPTED, StopKind.REQUESTED), StopKind.INTERRUPTED),  # the first stands
        ((StopKind.REQUESTED, StopKind.INTERRUPTED), StopKind.REQUESTED),
        ((StopKind.INTERRUPTED, StopKind.DIVERGED), StopKind.DIVERGED),  # outranks the others
        ((StopKind.DIVERGED, StopKind.REQUESTED), StopKind.DIVERGED),
    ],
)
def test_kind_and_reason_of_a_stop_are_in_the_history(dataset, kinds, expected):
    history = fit(make_tiny(), dataset, make_config(), hooks=[Asks(*kinds)])
    assert history.stop_kind is expected
    assert history.stop_reason == (expected and expected.value)
