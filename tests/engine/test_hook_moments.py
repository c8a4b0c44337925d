"""When hooks are called, in which order, and what they see."""

import pytest

from gradloop.engine.evaluation import evaluate
from gradloop.engine.hooks import LambdaHook
from gradloop.engine.loop import fit
from tests.engine.nets import NUM_BATCHES, make_config, make_tiny
from tests.engine.observers import Recorder


def test_order_of_moments(dataset):
    moments = []
    config = make_config(epochs=2, steps_per_execution=4, validation_freq=2)
    fit(make_tiny(), dataset, config, validation_data=dataset, hooks=[Recorder(moments)])
    epoch = ["epoch_begin", *["execution_end", "save_point"] * 2]
    evaluation = ["eval_begin", *["eval_execution_end"] * 2, "eval_end"]
    end = ["epoch_end", "save_point"]
    epochs = [*epoch, *end, *epoch, *evaluation, *end]
    assert moments == ["train_begin", *epochs, "save_point", "train_end"]


def test_hooks_are_called_in_the_order_of_the_list(dataset):
    moments = []
    hooks = [Recorder(moments, "1"), Recorder(moments, "2")]
    fit(make_tiny(), dataset.take(1), make_config(), hooks=hooks)
    assert moments[::2] == [moment.replace("2", "1") for moment in moments[1::2]]
    assert [moment[0] for moment in moments] == ["1", "2"] * 8


def test_logs_lag_one_execution_and_logs_step_says_which(dataset):
    seen = []

    def note(info):
        seen.append((info.progress.num_steps_completed, info.logs_step, dict(info.logs)))

    hook = LambdaHook(on_execution_end=note, on_epoch_end=note)
    fit(make_tiny(), dataset, make_config(epochs=2), hooks=[hook])
    steps = [(done, logged) for done, logged, _ in seen]
    assert steps == [(3, 0), (6, 3), (7, 6), (7, 7), (10, 7), (13, 10), (14, 13), (14, 14)]
    assert seen[0][2] == {} == seen[4][2]
    # What was logged of step 3 is the result over the first three batches.
    expected = make_tiny()
    first = fit(expected, dataset.take(3), make_config())
    assert seen[1][2]["loss"] == first.history["loss"][0]


def test_progress_that_hooks_see(dataset):
    seen = []
    note = lambda info: seen.append(  # noqa: E731
        (info.progress.epoch, info.progress.step, info.progress.num_steps_completed,
         info.progress.num_epochs_completed, info.execution_steps)
    )  # fmt: skip
    hook = LambdaHook(on_epoch_begin=note, on_execution_end=note, on_epoch_end=note)
    state = make_tiny()
    fit(state, dataset, make_config(epochs=2, steps_per_execution=5), hooks=[hook])
    assert seen == [
        (0, 0, 0, 0, 0), (0, 5, 5, 0, 5), (0, 7, 7, 0, 2), (0, 7, 7, 1, 0),
        (1, 0, 7, 1, 0), (1, 5, 12, 1, 5), (1, 7, 14, 1, 2), (1, 7, 14, 2, 0),
    ]  # fmt: skip
    assert (state.progress.num_epochs, state.progress.steps_per_epoch) == (2, NUM_BATCHES)


def test_on_train_end_comes_after_an_exception(dataset):
    moments = []

    def fail(info):
        raise RuntimeError("mine")

    hooks = [Recorder(moments), LambdaHook(on_execution_end=fail)]
    with pytest.raises(RuntimeError, match="mine"):
        fit(make_tiny(), dataset, make_config(), hooks=hooks)
    assert moments == ["train_begin", "epoch_begin", "execution_end", "train_end"]


def test_evaluate_calls_hooks(dataset):
    seen = []
    hook = LambdaHook(
        on_eval_begin=lambda info: seen.append("begin"),
        on_eval_end=lambda info: seen.append(dict(info.logs)),
    )
    logs = evaluate(make_tiny(), dataset, make_config(), hooks=[hook])
    assert seen == ["begin", logs]
