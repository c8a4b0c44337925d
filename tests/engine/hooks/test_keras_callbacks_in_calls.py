"""KerasCallbacks in calls within calls, in evaluate and predict; stops before the first step."""

import keras
import numpy as np
import pytest

from gradloop import engine

RNG = np.random.default_rng(0)
X = RNG.normal(size=(24, 4)).astype("float32")
Y = RNG.normal(size=(24, 1)).astype("float32")
CONFIG = engine.TrainConfig(global_batch_size=8, epochs=2)


def compiled():
    model = keras.Sequential([keras.Input([4]), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    return model


class Params(keras.callbacks.Callback):
    """Notes its params, and the batches that it hears of."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def _note(self, moment):
        self.calls.append((moment, self.params["epochs"], self.params["steps"]))

    def on_epoch_begin(self, epoch, logs=None):
        self._note("epoch begin")

    def on_train_batch_end(self, batch, logs=None):
        self._note(f"batch {batch}")

    def on_test_begin(self, logs=None):
        self._note("test begin")

    def on_test_batch_end(self, batch, logs=None):
        self._note(f"test batch {batch}")

    def on_predict_begin(self, logs=None):
        self._note("predict begin")

    def on_train_end(self, logs=None):
        self._note("train end")


def evaluate(info, hook, steps_per_execution=None):
    config = engine.TrainConfig(global_batch_size=6, steps_per_execution=steps_per_execution)
    engine.evaluate(info.state, X, config, y=Y, hooks=[hook])


def predict(info, hook):
    engine.predict(info.state, X, CONFIG, hooks=[hook])


class Failing(engine.Hook):
    def on_eval_execution_end(self, info):
        raise RuntimeError("planted")

    def on_predict_batch_end(self, info):
        raise RuntimeError("planted")


def evaluate_and_fail(info, hook):
    with pytest.raises(RuntimeError, match="planted"):
        engine.evaluate(info.state, X, CONFIG, y=Y, hooks=[hook, Failing()])


def predict_and_fail(info, hook):
    with pytest.raises(RuntimeError, match="planted"):
        engine.predict(info.state, X, CONFIG, hooks=[hook, Failing()])


@pytest.mark.parametrize("moment", ["on_execution_end", "on_epoch_end"])
@pytest.mark.parametrize("call", [evaluate, predict, evaluate_and_fail, predict_and_fail])
def test_a_hook_serves_in_a_call_within_its_training(moment, call):
    def train(*others):
        hook = engine.KerasCallbacks([Params()])
        hooks = [hook, *(make(hook) for make in others)]
        engine.fit(engine.TrainState(compiled()), X, CONFIG, y=Y, hooks=hooks)
        moments = ("test", "predict")
        return [one for one in hook.callbacks[0].calls if not one[0].startswith(moments)]

    inner = lambda hook: engine.LambdaHook(**{moment: lambda info: call(info, hook)})  # noqa: E731
    assert train(inner) == train()


def test_a_call_within_a_validation_leaves_it_as_it_is():
    def train(*others):
        hook = engine.KerasCallbacks([Params()])
        done = []

        def evaluate_once(info):
            if not done:
                done.append(True)
                evaluate(info, hook, steps_per_execution=2)

        watch = engine.LambdaHook(on_eval_execution_end=evaluate_once)
        engine.fit(
            engine.TrainState(compiled()), X, CONFIG, y=Y, validation_data=(X, Y),
            hooks=[hook, *([watch] if others else [])],
        )  # fmt: skip
        return hook.callbacks[0].calls

    calls = train(True)
    inner = [("test begin", 1, 4), ("test batch 1", 1, 4), ("test batch 3", 1, 4)]
    start = calls.index(inner[0])
    assert calls[start : start + 3] == inner
    assert calls[:start] + calls[start + 3 :] == train()


def test_params_in_evaluate_and_predict_are_those_of_keras():
    theirs, ours = Params(), Params()
    model, hook = compiled(), engine.KerasCallbacks([ours])
    state = engine.TrainState(model)
    engine.fit(state, X, CONFIG, y=Y, hooks=[hook])
    ours.calls.clear()
    engine.evaluate(state, X, CONFIG, y=Y, hooks=[hook])
    engine.predict(state, X, CONFIG, hooks=[hook])
    model.evaluate(X, Y, batch_size=8, callbacks=[theirs], verbose=0)
    model.predict(X, batch_size=8, callbacks=[theirs], verbose=0)
    assert ours.calls == theirs.calls


def test_a_failed_evaluation_does_not_keep_the_callbacks():
    callback = Params()
    hook = engine.KerasCallbacks([callback])
    evaluate_and_fail(engine.HookInfo(engine.TrainState(compiled()), None), hook)
    model = compiled()
    engine.evaluate(engine.TrainState(model), X, CONFIG, y=Y, hooks=[hook])
    assert callback.model is model


class StopsTraining(keras.callbacks.Callback):
    def on_train_begin(self, logs=None):
        self.model.stop_training = True


class StopsSecondEpoch(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        self.model.stop_training = epoch == 1


@pytest.mark.parametrize(("kind", "num_steps"), [(StopsTraining, 1), (StopsSecondEpoch, 101)])
def test_one_execution_follows_a_stop_before_it(kind, num_steps):
    x, y = np.ones((800, 4), "float32"), np.ones((800, 1), "float32")
    theirs, ours = compiled(), compiled()
    theirs.fit(x, y, batch_size=8, epochs=3, callbacks=[kind()], verbose=0)
    config = engine.TrainConfig(global_batch_size=8, epochs=3)
    hooks = [engine.KerasCallbacks([kind()]), engine.KerasCallbacks([])]
    state = engine.TrainState(ours)
    engine.fit(state, x, engine.TrainConfig(global_batch_size=8, epochs=2), y=y)  # learns sizes
    ours.optimizer.iterations.assign(0)
    engine.fit(state, x, config, y=y, hooks=hooks)
    assert int(ours.optimizer.iterations) == int(theirs.optimizer.iterations) == num_steps


class StopsEvaluation(keras.callbacks.Callback):
    def on_test_begin(self, logs=None):
        self.model.stop_evaluating = True


class StopsPrediction(keras.callbacks.Callback):
    def on_predict_begin(self, logs=None):
        self.model.stop_predicting = True


def test_a_stop_of_the_first_of_two_hooks_holds():
    state = engine.TrainState(compiled())
    ends = []
    watch = engine.LambdaHook(on_eval_end=lambda info: ends.append(info.eval_step))
    kinds = StopsEvaluation, StopsPrediction
    hooks = [engine.KerasCallbacks([kind()]) for kind in kinds] + [engine.KerasCallbacks([])]
    engine.evaluate(state, X, CONFIG, y=Y, hooks=[*hooks, watch])
    assert ends == [1]
    assert engine.predict(state, X, CONFIG, hooks=hooks).shape == (8, 1)
