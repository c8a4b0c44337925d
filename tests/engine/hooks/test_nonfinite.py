"""OnNonfinite: what it says, when the run ends, where a rollback goes on."""

import contextlib

import keras
import numpy as np
import pytest

from gradloop.data import pipeline
from gradloop.engine.history import StopKind
from gradloop.engine.hooks import (
    Hook,
    KerasCallbacks,
    LambdaHook,
    OnNonfinite,
    SaveCheckpoint,
    StopOnNaN,
)
from gradloop.engine.loop import fit
from gradloop.engine.options import ConfigError
from gradloop.engine.planner import Planner
from gradloop.engine.storage.checkpoint import latest, restore, save
from gradloop.engine.storage.format import CheckpointFile
from gradloop.engine.variables import local_values
from tests.engine.nets import make_config, make_state, mirrored

BATCH_SIZE, NUM_BATCHES = 4, 6
BAD_STEP = 9  # of the run: batch 3 of epoch 2


def make_dataset(arrays, *bad):
    """Returns examples in their order, and a hook that puts an infinite feature in these steps."""
    x, y = arrays[0][:24].copy(), arrays[1][:24]
    dataset = pipeline.make_dataset(x, y, global_batch_size=BATCH_SIZE)

    def replace(info):
        first = info.progress.num_epochs_completed * NUM_BATCHES
        changed = x.copy()
        for step in bad:
            if first < step <= first + NUM_BATCHES:
                changed[(step - first) * BATCH_SIZE - 1, 0] = np.inf
        dataset.replace(changed, y)

    hook = LambdaHook(on_epoch_begin=replace)
    return dataset, hook


class Run:
    """A training of three epochs with these steps bad."""

    def __init__(
        self,
        arrays,
        action,
        *bad,
        directory=None,
        strategy=None,
        hooks=(),
        every_steps=2,
        **options,
    ):
        keras.utils.clear_session(free_memory=False)
        self.lines = []
        self.state = make_state(strategy=strategy)
        dataset, arrays_hook = make_dataset(arrays, *bad)
        acts = OnNonfinite(
            action, directory=directory, global_batch_size=BATCH_SIZE,
            **{"line": self.lines.append} | options,
        )  # fmt: skip
        saves = (
            [SaveCheckpoint(directory, every_steps=every_steps, max_to_keep=20)]
            if directory
            else []
        )
        config = make_config(epochs=3, on_nonfinite=action, steps_per_execution=4)
        self.history = fit(self.state, dataset, config, hooks=[acts, arrays_hook, *hooks, *saves])

    def values(self):
        return {
            name: [value.tobytes() for value in local_values(variable)]
            for name, variable in self.state.named_variables()
            if not name.startswith("metrics/")
        }


WHERE = "step 9 (epoch 2, batch 3, examples 8 to 11 of its order)"


def test_stop_names_the_step_and_keeps_what_was_before_it(arrays, tmp_path):
    run = Run(arrays, "stop", BAD_STEP, directory=tmp_path)
    assert run.history.stop_kind is StopKind.DIVERGED
    assert run.history.stop_reason.startswith("divergence: ")
    assert f"not finite at {WHERE}; the weights are those of step 8" in run.history.stop_reason
    assert "sequential/dense/kernel" in run.history.stop_reason
    assert run.history.epoch == [0]  # the second is not ended
    before = run.values()
    assert latest(tmp_path).name == "ckpt-8.npz"  # nothing was saved of the later steps
    restore(tmp_path, run.state)
    assert run.values() == before


def test_skip_tells_of_the_first_and_of_all(arrays):
    run = Run(arrays, "skip", BAD_STEP, 11, 14)
    assert run.history.stop_kind is None
    assert run.history.epoch == [0, 1, 2]
    assert np.isfinite(run.history.history["loss"]).all()
    first, total = run.lines
    assert first.startswith("skipped: ") and first.endswith(f"not finite at {WHERE}")
    assert total.startswith("3 skipped in all; the first: ") and total.endswith(WHERE)
    assert int(run.state.optimizer.iterations.numpy()) == 15


def test_a_run_without_such_a_step_says_nothing(arrays):
    run = Run(arrays, "skip")
    assert run.lines == []


