"""A time limit, and files that cannot be written."""

import errno
import time

import keras
import pytest

from gradloop.cli import main as train
from gradloop.cli.config import parse_duration
from gradloop.cli.run_folder import RunFolder
from gradloop.engine import ConfigError
from gradloop.engine.hooks import ProgressBar
from tests.cli.runs import QUICK, SMALL, read


@pytest.mark.parametrize(
    ("text", "secs"),
    [
        ("90", 90), ("1.5", 1.5), ("90s", 90), ("30m", 1800), ("2h", 7200), ("1h30m", 5400),
        ("1d", 86400), ("1d2h3m4.5s", 93784.5), (" 0.5h ", 1800),
    ],
)  # fmt: skip
def test_times_as_people_write_them(text, secs):
    assert parse_duration(text) == secs


@pytest.mark.parametrize(
    "text", ["", "0", "0s", "2hours", "30m2h", "-5", "1h30", "h", "1e3", "nan"]
)
def test_what_is_no_time_is_an_error_with_examples(text):
    with pytest.raises(ConfigError, match=r"must be a time above 0: 90s, 30m, 2h"):
        parse_duration(text)


def test_a_run_is_paused_by_its_time_limit_and_goes_on(tmp_path, capsys, monkeypatch):
    """The limit is over in the first execution, whenever that is."""

    def wait(hook, info):
        deadline = time.monotonic() + 20
        while not info.stops_now and time.monotonic() < deadline:
            time.sleep(0.01)

    folder = tmp_path / "run"
    flags = [*SMALL, "--limit_train_batches", "8", "--validation_steps", "2", "--epochs", "1"]
    flags += ["--steps_per_execution", "4", "--resume", "auto", "--run_dir", str(folder)]
    with monkeypatch.context() as patch:
        patch.setattr(ProgressBar, "on_execution_end", wait)
        assert train.main([*flags, "--max_time", "0.5s"]) == 0
    summary = read(folder)
    assert summary["status"] == "paused"
    assert summary["exit_reason"] == "the time limit of 0.5 s"
    assert (summary["num_steps"], summary["test_accuracy"]) == (4, None)
    assert (folder / "checkpoints" / "ckpt-4.npz").exists()
    keras.utils.clear_session(free_memory=False)
    assert train.main([*flags, "--max_time", "1h"]) == 0
    assert (read(folder)["status"], read(folder)["num_steps"]) == ("completed", 8)


def refuse(*args, **kwargs):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_json_files_that_cannot_be_written_leave_the_accuracy_on_the_screen(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(RunFolder, "write_json", refuse)
    assert train.main([*QUICK, "--run_dir", str(tmp_path / "run")]) == 0
    out, err = capsys.readouterr()
    assert "Test set prediction accuracy: " in out
    # config, environment, history, summary
    assert err.count("warning: a file of the run: ") == 4
    assert err.count("No space left on device. Free some space") == 4
    assert "Traceback" not in err


def test_with_on_save_error_stop_it_is_exit_1(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(RunFolder, "write_summary", refuse)
    flags = [*QUICK, "--on_save_error", "stop", "--run_dir", str(tmp_path / "run")]
    assert train.main(flags) == 1
    assert "Test set prediction accuracy: " in capsys.readouterr().out


@pytest.mark.parametrize(("what", "code"), [("continue", 0), ("stop", 1)])
@pytest.mark.filterwarnings("default")
def test_a_checkpoint_that_cannot_be_written(tmp_path, monkeypatch, capsys, what, code):
    monkeypatch.setattr("gradloop.engine.storage.snapshot.Snapshot.write", refuse)
    flags = [*QUICK, "--on_save_error", what, "--run_dir", str(tmp_path / "run")]
    assert train.main(flags) == code
    out, err = capsys.readouterr()
    assert ("Test set prediction accuracy" in out) == (code == 0)
    assert "Cannot save step 8" in err and "MiB" in err and "Traceback" not in err
    assert read(tmp_path / "run")["status"] == ("completed" if code == 0 else "failed")


def test_a_log_that_cannot_be_written_is_one_warning(tmp_path, monkeypatch, capsys):
    open_log = RunFolder.open_log

    def open_full(folder, stream=None):
        log = open_log(folder, stream)
        log.close()
        (folder.path / "train.log").unlink()
        (folder.path / "train.log").symlink_to("/dev/full")
        return open_log(folder, stream)

    monkeypatch.setattr(RunFolder, "open_log", open_full)
    assert train.main([*QUICK, "--run_dir", str(tmp_path / "run")]) == 0
    out, err = capsys.readouterr()
    assert "Test set prediction accuracy: " in out
    assert err.count("warning: ") == 1, err
