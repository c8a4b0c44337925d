"""Runs that diverge, are resumed, limited, interrupted or broken."""

import keras

from gradloop.cli import main as train
from tests.cli.runs import QUICK, SMALL, read


def test_divergence_exits_with_1(tmp_path):
    flags = [*QUICK, "--learning_rate", "1e38", "--run_dir", str(tmp_path / "nan")]
    assert train.main(flags) == 1
    assert read(tmp_path / "nan")["exit_reason"].startswith("divergence: loss is")


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


def test_a_limit_above_the_number_of_batches_means_all(tmp_path):
    flags = [*SMALL, "--batch_size", "20000", "--limit_train_batches", "9", "--epochs", "2"]
    assert train.main([*flags, "--validation_steps", "9", "--run_dir", str(tmp_path / "all")]) == 0
    assert read(tmp_path / "all")["num_steps"] == 6


def test_rare_validations_count_at_their_epochs(tmp_path, capsys):
    flags = [*SMALL, "--batch_size", "6000", "--epochs", "3", "--validation_freq", "2"]
    assert train.main([*flags, "--run_dir", str(tmp_path / "rare")]) == 0
    summary = read(tmp_path / "rare")
    assert len(summary["history"]["loss"]) == 3
    (accuracy,) = summary["history"]["val_accuracy"]
    assert f"val_accuracy {accuracy:.4f} in epoch 2" in capsys.readouterr().out