def test_a_skip_in_the_last_step_is_told(arrays):
    assert "at step 18 " in Run(arrays, "skip", 18).lines[0]


def test_a_skip_is_told_before_an_error(arrays, capsys):
    def fail(info):
        assert info.progress.num_steps_completed < BAD_STEP, "the disk is full"

    with pytest.raises(AssertionError, match="the disk is full"):
        Run(arrays, "skip", BAD_STEP, hooks=[LambdaHook(on_execution_end=fail)], line=print)
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["skipped:", "1"]


@pytest.mark.parametrize("num_replicas", [1, 2])
def test_rollback_leaves_out_the_batch_and_nothing_else(arrays, tmp_path, num_replicas):
    def strategy():
        return mirrored(num_replicas) if num_replicas > 1 else None

    run = Run(arrays, "rollback", BAD_STEP, directory=tmp_path, strategy=strategy())
    assert run.history.stop_kind is None
    (line,) = run.lines
    assert line.startswith("rollback 1 of at most 3: ")
    assert f"not finite at {WHERE}; back to step 8 (" in line
    assert run.history.epoch_steps == [6, 6, 6]
    expected = Run(arrays, "skip", BAD_STEP, strategy=strategy())
    assert run.values() == expected.values()
    assert run.history.history["loss"] == expected.history.history["loss"]


def test_each_rollback_is_one_of_a_number(arrays, tmp_path):
    run = Run(arrays, "rollback", 4, BAD_STEP, 10, 17, directory=tmp_path, max_rollbacks=3)
    assert [line[:10] for line in run.lines] == ["rollback 1", "rollback 2", "rollback 3"]
    assert run.history.stop_kind is StopKind.DIVERGED
    assert "at step 17 (epoch 3, batch 5" in run.history.stop_reason
    assert "after 3 rollbacks" in run.history.stop_reason


def test_the_start_is_saved_to_go_back_to(arrays, tmp_path):
    run = Run(arrays, "rollback", 1, directory=tmp_path)
    assert "back to step 0" in run.lines[0]
    assert run.values() == Run(arrays, "skip", 1).values()


def test_a_checkpoint_of_no_run_is_not_gone_back_to(arrays, tmp_path):
    state, lines = make_state(), []
    dataset, hook = make_dataset(arrays, BAD_STEP)
    state.build(dataset.element_spec)
    save(tmp_path, state)
    acts = OnNonfinite("rollback", directory=tmp_path, line=lines.append)
    config = make_config(epochs=3, on_nonfinite="rollback", steps_per_execution=4)
    history = fit(state, dataset, config, hooks=[acts, hook])
    assert "back to step 0" in lines[0] and len(lines) == 1
    assert history.epoch == [0, 1, 2]
    assert history.history["loss"] == Run(arrays, "skip", BAD_STEP).history.history["loss"]


def test_a_damaged_checkpoint_is_not_gone_back_to(arrays, tmp_path):
    def damage(info):
        if info.progress.num_steps_completed == 8:
            (tmp_path / "ckpt-8.npz").write_bytes(b"")

    run = Run(
        arrays, "rollback", BAD_STEP, directory=tmp_path,
        hooks=[LambdaHook(on_execution_end=damage, every_steps=1)],
    )  # fmt: skip
    assert "back to step" in run.lines[0]
    assert run.history.stop_kind is None


class StopWithin(Hook):
    """Asks for a stop at once, before the first execution of the second epoch."""

    def around_execution(self, num_steps_completed):
        if num_steps_completed == NUM_BATCHES:
            self.info.request_stop("now", kind=StopKind.INTERRUPTED, immediately=True)
        return contextlib.nullcontext()

    def on_train_begin(self, info):
        self.info = info


def test_what_a_rollback_goes_back_to_is_saved_when_all_hooks_have_begun(arrays, tmp_path):
    callbacks = KerasCallbacks([keras.callbacks.Callback()])
    run = Run(arrays, "rollback", 1, directory=tmp_path / "a", hooks=[callbacks])
    assert [line[:10] for line in run.lines] == ["rollback 1"]

    state, (dataset, _) = make_state(), make_dataset(arrays)
    config = make_config(on_nonfinite="rollback")
    fit(state, dataset, config, hooks=[OnNonfinite("rollback", directory=tmp_path / "b")])
    restore(save(tmp_path / "b", state), state)
    hook = OnNonfinite("rollback", directory=tmp_path / "c")
    stops = LambdaHook(on_execution_end=lambda info: info.request_stop("", immediately=True))
    more = make_config(on_nonfinite="rollback", epochs=2)
    fit(state, dataset, more, hooks=[hook, stops], resume=True)
    with CheckpointFile(tmp_path / "c" / f"ckpt-{NUM_BATCHES}.npz") as file:
        assert len(file.read_tree()["history"]["epoch"]) == 1


