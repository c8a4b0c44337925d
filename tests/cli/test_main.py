"""train.py as a person uses it: what it prints, leaves behind and returns."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest

from gradloop import engine
from gradloop.cli import main as train
from gradloop.engine.tuning.choice import Tuning

ROOT = Path(train.__file__).parent
SMALL = ["--model", "dense", "--dataset", "synthetic"]
QUICK = [*SMALL, "--fast_dev_run"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a finished quick run."""
    folder = tmp_path_factory.mktemp("runs") / "trained"
    assert train.main([*QUICK, "--run_dir", str(folder)]) == 0
    return folder


SUMMARY_KEYS = {
    "test_accuracy", "history", "images_per_sec", "num_steps", "num_traces", "peak_memory_bytes",
    "exit_reason", "weights_sha256", "traces", "timing", "memory",
}  # fmt: skip


def contents(folder):
    return {path: path.is_file() and path.read_bytes() for path in folder.rglob("*")}


def read(folder, name="summary.json"):
    return json.loads((folder / name).read_text())


def test_leaves_a_whole_run_folder(trained):
    names = {path.name for path in trained.iterdir()}
    assert names >= {
        "config.json", "environment.json", "command.txt", "metrics.csv", "metrics.jsonl",
        "history.json", "summary.json", "train.log", "checkpoints", "tensorboard", "plots",
    }  # fmt: skip
    assert [p.name for p in (trained / "checkpoints").iterdir()] == ["ckpt-8.npz"]
    assert (trained / "plots" / "history.png").stat().st_size > 1000
    assert any((trained / "tensorboard").rglob("*tfevents*"))


def test_summary_has_what_scripts_need(trained):
    summary = read(trained)
    assert 0 < summary["test_accuracy"] <= 1
    assert set(summary["history"]) == {"accuracy", "loss", "val_accuracy", "val_loss"}
    assert summary["history"] == read(trained, "history.json")
    assert summary["num_steps"] == 8
    assert summary["num_traces"] == 2
    assert summary["exit_reason"] == "completed"
    assert summary["images_per_sec"] > 0
    assert summary["peak_memory_bytes"] > 1e8
    assert len(summary["weights_sha256"]) == 64


def test_summary_says_where_the_time_went(trained):
    summary = read(trained)
    parts = summary["timing"]["parts"]
    assert sum(p["secs"] for p in parts.values()) == pytest.approx(summary["timing"]["wall_secs"])
    assert {"compute", "checkpoints", "hooks/ProgressBar", "writers/CSVWriter"} <= set(parts)
    assert [t["function"] for t in summary["traces"]] == ["train_step", "eval_step"]
    assert summary["memory"]["peak_bytes"] > 1e8
    log = (trained / "train.log").read_text()
    assert re.search(r"^  time +\d+ % \w+.* compute", log, re.MULTILINE), log


