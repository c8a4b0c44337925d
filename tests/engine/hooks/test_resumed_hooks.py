"""Hooks of a run that is killed again and again go on with what they know."""

import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradloop import engine
from gradloop.engine.storage.tensorboard import TensorBoardWriter
from gradloop.engine.storage.trees import decode, encode
from gradloop.engine.storage.writers import JSONLinesWriter, MultiWriter
from tests.engine.nets import make_config, make_pipeline
from tests.engine.observers import StopAfter

EPOCHS = 9
# Of 7 steps: at the last step of an epoch, which is not validated yet, and within one.
SOME_STOPS = (14, 25)
MANY_STOPS = [(4, 7, 13, 20, 27), (7, 14, 21, 28), (1, 2, 3, 29, 30, 31)]


def make_state():
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(1)
    layers = [keras.layers.Dense(16, "relu"), keras.layers.Dropout(0.3), keras.layers.Dense(3)]
    model = keras.Sequential([keras.Input((4,)), *layers, keras.layers.Softmax()])
    loss = "sparse_categorical_crossentropy"
    return engine.TrainState(model, keras.optimizers.Adam(0.1), loss=loss, metrics=["accuracy"])


class Killed(RuntimeError):
    pass


class Kill(engine.Hook):
    """Ends the run some time after it was saved, when hooks know and files have more."""

    def __init__(self, saved_at):
        self.num_steps = saved_at + 8

    def on_execution_end(self, info):
        if info.progress.num_steps_completed >= self.num_steps:
            raise Killed


class Run:
    """A training in a folder, saved at some steps and killed behind each: it has new hooks then."""

    def __init__(self, arrays, folder, make_hooks, stops=()):
        for stop in (*stops, None):
            self.state, self.hooks = make_state(), make_hooks(folder)
            data = make_pipeline(arrays)
            self.state.build(data.element_spec)
            resume = engine.latest_checkpoint(folder) is not None
            if resume:
                engine.restore_checkpoint(folder, self.state)
            save = engine.SaveCheckpoint(folder, every_steps=stop, every_epochs=None)
            killing = [] if stop is None else [Kill(stop)]
            with contextlib.suppress(Killed):
                self.history = engine.fit(
                    self.state, data, make_config(epochs=EPOCHS), validation_data=data,
                    resume=resume, hooks=[*killing, *self.hooks, save],
                )  # fmt: skip

    def result(self):
        weights = [weight.numpy().tobytes() for weight in self.state.model.weights]
        rates, reason = self.history.learning_rate, self.history.stop_reason
        return self.history.history, self.history.epoch, rates, reason, weights


def own_hooks(folder):
    writers = JSONLinesWriter(folder / "metrics.jsonl"), TensorBoardWriter(folder)
    return [
        engine.EarlyStopping(patience=2, restore_best_weights=True),
        engine.WriteMetrics(MultiWriter(*writers), every_steps=5),
    ]


def events(folder):
    return sorted(
        (value.tag, event.step, tf.make_ndarray(value.tensor).tobytes())
        for path in folder.glob("*.tfevents.*")
        for event in tf.compat.v1.train.summary_iterator(str(path))
        for value in event.summary.value
    )


def compare_own_hooks(arrays, tmp_path, *many_stops):
    pytest.importorskip("tensorboard")
    whole = Run(arrays, tmp_path / "whole", own_hooks)
    for index, stops in enumerate(many_stops):
        run = Run(arrays, tmp_path / str(index), own_hooks, stops)
        assert run.result() == whole.result(), stops
        for name in ("wait", "best", "best_epoch", "stopped_epoch"):
            assert getattr(run.hooks[0], name) == getattr(whole.hooks[0], name)
        lines, expected = ((tmp_path / n / "metrics.jsonl") for n in (str(index), "whole"))
        assert lines.read_bytes() == expected.read_bytes()
        for name in ("train", "validation"):
            found = events(tmp_path / str(index) / name)
            assert found == events(tmp_path / "whole" / name) and len(found) > 4
    assert max(map(max, many_stops)) // 7 < len(whole.history.epoch) < EPOCHS
    return whole


