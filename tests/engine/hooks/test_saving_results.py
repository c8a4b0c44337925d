"""SaveCheckpoint: the best epoch and the final weights, apart from what the run goes on from."""

import os

import keras
import numpy as np
import pytest

from gradloop import engine
from gradloop.data import pipeline
from gradloop.engine.hooks import SaveCheckpoint
from gradloop.engine.storage.format import load
from tests.engine.hooks.saved_runs import (
    SPEC,
    Request,
    make_state,
    names,
    recorded_writes,
    resume,
    train,
)


def _scores(*values):
    """Logs a score, one value an epoch."""
    return engine.LambdaHook(
        on_epoch_end=lambda info: info.add("score", values[info.progress.epoch])
    )


def _num_steps(path):
    return load(path).progress.num_steps_completed


@pytest.mark.parametrize(
    ("mode", "scores", "expected"),
    [("max", (1, 3, 2), 20), ("min", (1, 3, 2), 10), ("max", (np.nan, 3, np.nan), 20)],
)
def test_the_best_epoch_is_kept_and_is_a_second_name_of_its_checkpoint(
    tmp_path, mode, scores, expected
):
    hook = SaveCheckpoint(tmp_path, keep_best="score", mode=mode)
    train(make_state(), [_scores(*scores), hook])
    assert _num_steps(tmp_path / "best.npz") == expected
    assert os.path.samefile(tmp_path / "best.npz", tmp_path / f"ckpt-{expected}.npz")


def test_the_best_epoch_outlives_its_checkpoint(tmp_path):
    hooks = [
        _scores(3, 2, 1),
        SaveCheckpoint(tmp_path, keep_best="score", mode="max", max_to_keep=1),
    ]
    train(make_state(), hooks)
    assert names(tmp_path) == ["best.npz", "ckpt-30.npz"]
    assert _num_steps(tmp_path / "best.npz") == 10


def test_an_epoch_that_is_not_saved_otherwise_is_saved_if_it_is_the_best(tmp_path, monkeypatch):
    written = recorded_writes(monkeypatch)
    hook = SaveCheckpoint(tmp_path, every_epochs=None, keep_best="score", mode="max")
    train(make_state(), [_scores(2, 3, 1), hook])
    assert written == [(10, 1, "best.npz"), (20, 2, "best.npz"), (30, 3)]


def test_auto_finds_the_direction_as_early_stopping_does(tmp_path):
    train(make_state(), [SaveCheckpoint(tmp_path, keep_best="loss")])
    losses = load(tmp_path / "ckpt-30.npz").tree["history"]["history"]["loss"]
    assert _num_steps(tmp_path / "best.npz") == 10 * (1 + int(np.argmin(losses)))
    hook = SaveCheckpoint(tmp_path / "other", keep_best="score")
    with pytest.raises(ValueError, match=r"SaveCheckpoint cannot tell .* pass mode='max'"):
        train(make_state(), [_scores(1), hook], epochs=1)


def test_what_is_not_logged_cannot_be_the_best(tmp_path):
    with pytest.raises(ValueError, match="SaveCheckpoint monitors 'val_loss', but there is no val"):
        train(make_state(), [SaveCheckpoint(tmp_path, keep_best="val_loss")])
    with pytest.raises(ValueError, match="SaveCheckpoint monitors 'acc', but the logs have loss"):
        train(make_state(), [SaveCheckpoint(tmp_path, keep_best="acc")])


def test_the_best_value_is_remembered_by_a_run_that_goes_on(tmp_path):
    def hooks():
        return [_scores(3, 1, 2), SaveCheckpoint(tmp_path, keep_best="score", mode="max")]

    train(make_state(), hooks(), epochs=1)
    (tmp_path / "best.npz").unlink()  # as a kill between writing and naming it
    resume(tmp_path, hooks(), epochs=3)
    assert _num_steps(tmp_path / "best.npz") == 10


def _average():
    return keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.9)


def test_an_average_goes_to_a_file_of_its_own_and_the_run_can_go_on(tmp_path):
    undisturbed = make_state(_average())
    train(undisturbed, [])
    state = make_state(_average())
    train(state, [SaveCheckpoint(tmp_path)], epochs=2)
    assert names(tmp_path) == ["ckpt-10.npz", "ckpt-20.npz", "final.npz"]
    assert engine.final_checkpoint(tmp_path).name == "final.npz"
    assert engine.latest_checkpoint(tmp_path).name == "ckpt-20.npz"
    other = make_state()
    other.build(SPEC)
    engine.restore_checkpoint(engine.final_checkpoint(tmp_path), other, only="model")
    assert other.weights_sha256() == state.weights_sha256()
    resumed = resume(tmp_path, [SaveCheckpoint(tmp_path)], optimizer=_average())
    assert resumed.weights_sha256() == undisturbed.weights_sha256()
    assert _num_steps(tmp_path / "final.npz") == 30


def test_the_best_weights_go_to_the_final_file(tmp_path):
    state = make_state(keras.optimizers.SGD(5.0))  # it grows from epoch to epoch
    stopping = engine.EarlyStopping("loss", patience=9, restore_best_weights=True)
    train(state, [SaveCheckpoint(tmp_path), stopping])
    weights = [load(tmp_path / f"{n}.npz").values for n in ("ckpt-10", "ckpt-30", "final")]
    first, last, final = (next(iter(values.values()))[0].tolist() for values in weights)
    assert final == first != last
    assert final == state.model.get_weights()[0].tolist()


def test_without_other_weights_there_is_no_final_file_and_an_old_one_goes(tmp_path):
    train(make_state(_average()), [SaveCheckpoint(tmp_path)], epochs=1)
    assert "final.npz" in names(tmp_path)
    state = make_state(_average())
    stop = engine.LambdaHook(
        on_epoch_begin=lambda info: info.request_stop("test", immediately=True)
    )
    state = resume(tmp_path, [SaveCheckpoint(tmp_path), stop], optimizer=_average(), epochs=2)
    assert state.progress.num_steps_completed > 10
    assert "final.npz" not in names(tmp_path)
    assert engine.final_checkpoint(tmp_path) == engine.latest_checkpoint(tmp_path)


def test_what_a_run_does_after_going_back_is_saved_anew(tmp_path, monkeypatch):
    written = recorded_writes(monkeypatch)
    state = make_state()
    rng = np.random.default_rng(0)
    train_ds = pipeline.make_dataset(
        rng.random((80, 2), "float32"), rng.random((80, 1), "float32"), global_batch_size=8
    )
    returns = [lambda: engine.restore_checkpoint(tmp_path / "ckpt-5.npz", state)]

    def go_back(info):
        if returns:
            info.request_rollback(returns.pop(), excluded_steps=[6])

    hooks = [Request(10, go_back), SaveCheckpoint(tmp_path, every_steps=5)]
    config = engine.TrainConfig(epochs=1, steps_per_execution=5)
    engine.fit(state, train_ds, config, hooks=hooks)
    # Step 10 is not saved before the run goes back, and with other weights after it.
    assert written == [(5, 0), (10, 0), (10, 1)]