@pytest.mark.parametrize(
    ("action", "kind"), [("stop", StopKind.DIVERGED), ("rollback", StopKind.INTERRUPTED)]
)
def test_an_execution_that_is_cut_short_is_not_saved(arrays, tmp_path, monkeypatch, action, kind):
    """Its end is not seen, and its steps after the bad one have changed nothing."""
    monkeypatch.setattr(Planner, "next_call", lambda self, num_left: min(num_left, 2))
    run = Run(arrays, action, 7, directory=tmp_path, hooks=[StopWithin()], every_steps=None)
    assert run.state.progress.num_steps_completed == 8
    assert latest(tmp_path).name == "ckpt-6.npz"
    assert run.history.stop_kind is kind
    assert run.lines == []  # nothing was rolled back


def test_a_skip_in_an_execution_that_is_cut_short_is_told_and_saved(arrays, tmp_path, monkeypatch):
    monkeypatch.setattr(Planner, "next_call", lambda self, num_left: min(num_left, 2))
    run = Run(arrays, "skip", 7, directory=tmp_path, hooks=[StopWithin()], every_steps=None)
    assert run.state.progress.num_steps_completed == 8
    assert "not finite at step 7 (epoch 2, batch 1" in run.lines[0]
    with CheckpointFile(tmp_path / "ckpt-8.npz") as file:
        assert file.read_tree()["hooks"]["OnNonfinite"]["num_left_out"] == 1


def test_counts_go_on_in_a_run_that_is_resumed(arrays):
    hook = OnNonfinite("skip", line=lambda line: None)
    hook.restore(
        {"num_left_out": 2, "first": "the loss is not finite at step 1", "num_rollbacks": 0}
    )
    assert hook.state() == {
        "num_left_out": 2, "first": "the loss is not finite at step 1", "num_rollbacks": 0
    }  # fmt: skip


def test_a_second_training_begins_anew(arrays):
    dataset, hook = make_dataset(arrays, 1)
    state, config = make_state(), make_config(on_nonfinite="stop")
    acts = OnNonfinite("stop")
    assert fit(state, dataset, config, hooks=[acts, hook]).stop_kind is StopKind.DIVERGED
    good, _ = make_dataset(arrays)
    assert fit(state, good, config, hooks=[acts]).stop_kind is None
    assert int(state.optimizer.iterations.numpy()) == NUM_BATCHES


@pytest.mark.parametrize(
    ("action", "hooks", "message"),
    [
        ("stop", [], "needs the hook .* add engine.OnNonfinite\\('stop'\\)"),
        ("skip", [StopOnNaN()], "needs the hook"),
        (None, [OnNonfinite("skip")], "on_nonfinite='watch', but .* set on_nonfinite='skip'"),
        ("stop", [OnNonfinite("stop"), OnNonfinite("skip")], "but hooks has .*'skip'"),
        ("off", [StopOnNaN()], "'off', but hooks has engine.StopOnNaN"),
    ],
)
def test_config_and_hooks_must_agree(arrays, action, hooks, message):
    dataset, _ = make_dataset(arrays)
    with pytest.raises(ConfigError, match=message):
        fit(make_state(), dataset, make_config(on_nonfinite=action), hooks=hooks)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("leap",), "action must be one of stop, skip, rollback"),
        (("rollback",), "needs the directory of SaveCheckpoint"),
        (("skip", {"max_rollbacks": 0}), "max_rollbacks must be"),
        (("skip", {"global_batch_size": 0}), "global_batch_size must be"),
    ],
)
def test_wrong_arguments(arguments, message):
    action, *options = arguments
    with pytest.raises(ValueError, match=message):
        OnNonfinite(action, **(options[0] if options else {}))
