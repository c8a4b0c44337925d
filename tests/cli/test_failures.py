"""Divergence, bugs and interrupts: exit codes, and what is saved."""

import os
import signal
import subprocess
import sys
import time

import pytest

from gradloop.cli import main as train
from tests.cli.runs import QUICK, ROOT, SMALL, SUMMARY_KEYS, read


def test_divergence_exits_with_1(tmp_path):
    flags = [*QUICK, "--learning_rate", "1e38", "--run_dir", str(tmp_path / "nan")]
    assert train.main(flags) == 1
    assert read(tmp_path / "nan")["exit_reason"].startswith("divergence: loss is")


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
