"""EarlyStopping: epoch by epoch what Keras's callback does."""

import keras
import numpy as np
import pytest

from gradloop.engine import hooks
from gradloop.engine.hooks import HookInfo
from gradloop.engine.state import TrainState
from gradloop.engine.storage.trees import decode, encode
from tests.engine.hooks.runs import drive, make_info


def _tiny_model():
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, name="out")])
    model.compile(optimizer="sgd", loss="mse", metrics=["accuracy", "mae"])
    model.evaluate(np.zeros((1, 1)), np.zeros((1, 1)), verbose=0)
    return model


_CURVES = {
    "falls": [1.0, 0.8, 0.6, 0.5, 0.4, 0.3],
    "rises": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6],
    "plateau": [1.0, 0.5, 0.5, 0.5, 0.5, 0.5],
    "bounces": [1.0, 0.7, 0.9, 0.65, 0.8, 0.6],
    "tiny_steps": [1.0, 0.99, 0.98, 0.97, 0.96, 0.95],
    "below_float32": [1.0, 1.0 - 1e-9, 1.0 - 2e-9, 1.0 - 3e-9, 1.0 - 4e-9, 1.0 - 5e-9],
    "nan": [1.0, float("nan"), 0.5, float("nan"), float("nan"), float("nan")],
}


_ARGUMENTS = [
    {},
    {"patience": 1},
    {"patience": 2, "min_delta": 0.05},
    {"patience": 1, "min_delta": -0.015},
    {"patience": 1, "baseline": 0.65},
    {"patience": 1, "start_from_epoch": 2},
    {"patience": 1, "mode": "max"},
    {"patience": 2, "monitor": "val_accuracy", "restore_best_weights": True},
    {"patience": 1, "monitor": "loss", "restore_best_weights": True},
    {"patience": 5, "restore_best_weights": True},
    {"monitor": "val_mae", "start_from_epoch": 1, "restore_best_weights": True},
]


def _run_keras(arguments, values, model):
    callback = keras.callbacks.EarlyStopping(**arguments)
    callback.set_model(model)
    model.stop_training = False
    callback.on_train_begin()
    trace = []
    for epoch, value in enumerate(values):
        model.set_weights([np.full((1, 1), epoch), np.zeros(1)])
        callback.on_epoch_end(epoch, {arguments.get("monitor", "val_loss"): value})
        trace.append((model.stop_training, callback.wait, callback.best, callback.best_epoch))
        if model.stop_training:
            break
    callback.on_train_end()
    return trace, callback.stopped_epoch, float(model.get_weights()[0][0, 0])


def _run_ours(arguments, values, model, *, resumes=False):
    hook, info = hooks.EarlyStopping(**arguments), make_info()
    info.state.model = model
    hook.on_train_begin(info)
    trace = []
    for epoch, value in enumerate(values):
        if resumes:
            saved = encode(hook.state(), arrays := [])
            hook = hooks.EarlyStopping(**arguments)
            hook.on_train_begin(info)
            hook.restore(decode(saved, arrays))
        model.set_weights([np.full((1, 1), epoch), np.zeros(1)])
        info.progress.epoch, info.logs = epoch, {arguments.get("monitor", "val_loss"): value}
        hook.on_epoch_end(info)
        trace.append((info.stop_reason is not None, hook.wait, hook.best, hook.best_epoch))
        if info.stop_reason is not None:
            break
    hook.on_train_end(info)
    return trace, hook.stopped_epoch, float(model.get_weights()[0][0, 0])


def test_early_stopping_does_what_keras_does_epoch_by_epoch():
    model = _tiny_model()
    stops = set()
    for arguments in _ARGUMENTS:
        for name, values in _CURVES.items():
            expected = _run_keras(arguments, values, model)
            assert str(_run_ours(arguments, values, model)) == str(expected), (arguments, name)
            stops.add(expected[1])
            # As is one that is saved and resumed before each epoch.
            resumed = _run_ours(arguments, values, model, resumes=True)
            assert str(resumed) == str(expected), (arguments, name)
    assert len(stops) > 3, "the curves must stop at different epochs, or not at all"


def test_early_stopping_can_be_used_again():
    model = _tiny_model()
    hook = hooks.EarlyStopping(monitor="loss")
    for _ in range(2):
        info = make_info()
        info.state.model = model
        drive(hook, info, [{"loss": 1.0}, {"loss": 2.0}, {"loss": 3.0}])
        assert hook.stopped_epoch == 1
        assert info.stop_reason == (
            "early stopping: loss has not improved on 1 (epoch 1) for 1 epochs"
        )


def test_early_stopping_brings_back_the_weights_of_all_models():
    model, teacher = _tiny_model(), _tiny_model()
    extras = {"teachers": [teacher]}
    state = TrainState(model, "sgd", loss="mse", extras=extras)
    info = HookInfo(state, state.progress)
    hook = hooks.EarlyStopping(monitor="loss", patience=5, restore_best_weights=True)
    hook.on_train_begin(info)
    for epoch, loss in enumerate([1.0, 0.5, 2.0]):
        for each in (model, teacher):
            each.set_weights([np.full((1, 1), epoch), np.zeros(1)])
        info.progress.epoch, info.logs = epoch, {"loss": loss}
        hook.on_epoch_end(info)
    hook.on_train_end(info)
    assert [each.get_weights()[0].item() for each in (model, teacher)] == [1.0, 1.0]


def test_early_stopping_names_the_keys_there_are():
    info = make_info()
    info.state.model = _tiny_model()
    info.logs = {"loss": 1.0, "val_loss": 1.0}
    for monitor in ("acuracy", "val_acuracy"):
        with pytest.raises(ValueError, match=f"monitors '{monitor}', but the logs have loss, val_"):
            hooks.EarlyStopping(monitor).on_epoch_end(info)


def test_early_stopping_waits_for_validation_and_knows_when_there_is_none():
    info = make_info()
    info.state.model = _tiny_model()
    hook = hooks.EarlyStopping(patience=1)
    drive(hook, info, [{"loss": 1.0}, {"loss": 1.0, "val_loss": 2.0}, {"loss": 1.0}])
    assert info.stop_reason is None and hook.best == 2.0 and hook.wait == 0
    info.has_validation = False
    with pytest.raises(ValueError, match="no validation data: pass some, or monitor 'loss'"):
        hook.on_train_begin(info)


def test_early_stopping_asks_for_a_mode_that_it_cannot_infer():
    info = make_info()
    info.state.model = _tiny_model()
    info.logs = {"reward": 1.0, "generator_loss": 1.0}
    with pytest.raises(ValueError, match="'reward' is better high or low: pass mode='max'"):
        hooks.EarlyStopping("reward").on_epoch_end(info)
    hooks.EarlyStopping("generator_loss").on_epoch_end(info)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mode": "up"}, "mode must be one of auto, min, max, not 'up'"),
        ({"patience": -1}, "patience must be an integer of 0 or more, not -1"),
        ({"patience": 1.5}, "patience must be an integer of 0 or more, not 1.5"),
        ({"start_from_epoch": -2}, "start_from_epoch must be an integer of 0 or more"),
    ],
)
def test_early_stopping_refuses_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        hooks.EarlyStopping(**arguments)
