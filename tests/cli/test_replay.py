"""--mode replay: which operation of a step went wrong, from the bits that the run had."""

import dataclasses
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradloop import data
from gradloop.cli import main as train
from gradloop.cli import replay as replay_lib
from tests.cli.runs import SMALL, contents, read

NUM_STEPS = 8
TRAIN = [*SMALL, "--steps_per_epoch", "4", "--epochs", "2", "--checkpoint_every_steps", "3"]


def replay(folder, step, *flags):
    arguments = ["--mode", "replay", "--run_dir", str(folder), "--step", str(step)]
    return train.main([*arguments, *flags])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "finite"
    assert train.main([*TRAIN, "--keep", "9", "--run_dir", str(folder)]) == 0
    return folder


def test_a_step_without_a_fault_is_said_to_be_finite(trained, capsys):
    before = contents(trained)
    assert replay(trained, 5) == 0
    assert "step 5 (epoch 2, batch 1): all operations are finite" in capsys.readouterr().out
    found = read(trained, "replay.json")
    assert found["first_nonfinite"] is None
    assert found["checkpoint"] == "ckpt-4.npz"
    assert found["batch_is_finite"] and found["weights_are_finite"]
    after = contents(trained)
    for name in ("config.json", "summary.json", "metrics.csv", "metrics.jsonl", "history.json"):
        assert after[trained / name] == before[trained / name]
    saved = [path for path in after if path.suffix == ".npz"]
    assert {path: before[path] for path in saved} == {path: after[path] for path in saved}


@pytest.fixture
def digests(monkeypatch):
    """Of the weights and the batch with which each replayed step begins."""
    found = []
    find = replay_lib.find_first_nonfinite

    def spy(train_step, state, batch, **options):
        x = tf.nest.flatten(batch)[0].numpy()
        found.append((state.weights_sha256(), x.tobytes()))
        return find(train_step, state, batch, **options)

    monkeypatch.setattr(replay_lib, "find_first_nonfinite", spy)
    return found


@pytest.mark.parametrize("step", [1, 4, 5, 8])
def test_the_step_begins_with_the_bits_that_the_run_had(trained, digests, monkeypatch, step):
    assert replay(trained, step) == 0
    # From the beginning, without any checkpoint.
    monkeypatch.setattr(replay_lib.CheckpointFolder, "by_age", lambda self: [])
    assert replay(trained, step) == 0
    assert digests[0] == digests[1]
    assert read(trained, "replay.json")["checkpoint"] is None


@pytest.fixture(scope="module")
def faster(tmp_path_factory):
    """A run that went on with another learning rate after step 4."""
    folder = tmp_path_factory.mktemp("runs") / "faster"
    first = [*TRAIN, "--epochs", "1", "--keep", "9", "--run_dir", str(folder)]
    assert train.main(first) == 0
    keras.utils.clear_session(free_memory=False)
    flags = ["--resume", "--epochs", "2", "--learning_rate", "0.5", "--run_dir", str(folder)]
    assert train.main(flags) == 0
    return folder


@pytest.mark.parametrize(("step", "earlier"), [(4, None), (7, "ckpt-4.npz")])
def test_the_steps_before_have_the_learning_rate_of_the_run(
    faster, digests, monkeypatch, step, earlier
):
    assert replay(faster, step) == 0
    by_age = replay_lib.CheckpointFolder.by_age

    def without_the_one_before(self):
        return [path for path in by_age(self) if replay_lib.num_steps_of(path) != step - 1]

    monkeypatch.setattr(replay_lib.CheckpointFolder, "by_age", without_the_one_before)
    assert replay(faster, step) == 0
    assert read(faster, "replay.json")["checkpoint"] == earlier
    assert digests[0] == digests[1]