def test_a_surplus_trace_is_wrong_usage_and_loses_nothing(tmp_path, monkeypatch, capsys):
    evaluate = engine.evaluate

    def evaluate_other_batches(state, dataset, config):
        weighted = dataset.map(lambda x, y: (x, y, y[:, 0]))
        return evaluate(state, weighted, config)

    monkeypatch.setattr(engine, "evaluate", evaluate_other_batches)
    folder = tmp_path / "run"
    assert train.main([*QUICK, "--max_retraces", "0", "--run_dir", str(folder)]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("train.py: error: eval_step needs trace number 2")
    assert "batch[2] is new" in error
    assert "\n" not in error
    summary = read(folder)
    assert summary["exit_reason"].startswith("refused: eval_step")
    assert summary["images_per_sec"] > 0
    assert (folder / "checkpoints" / "ckpt-8.npz").exists()


def test_diagnosis_of_the_input_trains_and_saves_nothing(tmp_path, monkeypatch, trained):
    monkeypatch.setattr("gradloop.engine.tuning.trial.WARM_UP_SECS", 0.2)
    monkeypatch.setattr("gradloop.engine.tuning.trial.WINDOW_SECS", 0.05)
    folder = tmp_path / "run"
    assert train.main([*QUICK, "--diagnose_input", "--run_dir", str(folder)]) == 0
    summary = read(folder)
    assert summary["input"]["share"] > 0
    assert summary["input"]["is_resident"]
    assert summary["num_steps"] == 0
    assert not (folder / "checkpoints").exists()
    assert "of the ceiling" in (folder / "train.log").read_text()
    resume = ["--run_dir", str(trained), "--resume", "--diagnose_input"]
    before = contents(trained)
    assert train.main(resume) == 2
    assert contents(trained) == before


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    """A cache of choices that no run of this machine's user sees."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.usefixtures("own_cache")
def test_tune_keeps_a_choice_that_later_runs_take(tmp_path, monkeypatch, capsys, trained):
    def choose(make_state, make_dataset, config, *, script):
        assert script.name == "train.py"
        state = make_state(config)
        state.build(make_dataset(config).element_spec)
        return Tuning(exact={"steps_per_execution": 2}, fast={"jit_compile": "loop"})

    monkeypatch.setattr("gradloop.engine.tuning.search.tune", choose)
    assert train.main([*QUICK, "--tune", "--run_dir", str(tmp_path / "tune")]) == 0
    assert read(tmp_path / "tune")["tuning"]["exact"] == {"steps_per_execution": 2}
    assert not (tmp_path / "tune" / "checkpoints").exists()

    capsys.readouterr()
    assert train.main([*QUICK, "--run_dir", str(tmp_path / "exact")]) == 0
    assert "tuned" in capsys.readouterr().out
    config = json.loads((tmp_path / "exact" / "config.json").read_text())
    assert (config["steps_per_execution"], config["jit_compile"]) == (2, "auto")
    assert read(tmp_path / "exact")["weights_sha256"] == read(trained)["weights_sha256"]

    fast = [*QUICK, "--numerics", "fast", "--run_dir", str(tmp_path / "fast")]
    assert train.main(fast) == 0
    config = json.loads((tmp_path / "fast" / "config.json").read_text())
    assert (config["steps_per_execution"], config["jit_compile"]) == ("auto", "loop")


@pytest.mark.slow
@pytest.mark.usefixtures("own_cache")
def test_tune_measures_and_prints_a_table(tmp_path, capsys):
    assert train.main([*SMALL, "--tune", "--run_dir", str(tmp_path / "tune")]) == 0
    table = capsys.readouterr().out
    for trial in ("steps_per_execution=32", "input=streamed", "jit_compile=loop"):
        assert trial in table
    assert "inter_op_threads=1" in table
    assert "its process failed" not in table


def test_log_has_banner_epoch_and_result(trained):
    log = (trained / "train.log").read_text()
    for text in ("dense, 407,050 parameters", "128 global", "Epoch 1/1", "val_accuracy"):
        assert text in log
    accuracy = 100 * read(trained)["test_accuracy"]
    assert f"Test set prediction accuracy: {accuracy:.2f}%" in log
    assert log.rstrip().endswith(str(trained))
    assert "\x1b" not in log
    assert "\r" not in log


def test_metrics_agree_in_both_files(trained):
    with (trained / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    records = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["kind"] == records[-1]["kind"] == "epoch"
    assert float(rows[-1]["val_loss"]) == records[-1]["val_loss"]
    assert records[-1]["val_loss"] == read(trained)["history"]["val_loss"][0]


def test_same_seed_gives_the_same_weights_and_another_one_others(trained, tmp_path):
    for name, seed in (("same", 0), ("other", 1)):
        keras.utils.clear_session(free_memory=False)
        assert train.main([*QUICK, "--seed", str(seed), "--run_dir", str(tmp_path / name)]) == 0
    digests = [read(folder)["weights_sha256"] for folder in (trained, tmp_path / "same")]
    assert digests[0] == digests[1]
    assert read(tmp_path / "other")["weights_sha256"] != digests[0]


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


def test_evaluate_gives_the_accuracy_of_the_run(trained, tmp_path):
    flags = [*QUICK, "--mode", "evaluate", "--checkpoint", str(trained / "checkpoints")]
    assert train.main([*flags, "--run_dir", str(tmp_path / "eval")]) == 0
    summary = read(tmp_path / "eval")
    assert summary["test_accuracy"] == read(trained)["test_accuracy"]
    assert summary["weights_sha256"] == read(trained)["weights_sha256"]
    assert summary.keys() >= SUMMARY_KEYS
    assert (summary["exit_reason"], summary["num_traces"]) == ("completed", 1)


def test_evaluate_takes_the_newest_checkpoint_of_a_run_and_its_config(trained, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(trained, folder)
    assert train.main(["--mode", "evaluate", "--run_dir", str(folder), "--resume"]) == 0
    assert read(folder)["test_accuracy"] == read(trained)["test_accuracy"]
    assert read(folder, "config.json")["model"] == "dense"


def test_predict_writes_tables_and_pictures(trained, tmp_path):
    folder = tmp_path / "predict"
    checkpoint = str(trained / "checkpoints" / "ckpt-8.npz")
    flags = [*SMALL, "--mode", "predict", "--checkpoint", checkpoint]
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


def test_a_resumed_run_counts_its_own_steps_and_profiles_only_if_it_is_told_to(tmp_path):
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


def test_compare_exits_with_0_if_all_bits_are_equal(tmp_path, capsys):
    flags = [*QUICK, "--mode", "compare", "--run_dir", str(tmp_path / "compare")]
    assert train.main(flags) == 0
    assert "equal: all bits of" in capsys.readouterr().out
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
    assert "DIFFERENT: first at step 1, in" in capsys.readouterr().out


def test_mirrored_on_logical_cpus_says_so(tmp_path, capsys):
    flags = [*QUICK, "--strategy", "mirrored", "--num_replicas", "2"]
    assert train.main([*flags, "--run_dir", str(tmp_path / "mirrored")]) == 0
    output = capsys.readouterr().out
    assert "2 x CPU, logical devices: there is no GPU here" in output
    assert "128 global, 64 per replica" in output


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


def test_print_config_merges_defaults_recipe_file_and_flags(tmp_path, capsys):
    path = tmp_path / "config.toml"
    path.write_text('model = "lstm"\nepochs = 7\nseed = 3\n')
    with pytest.raises(SystemExit) as stop:
        train.main(["--config", str(path), "--seed", "4", "--print_config"])
    assert stop.value.code == 0
    config = json.loads(capsys.readouterr().out)
    assert (config["model"], config["epochs"], config["seed"]) == ("lstm", 7, 4)
    assert config["global_batch_size"] == train.registry.get("lstm").global_batch_size


WRONG_USAGE = {
    "--model cn": "did you mean 'cnn'?",
    "--dataset mnits": "did you mean mnist?",
    "--strategy mirored": "Did you mean 'mirrored'?",
    "--precision float8": "float32, mixed_bfloat16, mixed_float16",
    "--mode tran": "Did you mean 'train'?",
    "--batch_size 0": "global_batch_size=0 must be 1 or more",
    "--batch-size -3": "global_batch_size=-3 must be 1 or more",
    "--batch_size 1 --strategy mirrored": "less than the 2 replicas",
    "--batch_size 2 --strategy mirrored --num_replicas 3": "less than num_replicas=3",
    "--epochs 0": "epochs=0 must be 1 or more",
    "--num_replicas 2": "use strategy='mirrored'",
    "--jit_compile true --strategy mirrored": "one replica",
    "--epohcs 3": "Did you mean '--epochs'?",
    "--run_dir /proc/nowhere": "cannot write to /proc/nowhere",
    "--mode predict": "--checkpoint FILE",
    "--resume": "resume needs run_dir",
    "--config {tmp}/unknown_key.json": "Did you mean 'epochs'?",
    "--config {tmp}/wrong_type.json": "epochs=three must be of type int",
    "--config {tmp}/nowhere.json": "cannot be read",
    "--config {tmp}/wrong_model.json": "unknown model 3",
    "--run_dir {tmp}/r1 --checkpoint {tmp}/nowhere.npz": "there is no checkpoint",
    "--run_dir {tmp}/r1 --resume": "there is no checkpoint",
    "--run_dir {tmp}/r1 --resume --checkpoint c.npz": "choose one",
    "--mode compare --checkpoint c.npz": "leave resume and checkpoint out",
    "--profile x,3": "profile=x,3 must be A,B",
    "--profile 5,2": "profile=5,2 must be A,B",
    "--profile 3,9 --limit_train_batches 4 --epochs 2": "this run has 8 steps",
    "--profile 3,5 --mode compare": "only steps of training are profiled",
}


@pytest.mark.parametrize("flags", WRONG_USAGE)
def test_wrong_usage_is_one_line_and_exit_code_2(flags, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "unknown_key.json").write_text('{"epochz": 3}')
    (tmp_path / "wrong_type.json").write_text('{"epochs": "three"}')
    (tmp_path / "wrong_model.json").write_text('{"model": 3}')
    before = contents(tmp_path)
    arguments = flags.format(tmp=tmp_path).split()
    if "model" not in flags and "--dataset" not in flags:
        arguments += SMALL
    try:
        code = train.main(arguments)
    except SystemExit as stop:
        code = stop.code
    error = capsys.readouterr().err
    assert code == 2
    assert error.count("\n") == 1, error
    assert error.startswith("train.py: error: ")
    assert WRONG_USAGE[flags] in error
    assert contents(tmp_path) == before


def test_a_process_with_wrong_usage_writes_one_line(tmp_path):
    """TensorFlow's own log would stand before it."""
    environment = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    done = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), "--model", "cn"],
        capture_output=True, text=True, cwd=tmp_path, check=False, env=environment,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("train.py: error: unknown model 'cn'")


