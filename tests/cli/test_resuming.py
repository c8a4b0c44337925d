"""--resume: the bits of a run without a stop, and nothing of the earlier run is lost."""

import keras
import numpy as np
import pytest

from gradloop.cli import main as train
from tests.cli.runs import QUICK, SMALL, contents, read


def test_resume_ends_with_the_bits_of_a_run_without_a_stop(tmp_path):
    flags = [*SMALL, "--limit_train_batches", "5", "--validation_steps", "2"]
    once, twice = tmp_path / "once", tmp_path / "twice"
    assert train.main([*flags, "--epochs", "2", "--run_dir", str(once)]) == 0
    keras.utils.clear_session(free_memory=False)
    assert train.main([*flags, "--epochs", "1", "--run_dir", str(twice)]) == 0
    keras.utils.clear_session(free_memory=False)
    assert train.main(["--epochs", "2", "--resume", "--run_dir", str(twice)]) == 0
    summary, expected = read(twice), read(once)
    assert summary["num_steps"] == 10
    assert summary["weights_sha256"] == expected["weights_sha256"]
    assert summary["history"] == expected["history"] == read(twice, "history.json")
    assert len(summary["history"]["loss"]) == 2
    assert (twice / "config.1.json").exists()


def test_a_resumed_run_counts_its_own_steps_and_profiles_only_on_request(tmp_path):
    folder = tmp_path / "resumed"
    flags = [*SMALL, "--limit_train_batches", "3", "--validation_steps", "1"]
    profile = ["--profile", "2,3"]
    assert train.main([*flags, *profile, "--epochs", "1", "--run_dir", str(folder)]) == 0
    for epochs, more in ((2, []), (3, profile)):
        keras.utils.clear_session(free_memory=False)
        resumed = ["--resume", "--run_dir", str(folder), "--epochs", str(epochs)]
        assert train.main([*resumed, *more]) == 0
    assert sorted(p.name for p in folder.glob("profile*")) == ["profile", "profile-2"]
    assert (
        train.main(["--resume", "--run_dir", str(folder), "--epochs", "4", "--profile", "4,4"]) == 2
    )


def test_a_run_folder_is_never_overwritten(trained, capsys):
    before = contents(trained)
    assert train.main([*QUICK, "--run_dir", str(trained)]) == 2
    assert "--resume" in capsys.readouterr().err
    assert contents(trained) == before


@pytest.mark.parametrize(
    "flags",
    [
        "--resume",  # its epochs are done
        "--resume --epochs 2 --model lstm",
        "--resume --mode compare",
        "--resume --checkpoint {trained}/checkpoints",
    ],
)
def test_a_refused_resume_changes_nothing(trained, flags):
    before = contents(trained)
    arguments = flags.format(trained=trained).split()
    assert train.main([*arguments, "--run_dir", str(trained)]) == 2
    assert contents(trained) == before


STEPS = ["--limit_train_batches", "2", "--validation_steps", "1", "--no_tensorboard", "--no_plots"]


def start(folder, *flags):
    keras.utils.clear_session(free_memory=False)
    return train.main([*flags, "--run_dir", str(folder)])


@pytest.fixture(scope="module")
def faster(tmp_path_factory):
    """A run with a higher learning rate than the recipe's."""
    folder = tmp_path_factory.mktemp("runs") / "faster"
    assert start(folder, *SMALL, *STEPS, "--epochs", "1", "--learning_rate", "0.5") == 0
    return folder


@pytest.mark.parametrize("flags", [[], ["--learning_rate", "0.25"]])
def test_a_run_from_a_checkpoint_has_the_rate_of_its_settings(faster, tmp_path, flags):
    rate = np.float32(flags[-1] if flags else 0.001)
    flags = [*SMALL, *STEPS, "--checkpoint", str(faster), *flags]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert start(whole, *flags, "--epochs", "2") == 0
    assert start(parts, *flags, "--epochs", "1") == 0
    assert start(parts, "--resume", "--epochs", "2") == 0
    assert read(whole)["history"]["learning_rate"] == [rate, rate]
    assert read(parts)["history"] == read(whole)["history"]
    assert read(parts)["weights_sha256"] == read(whole)["weights_sha256"]
    said = f"initial    learning_rate={rate:g}, and 0.5 in the checkpoint"
    assert said in (whole / "train.log").read_text()
    for folder in (whole, parts):  # also once it was resumed
        file = read(folder, "config.json")["checkpoint"]
        assert file == str(faster / "checkpoints" / "ckpt-2.npz")