def test_early_stopping_and_metrics_are_those_of_a_run_without_stops(arrays, tmp_path):
    compare_own_hooks(arrays, tmp_path, SOME_STOPS)


@pytest.mark.exhaustive
def test_early_stopping_and_metrics_wherever_the_run_is_stopped(arrays, tmp_path):
    compare_own_hooks(arrays, tmp_path, *MANY_STOPS)


def test_early_stopping_that_monitors_something_else_begins_anew():
    hook, other = engine.EarlyStopping("loss"), engine.EarlyStopping("val_loss")
    hook.best, hook.wait = 0.5, 3
    with pytest.warns(UserWarning, match="monitors 'val_loss', and the run that is resumed moni"):
        other.restore(hook.state())
    assert other.best is None and other.wait == 0


def test_best_weights_do_not_replace_those_of_a_run_that_is_cut_short(arrays):
    """It goes on in the same process with what the optimizer belongs to."""
    state, seen = make_state(), []
    look = engine.LambdaHook(on_save_point=lambda info: seen.append(info.state.weights_sha256()))
    hook = engine.EarlyStopping("loss", patience=9, restore_best_weights=True)
    hooks = [hook, look, StopAfter(17)]
    engine.fit(state, make_pipeline(arrays), make_config(epochs=5), hooks=hooks)
    assert hook.state()["best_weights"] is not None
    assert state.weights_sha256() == seen[-1]


class Own(keras.callbacks.Callback):
    """A person's own, with attributes of many kinds."""

    def __init__(self, count=0, rows=5):
        super().__init__()
        self.count, self.rows, self._pair = count, rows, (0, 1)
        self.counts = np.zeros(3, int)
        self.by_epoch, self.generator = {}, np.random.default_rng(0)

    def on_epoch_end(self, epoch, logs=None):
        self.count += 1
        self._pair = (self._pair[1], sum(self._pair))
        self.counts[epoch % 3] += 1
        self.by_epoch[epoch] = [logs["loss"]]
        self.late = str(epoch)


def callbacks(folder):
    path = str(folder / "{epoch}.weights.h5")
    early = {"patience": 4, "min_delta": 0.01, "restore_best_weights": True}
    plateau = {"factor": 0.5, "patience": 1, "cooldown": 1, "min_delta": 0.01}
    return [
        engine.KerasCallbacks([
            keras.callbacks.EarlyStopping(**early),
            keras.callbacks.ReduceLROnPlateau(**plateau),
            keras.callbacks.ModelCheckpoint(path, save_weights_only=True, save_best_only=True),
            keras.callbacks.History(),
            Own(),
        ]),
    ]  # fmt: skip


ATTRIBUTES = (
    ("wait", "best", "best_epoch", "stopped_epoch", "min_delta"),
    ("wait", "best", "cooldown_counter", "min_delta"),
    ("best",),
    ("epoch", "history"),
    ("count", "_pair", "by_epoch", "late"),
)


def compare_callbacks(arrays, tmp_path, *many_stops):
    whole = Run(arrays, tmp_path / "whole", callbacks)
    files = {file.name for file in (tmp_path / "whole").glob("*.h5")}
    assert 1 < len(files) < len(whole.history.epoch), "some epochs are better than all before"
    assert len(set(whole.history.learning_rate)) > 2, "the rate is reduced, and more than once"
    assert max(map(max, many_stops)) // 7 < len(whole.history.epoch)
    for index, stops in enumerate(many_stops):
        run = Run(arrays, tmp_path / str(index), callbacks, stops)
        assert run.result() == whole.result(), stops
        assert {file.name for file in (tmp_path / str(index)).glob("*.h5")} == files
        pairs = zip(run.hooks[0].callbacks, whole.hooks[0].callbacks, ATTRIBUTES, strict=True)
        for one, other, names in pairs:
            for name in names:
                assert getattr(one, name) == getattr(other, name), (type(one), name)
        assert run.hooks[0].callbacks[-1].counts.tolist() == other.counts.tolist()


def test_callbacks_of_keras_go_on_with_what_they_know(arrays, tmp_path):
    compare_callbacks(arrays, tmp_path, SOME_STOPS)