LOG = b"""\
WARNING: All log messages before absl::InitializeLog() is called are written to STDERR
I0000 00:00:1795306043.699742   13988 port.cc:153] oneDNN custom operations are on.
"""


def test_only_the_cpp_log_is_hidden_and_after_an_error_nothing(capfd):
    with train.without_cpp_log():
        os.write(2, LOG + b"a warning of Python's\n")
    assert capfd.readouterr().err == "a warning of Python's\n"
    with pytest.raises(ImportError), train.without_cpp_log():
        os.write(2, LOG)
        raise ImportError
    assert capfd.readouterr().err == LOG.decode()


def test_checkpoint_of_another_model_names_the_first_difference(trained, tmp_path, capsys):
    flags = ["--model", "lstm", "--dataset", "synthetic"]
    flags += ["--checkpoint", str(trained / "checkpoints")]
    assert train.main([*flags, "--run_dir", str(tmp_path / "other")]) == 2
    error = capsys.readouterr().err
    assert "belongs to another model" in error
    assert "model/hidden/kernel" in error
    assert not (tmp_path / "other").exists()


def test_a_bug_leaves_its_traceback_and_a_summary(tmp_path, monkeypatch, capsys):
    def broken(*args, **kwargs):
        raise ValueError("a bug")

    monkeypatch.setattr(train.engine, "fit", broken)
    folder = tmp_path / "bug"
    assert train.main([*QUICK, "--run_dir", str(folder)]) == 1
    assert read(folder).keys() >= SUMMARY_KEYS
    assert read(folder)["exit_reason"] == "failed: ValueError: a bug"
    error = capsys.readouterr().err
    assert error.startswith("Traceback") and error.rstrip().endswith("ValueError: a bug")
    assert error in (folder / "train.log").read_text()


