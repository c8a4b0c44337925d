"""The other modes: evaluate, predict, profile, compare."""

import csv
import re
import shutil

import keras
import numpy as np
import pytest

from gradloop.cli import main as train
from tests.cli.runs import QUICK, SMALL, SUMMARY_KEYS, read


def test_evaluate_gives_the_accuracy_of_the_run(trained, tmp_path):
    flags = [*SMALL, "--mode", "evaluate", "--checkpoint", str(trained / "checkpoints")]
    assert train.main([*flags, "--run_dir", str(tmp_path / "eval")]) == 0
    summary = read(tmp_path / "eval")
    assert summary["test_accuracy"] == read(trained)["test_accuracy"]
    assert summary["weights_sha256"] == read(trained)["weights_sha256"]
    assert summary.keys() >= SUMMARY_KEYS
    assert (summary["exit_reason"], summary["num_traces"]) == ("completed", 1)


def test_evaluate_shows_the_loss_and_leaves_the_summary_of_the_run_alone(trained, tmp_path, capsys):
    folder = tmp_path / "copy"
    shutil.copytree(trained, folder)
    before = (folder / "summary.json").read_bytes()
    checkpoint = ["--checkpoint", str(folder / "checkpoints")]
    flags = [*SMALL, "--mode", "evaluate", *checkpoint, "--run_dir", str(folder)]
    assert train.main(flags) == 0
    out = capsys.readouterr().out
    assert re.search(r"test +accuracy: [\d.]+, loss: [\d.]+ on all 10,000 test examples", out)
    assert (folder / "summary.json").read_bytes() == before
    assert read(folder, "summary.evaluate.json")["test_accuracy"] == read(trained)["test_accuracy"]
    assert read(folder, "summary.evaluate.json")["test_logs"].keys() == {"accuracy", "loss"}


def test_a_part_of_the_test_set_has_another_label(trained, tmp_path, capsys):
    resumed = ["--mode", "evaluate", "--run_dir", str(trained), "--resume"]
    checkpoint = ["--checkpoint", str(trained / "checkpoints"), "--run_dir", str(tmp_path / "new")]
    # The quick run has 8 validation_steps, which are no setting of an evaluation.
    assert read(trained, "config.json")["validation_steps"] == 8
    assert train.main(resumed) == 0
    assert "Test set prediction accuracy: " in capsys.readouterr().out
    keras.utils.clear_session(free_memory=False)
    flags = [*SMALL, "--mode", "evaluate", *checkpoint, "--validation_steps", "2"]
    assert train.main(flags) == 0
    out = capsys.readouterr().out
    assert "Accuracy on the first 256 of 10,000 test examples: " in out
    assert "Test set" not in out
    summary = read(tmp_path / "new")
    assert (summary["test_accuracy"], summary["test_examples"]) == (None, 256)


def test_evaluate_takes_the_newest_checkpoint_of_a_run_and_its_config(trained, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(trained, folder)
    assert train.main(["--mode", "evaluate", "--run_dir", str(folder), "--resume"]) == 0
    assert read(folder)["test_accuracy"] == read(trained)["test_accuracy"]
    assert read(folder, "config.json")["model"] == "dense"


def test_predict_writes_tables_and_pictures(trained, tmp_path):
    folder = tmp_path / "predict"
    checkpoint = str(trained / "checkpoints" / "ckpt-8.npz")
    flags = [*SMALL, "--mode", "predict", "--checkpoint", checkpoint, "--plots"]
    assert train.main([*flags, "--run_dir", str(folder)]) == 0
    arrays = np.load(folder / "predictions.npz")
    assert arrays["probabilities"].shape == (10_000, 10)
    np.testing.assert_allclose(arrays["probabilities"].sum(axis=1), 1, rtol=1e-5)
    accuracy = (arrays["probabilities"].argmax(axis=1) == arrays["labels"]).mean()
    assert read(folder)["test_accuracy"] == accuracy
    assert read(folder).keys() >= SUMMARY_KEYS
    with (folder / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 10_000
    assert int(rows[7]["predicted"]) == arrays["predicted"][7]
    for name in ("confusion_matrix.png", "worst_mistakes.png"):
        assert (folder / "plots" / name).stat().st_size > 1000


def test_profile_is_in_the_folder_and_changes_no_bit(trained, tmp_path, capsys):
    keras.utils.clear_session(free_memory=False)
    folder = tmp_path / "profiled"
    assert train.main([*QUICK, "--profile", "3,5", "--run_dir", str(folder)]) == 0
    assert read(folder)["weights_sha256"] == read(trained)["weights_sha256"]
    names = {path.name for path in (folder / "profile").iterdir()}
    assert names == {"summary.txt", "profile.json", "profile.png", "plugins"}
    summary = read(folder / "profile", "profile.json")
    assert [summary[key] for key in ("first_step", "last_step", "num_steps")] == [3, 5, 3]
    assert "profile    steps 3 to 5" in (folder / "train.log").read_text()
    assert not (trained / "profile").exists()


def test_compare_exits_with_0_if_all_bits_are_equal(tmp_path, capsys):
    flags = [*QUICK, "--mode", "compare", "--run_dir", str(tmp_path / "compare")]
    assert train.main(flags) == 0
    assert "equal to fit: all bits of" in capsys.readouterr().out
    summary = read(tmp_path / "compare")
    assert summary.keys() >= SUMMARY_KEYS
    assert (summary["is_equal"], summary["has_moved"], summary["num_steps"]) == (True, True, 8)
    assert summary["history"] == summary["engine_history"] == summary["fit_history"]


def test_compare_exits_with_1_and_names_the_step_if_not(tmp_path, capsys, monkeypatch):
    right = train.engine.TrainState.scale_loss
    monkeypatch.setattr(
        train.engine.TrainState, "scale_loss", lambda self, loss, **kw: 2 * right(self, loss, **kw)
    )
    flags = [*QUICK, "--mode", "compare", "--run_dir", str(tmp_path / "compare")]
    assert train.main(flags) == 1
    assert "DIFFERENT from fit: first at step 1, in" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize(
    "flags",
    [
        "--model cnn --limit_train_batches 20",
        "--model lstm --limit_train_batches 20",
        *(
            f"--model {model} --limit_train_batches 10 --strategy mirrored --num_replicas 2"
            for model in ("dense", "cnn", "lstm")
        ),
    ],
)
def test_the_models_are_equal_to_fit(flags, tmp_path):
    arguments = [*flags.split(), "--mode", "compare", "--epochs", "1", "--validation_steps", "3"]
    assert train.main([*arguments, "--run_dir", str(tmp_path / "compare")]) == 0


def test_mirrored_on_logical_cpus_says_so(tmp_path, capsys):
    flags = [*QUICK, "--strategy", "mirrored", "--num_replicas", "2"]
    assert train.main([*flags, "--run_dir", str(tmp_path / "mirrored")]) == 0
    output = capsys.readouterr().out
    assert "2 x CPU, logical devices" in output
    assert "128 global, 64 per replica" in output