def test_a_run_that_began_from_a_run_is_replayed_from_there(
    trained, digests, monkeypatch, tmp_path, capsys
):
    first, second = tmp_path / "first", tmp_path / "second"
    shutil.copytree(trained, first)
    flags = [*TRAIN, "--keep", "9", "--checkpoint", str(first), "--run_dir", str(second)]
    assert train.main(flags) == 0
    assert replay(second, 4) == 0
    monkeypatch.setattr(replay_lib.CheckpointFolder, "by_age", lambda self: [])
    assert replay(second, 4) == 0
    assert digests[0] == digests[1]
    (first / "checkpoints" / "ckpt-8.npz").unlink()  # another one is the newest now
    assert replay(second, 4) == 2
    err = capsys.readouterr().err
    assert "cannot be restored, so pass a later --step: there is no checkpoint" in err
    assert err.count("\n") == 1


def test_hooks_of_ones_own_do_not_run_which_is_said(tmp_path, capsys):
    flags = ["--hook", "tests.cli.own_nets:callbacks", "--run_dir", str(tmp_path)]
    assert train.main([*TRAIN, *flags]) == 0
    capsys.readouterr()
    said = "warning: hook=tests.cli.own_nets:callbacks does not run here"
    for step, is_said in ((7, False), (8, True)):  # there is ckpt-6
        assert replay(tmp_path, step) == 0
        assert (said in capsys.readouterr().err) == is_said


def test_a_run_that_validated_within_epochs_is_replayed(tmp_path, capsys):
    flags = ["--validate_every_steps", "2", "--run_dir", str(tmp_path)]
    assert train.main([*TRAIN, *flags]) == 0
    assert replay(tmp_path, 5) == 0
    assert "step 5 (epoch 2, batch 1): all operations are finite" in capsys.readouterr().out


def test_weights_that_are_too_large_are_found_in_the_forward_pass(tmp_path, capsys):
    folder = tmp_path / "run"
    flags = [*TRAIN, "--learning_rate", "1e30", "--run_dir", str(folder)]
    assert train.main(flags) == 1  # diverged
    assert replay(folder, 2) == 0
    found = read(folder, "replay.json")["first_nonfinite"]
    assert found["operation"] in ("MatMul", "AddV2", "BiasAdd", "Add")
    assert found["phase"] == "forward pass"
    assert found["layer"]
    assert sum(found["counts"].values()) > 0
    assert f"is {found['operation']} in {found['layer']}" in capsys.readouterr().out


def test_a_batch_with_a_nan_is_told(trained, monkeypatch, capsys):
    load = data.load

    def load_bad(*args, **kwargs):
        splits = load(*args, **kwargs)
        x = np.full_like(splits.train.x, np.nan, "float32")
        return dataclasses.replace(splits, train=dataclasses.replace(splits.train, x=x))

    monkeypatch.setattr(data, "load", load_bad)
    assert replay(trained, 4, "--no_rescale") == 0
    found = read(trained, "replay.json")
    assert not found["batch_is_finite"] and found["weights_are_finite"]
    assert "not finite already: the batch" in capsys.readouterr().out


def test_a_damaged_checkpoint_is_not_started_from(trained, capsys):
    path = trained / "checkpoints" / "ckpt-6.npz"
    good = path.read_bytes()
    path.write_bytes(good[:100])
    try:
        assert replay(trained, 8) == 0
        assert read(trained, "replay.json")["checkpoint"] == "ckpt-4.npz"
        assert path.exists()  # nothing is moved
    finally:
        path.write_bytes(good)


def test_a_step_beyond_the_run_is_refused(trained, capsys):
    assert replay(trained, 9) == 2
    assert "step=9 is beyond the end of the run: it has 8 steps" in capsys.readouterr().err


def test_without_a_seed_the_start_cannot_be_replayed(tmp_path, capsys):
    folder = tmp_path / "run"
    assert train.main([*TRAIN, "--seed", "none", "--keep", "9", "--run_dir", str(folder)]) == 0
    assert replay(folder, 2) == 2
    assert "without a seed the initial weights were others" in capsys.readouterr().err
    assert replay(folder, 4) == 0