def test_an_interrupt_after_the_training_keeps_what_it_gave(tmp_path, monkeypatch):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(train.engine, "evaluate", interrupted)
    assert train.main([*QUICK, "--run_dir", str(tmp_path / "late")]) == 130
    summary = read(tmp_path / "late")
    assert (summary["exit_reason"], summary["num_steps"]) == ("interrupted", 8)
    assert summary["images_per_sec"] > 0
    assert len(summary["history"]["val_loss"]) == 1


@pytest.mark.slow
def test_interrupt_saves_what_was_done_and_resumes(tmp_path):
    """A process of its own: Ctrl-C goes to its main thread, between two executions."""
    folder = tmp_path / "interrupted"
    flags = [*SMALL, "--batch_size", "2048"]
    command = [sys.executable, str(ROOT / "train.py"), *flags, "--run_dir", str(folder)]
    with subprocess.Popen(
        [*command, "--epochs", "1000"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
    ) as process:
        deadline = time.monotonic() + 100
        while not list(folder.glob("checkpoints/ckpt-*.npz")):
            assert process.poll() is None, process.stderr.read().decode()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        error = process.communicate(timeout=60)[1].decode()
    assert process.returncode == 130, error
    assert "Traceback" not in error
    summary = read(folder)
    assert summary["exit_reason"] == "interrupted"
    assert (folder / "checkpoints" / f"ckpt-{summary['num_steps']}.npz").exists()
    num_done = len(summary["history"]["loss"])
    assert num_done >= 1
    done = subprocess.run(
        [*command, "--epochs", str(num_done + 1), "--resume"],
        capture_output=True, text=True, cwd=tmp_path, timeout=100, check=False,
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    straight = tmp_path / "straight"
    epochs = ["--epochs", str(num_done + 1)]
    assert train.main([*flags, *epochs, "--run_dir", str(straight)]) == 0
    summary, expected = read(folder), read(straight)
    assert summary["num_steps"] == expected["num_steps"] == -(-60_000 // 2048) * (num_done + 1)
    assert summary["weights_sha256"] == expected["weights_sha256"]
    assert summary["history"] == expected["history"]


@pytest.mark.slow
def test_the_tutorials_net_reaches_its_accuracy_in_one_epoch(tmp_path):
    assert train.main(["--run_dir", str(tmp_path / "cnn")]) == 0
    assert read(tmp_path / "cnn")["test_accuracy"] >= 0.97
    assert read(tmp_path / "cnn")["num_traces"] == 2


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
