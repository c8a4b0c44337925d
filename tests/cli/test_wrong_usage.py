"""Wrong usage gives one line and exit code 2, and nothing is lost."""

import json
import os
import subprocess
import sys

import pytest

from gradloop.cli import main as train
from gradloop.cli import quiet
from gradloop.models import registry
from tests.cli.runs import ROOT, SMALL, contents


def test_print_config_merges_defaults_recipe_file_and_flags(tmp_path, capsys):
    path = tmp_path / "config.toml"
    path.write_text('model = "lstm"\nepochs = 7\nseed = 3\n')
    with pytest.raises(SystemExit) as stop:
        train.main(["--config", str(path), "--seed", "4", "--print_config"])
    assert stop.value.code == 0
    config = json.loads(capsys.readouterr().out)
    assert (config["model"], config["epochs"], config["seed"]) == ("lstm", 7, 4)
    assert config["global_batch_size"] == registry.get("lstm").global_batch_size


WRONG_USAGE = {
    "--model cn": "Did you mean 'cnn'?",
    "--dataset mnits": "Did you mean 'mnist'?",
    "--strategy mirored": "Did you mean 'mirrored'?",
    "--precision float8": "float32, mixed_bfloat16, mixed_float16",
    "--mode tran": "Did you mean 'train'?",
    "--batch_size 0": "global_batch_size=0 must be 1 or more",
    "--batch-size -3": "global_batch_size=-3 must be 1 or more",
    "--batch_size 1 --strategy mirrored": "less than the 2 replicas",
    "--batch_size 2 --strategy mirrored --num_replicas 3": "less than num_replicas=3",
    "--epochs 0": "epochs=0 must be 1 or more",
    "--num_replicas 2": "use strategy='mirrored'",
    "--jit_compile true --jit_scope loop --strategy mirrored": "jit_scope='step'",
    "--epohcs 3": "Did you mean '--epochs'?",
    "--run_dir /proc/nowhere": "cannot write to /proc/nowhere",
    "--mode predict": "--checkpoint FILE",
    "--resume": "resume needs run_dir",
    "--config {tmp}/unknown_key.json": "Did you mean 'epochs'?",
    "--config {tmp}/wrong_type.json": "epochs=three must be of type int",
    "--config {tmp}/nowhere.json": "cannot be read",
    "--config {tmp}/wrong_model.json": "model=3 must be of type str",
    "--run_dir {tmp}/r1 --checkpoint {tmp}/nowhere.npz": "there is no checkpoint",
    "--run_dir {tmp}/r1 --resume": "there is no checkpoint",
    "--run_dir {tmp}/r1 --resume --checkpoint c.npz": "choose one",
    "--mode compare --checkpoint c.npz": "leave resume and checkpoint out",
    "--run_dir r --resume always": "true, false, auto",
    "--resume auto": "resume needs run_dir",
    "--resume auto --run_dir r --mode evaluate": "starts or continues a training",
    "--max_time 2hours": "max_time=2hours must be a time above 0: 90s, 30m",
    "--keep_best val_acuracy": "Did you mean 'val_accuracy'?",
    "--keep 3 --mode compare": "keep is for mode 'train', and this is mode='compare': leave it out",
    "--grace_secs 3 --mode tune": "grace_secs is for mode 'train'",
    "--step 3": "step is for mode 'replay'",
    "--format keras": "format is for mode 'export'",
    "--num_workers 2": "Use strategy='multi_worker'",
    "--num_workers 0": "num_workers=0 must be 1 or more",
    "--start_secs 3": "start_secs=3 with strategy='default'",
    "--max_restarts 3": "max_restarts=3 without num_workers",
    "--mode replay --run_dir r": "pass --step N, and --run_dir DIR",
    "--mode export": "needs a checkpoint",
    "--profile x,3": "profile=x,3 must be A,B",
    "--profile 5,2": "profile=5,2 must be A,B",
    "--profile 3,9 --limit_train_batches 4 --epochs 2": "this run has 8 steps",
    "--profile 3,5 --mode compare": "only training steps are profiled",
    "--mode predict --checkpoint c.npz --validation_steps 9": "validation_steps is for mode",
    "--mode predict --checkpoint c.npz --fast_dev_run": "fast_dev_run is for mode 'train'",
    "--mode evaluate --checkpoint c.npz --epochs 5": "epochs is for mode 'train'",
    "--mode evaluate --checkpoint c.npz --learning_rate 1": "learning_rate is for mode 'train'",
    "--mode export --checkpoint c.npz --on_nonfinite skip": "on_nonfinite is for mode 'train'",
    "--mode evaluate --checkpoint c.npz --plots": "plots is for mode 'train' or 'predict'",
    "--step a:x --train_step b:y": "step='a:x' and train_step='b:y' both name the step: keep one",
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


def test_checkpoint_of_another_model_names_the_first_difference(trained, tmp_path, capsys):
    flags = ["--model", "lstm", "--dataset", "synthetic"]
    flags += ["--checkpoint", str(trained / "checkpoints")]
    assert train.main([*flags, "--run_dir", str(tmp_path / "other")]) == 2
    error = capsys.readouterr().err
    assert "belongs to another model" in error
    assert "model/hidden/kernel" in error
    assert not (tmp_path / "other").exists()


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
    with quiet.without_cpp_log():
        os.write(2, LOG + b"a warning of Python's\n")
    assert capfd.readouterr().err == "a warning of Python's\n"
    with pytest.raises(ImportError), quiet.without_cpp_log():
        os.write(2, LOG)
        raise ImportError
    assert capfd.readouterr().err == LOG.decode()
