"""SIGINT and SIGTERM wherever a run is: exit code, summary, and the same bits in the end."""

import json
import os
import signal
import subprocess
import sys
import time

import keras
import pytest

from gradloop import data, engine
from gradloop.cli import main as train
from gradloop.cli import modes, plots
from gradloop.cli.run_folder import RunFolder
from gradloop.engine.evaluation import Evaluation
from gradloop.engine.step_pieces import StepPieces
from gradloop.engine.storage.snapshot import Snapshot
from tests.cli.runs import ROOT, SMALL, read

FLAGS = [*SMALL, "--limit_train_batches", "4", "--validation_steps", "2", "--epochs", "2"]
MAX_SECS = 10.0

BEFORE_THE_FOLDER = {
    "data": (data, "load"),
    "building": (engine.TrainState, "build"),
}
IN_THE_RUN = {
    "config": (RunFolder, "write_config"),
    "tracing": (StepPieces, "compute_loss"),
    "training": (engine.ProgressBar, "on_execution_end"),
    "validation": (engine.ProgressBar, "on_eval_begin"),
    "end of an epoch": (engine.ProgressBar, "on_epoch_end"),
    "save": (Snapshot, "write"),
    "last save": (engine.SaveCheckpoint, "on_train_end"),
    "final evaluation": (Evaluation, "run"),
    "predictions": (modes, "write_predictions"),
    "plots": (plots, "plot_history"),
}
LAST = ("predictions", "plots")
FINAL_CALL = {"final evaluation": 3}  # two validations come before


def strike(monkeypatch, position, number=signal.SIGTERM):
    """Has a signal come when this function is called; returns when it came."""
    owner, name = (BEFORE_THE_FOLDER | IN_THE_RUN | {"summary": (RunFolder, "write_summary")})[
        position
    ]
    original, calls, struck_at = getattr(owner, name), [], []

    def struck(*args, **kwargs):
        calls.append(name)
        if len(calls) == FINAL_CALL.get(position, 1):
            struck_at.append(time.monotonic())
            signal.raise_signal(number)
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, name, struck)
    return struck_at


def flags_of(position):
    return [*FLAGS, *(["--plots"] if position in LAST else [])]


def interrupt(monkeypatch, folder, position, number=signal.SIGTERM):
    """Returns the exit code, and the seconds from the signal on."""
    with monkeypatch.context() as patch:
        struck_at = strike(patch, position, number)
        code = train.main([*flags_of(position), "--resume", "auto", "--run_dir", str(folder)])
    secs = time.monotonic() - struck_at[0]
    keras.utils.clear_session(free_memory=False)
    return code, secs


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "undisturbed"
    keras.utils.clear_session(free_memory=False)
    assert train.main([*FLAGS, "--run_dir", str(folder)]) == 0
    return read(folder)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("position", BEFORE_THE_FOLDER)
def test_in_start_up_it_is_one_line_and_leaves_nothing(
    tmp_path, monkeypatch, capsys, position, number
):
    code, secs = interrupt(monkeypatch, tmp_path / "run", position, number)
    assert code == 128 + number and secs < MAX_SECS
    assert capsys.readouterr() == ("", "train.py: interrupted\n")
    assert list(tmp_path.iterdir()) == []


def check_interrupted_and_resumed(tmp_path, monkeypatch, capsys, position, undisturbed):
    folder = tmp_path / "run"
    code, secs = interrupt(monkeypatch, folder, position)
    assert code == 143 and secs < MAX_SECS
    assert (read(folder)["status"], read(folder)["exit_reason"]) == ("interrupted", "interrupted")
    assert read(folder)["test_accuracy"] is None or position in LAST
    assert "Traceback" not in "".join(capsys.readouterr())
    assert train.main([*flags_of(position), "--resume", "auto", "--run_dir", str(folder)]) == 0
    for name in ("status", "weights_sha256", "history", "test_accuracy", "num_steps"):
        assert read(folder)[name] == undisturbed[name], name
    assert (folder / "plots" / "history.png").exists() or position not in LAST


QUICK = ["validation", "final evaluation"]


@pytest.mark.parametrize("position", QUICK)
def test_in_the_run_it_can_be_resumed(tmp_path, monkeypatch, capsys, position, undisturbed):
    check_interrupted_and_resumed(tmp_path, monkeypatch, capsys, position, undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("position", sorted(set(IN_THE_RUN) - set(QUICK)))
def test_at_each_position_it_can_be_resumed(tmp_path, monkeypatch, capsys, position, undisturbed):
    check_interrupted_and_resumed(tmp_path, monkeypatch, capsys, position, undisturbed)


def test_a_run_that_is_complete_when_it_comes_exits_with_0(tmp_path, monkeypatch):
    code, _ = interrupt(monkeypatch, tmp_path / "run", "summary")
    assert code == 0
    assert read(tmp_path / "run")["status"] == "completed"


PROGRAM = """
import os, sys, time
{setup}
from gradloop.cli.start import start
sys.argv = ["train.py", *sys.argv[1:]]
sys.exit(start())
"""
IN_THE_IMPORT = """
class Strike:
    def find_spec(self, name, path=None, target=None):
        if name == "keras":
            os.kill(os.getpid(), {number})
sys.meta_path.insert(0, Strike())
"""
AT_EXIT = """
import atexit
atexit.register(os.kill, os.getpid(), {number})
"""


def run_program(tmp_path, setup, number):
    code = PROGRAM.format(setup=setup.format(number=int(number)))
    return subprocess.run(
        [sys.executable, "-c", code, *FLAGS, "--run_dir", "run"], cwd=tmp_path, text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, check=False,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_while_tensorflow_is_imported_it_is_one_line(tmp_path, number):
    done = run_program(tmp_path, IN_THE_IMPORT, number)
    assert (done.returncode, done.stdout) == (128 + number, "")
    assert done.stderr == "train.py: interrupted\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_when_the_process_ends_it_changes_nothing(tmp_path):
    done = run_program(tmp_path, AT_EXIT, signal.SIGTERM)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Test set prediction accuracy" in done.stdout


@pytest.mark.slow
def test_first_and_second_one_in_executions_of_100_steps(tmp_path):
    """Both in processes of their own, in the middle of a long execution of the cnn."""
    command = [
        sys.executable, str(ROOT / "train.py"), "--model", "cnn", "--dataset", "synthetic",
        "--steps_per_execution", "100", "--epochs", "50", "--checkpoint_every_steps", "100",
        "--run_dir",
    ]  # fmt: skip
    for count, expected in ((1, 143), (2, 130)):
        folder = tmp_path / str(count)
        with subprocess.Popen([*command, str(folder)], stdout=subprocess.DEVNULL) as process:
            while not list(folder.glob("checkpoints/ckpt-*.npz")):
                assert process.poll() is None
                time.sleep(0.05)
            process.send_signal(signal.SIGTERM)
            if count == 2:
                time.sleep(0.3)
                process.send_signal(signal.SIGINT)
            sent_at = time.monotonic()
            assert process.wait(timeout=60) == expected
        secs = time.monotonic() - sent_at
        print(f"signal {count} to exit: {secs:.2f} s")
        assert secs < (MAX_SECS if count == 1 else 1.0)
        if count == 1:
            summary = json.loads((folder / "summary.json").read_text())
            assert (folder / "checkpoints" / f"ckpt-{summary['num_steps']}.npz").exists()