@pytest.mark.exhaustive
def test_callbacks_of_keras_wherever_the_run_is_stopped(arrays, tmp_path):
    compare_callbacks(arrays, tmp_path, *MANY_STOPS)


def test_a_setting_that_a_person_changes_for_the_rest_of_the_run_is_theirs(arrays):
    hook, other = (
        engine.KerasCallbacks([Own(rows=rows), keras.callbacks.EarlyStopping("loss", delta)])
        for rows, delta in ((5, 0.5), (7, 0.25))
    )
    engine.fit(make_state(), make_pipeline(arrays), make_config(), hooks=[hook])
    other.restore(decode(encode(hook.state(), arrays := []), arrays))  # as a checkpoint does
    own, early = other.callbacks
    assert (own.rows, own.count, own._pair) == (7, 1, (1, 1))
    assert (early.min_delta, early.best) == (0.25, hook.callbacks[1].best)


class GoBack(engine.Hook):
    """Saves the run once, and goes back to it twice."""

    def __init__(self, folder, saved_at):
        self.folder, self.saved_at, self.count = folder, saved_at, 0

    def on_save_point(self, info):
        if info.progress.num_steps_completed == self.saved_at and not self.count:
            engine.save_checkpoint(self.folder, info.state)

    def on_execution_end(self, info):
        if self.count < 2 and info.progress.num_steps_completed == self.saved_at + 8:
            self.count += 1
            info.request_rollback(
                lambda: engine.restore_checkpoint(self.folder, info.state), excluded_steps=[]
            )


class Epochs(engine.Hook):
    """Has no state before the end of the first epoch."""

    def __init__(self):
        self.epochs = []

    def on_epoch_end(self, info):
        self.epochs.append(info.progress.epoch)

    def state(self):
        return {"epochs": list(self.epochs)} if self.epochs else {}

    def restore(self, state):
        self.epochs = state.get("epochs", [])


@pytest.mark.parametrize(  # of 7 steps an epoch
    "saved_at", [3, pytest.param(10, marks=pytest.mark.slow)]
)
def test_a_run_that_goes_back_is_as_if_it_had_not_been_further(arrays, tmp_path, saved_at):
    def train(*hooks):
        early, own = keras.callbacks.EarlyStopping("loss", 9.0, patience=9), Own()
        epochs = Epochs()
        hooks = [*hooks, engine.KerasCallbacks([early, own]), epochs]
        config = make_config(epochs=4, steps_per_execution=1)
        history = engine.fit(make_state(), make_pipeline(arrays), config, hooks=hooks).history
        counts = own.counts.tolist(), own.count, own._pair, own.by_epoch, own.late
        return history, counts, early.wait, early.best, epochs.epochs

    back = GoBack(tmp_path, saved_at)
    assert train(back) == train() and back.count == 2


def test_a_run_that_goes_back_to_a_checkpoint_of_no_run_begins_its_history_anew(arrays, tmp_path):
    state, data, back = make_state(), make_pipeline(arrays), GoBack(tmp_path, saved_at=0)
    state.build(data.element_spec)
    engine.save_checkpoint(tmp_path, state)
    config = make_config(epochs=3, steps_per_execution=1)
    history = engine.fit(state, data, config, hooks=[back])
    assert history.epoch == [0, 1, 2] == list(range(len(history.history["loss"])))
    assert back.count == 2


class First(keras.callbacks.Callback):
    """Keeps the loss of the first epoch."""

    def __init__(self):
        super().__init__()
        self.first = None

    def on_epoch_end(self, epoch, logs=None):
        self.first = logs["loss"] if self.first is None else self.first


def test_a_callback_that_goes_on_in_its_process_is_saved_with_what_it_knew(arrays):
    state, config = make_state(), make_config(epochs=3)
    hook, other = engine.KerasCallbacks([First()]), engine.KerasCallbacks([First()])
    engine.fit(state, make_pipeline(arrays), config, hooks=[hook, StopAfter(10)])
    engine.fit(state, make_pipeline(arrays), config, hooks=[hook], resume=True)
    other.restore(hook.state())  # as a new process does
    assert other.callbacks[0].first == hook.callbacks[0].first is not None
