"""--resume auto: one command line serves the first start and every restart."""

import csv
import json
import shutil

import keras
import pytest

from gradloop import lock
from gradloop.cli import main as train
from tests.cli.runs import SMALL, contents, read

FLAGS = [*SMALL, "--limit_train_batches", "3", "--validation_steps", "2"]
FILES = ("summary.json", "history.json", "metrics.csv", "metrics.jsonl")


def start(folder, *more):
    keras.utils.clear_session(free_memory=False)
    return train.main([*FLAGS, "--resume", "auto", "--run_dir", str(folder), *more])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "finished"
    assert start(folder, "--epochs", "2") == 0
    return folder


@pytest.fixture
def run(finished, tmp_path):
    """A folder of its own with the finished run."""
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def test_the_first_start_says_that_nothing_was_saved(finished):
    assert "nothing was saved yet: the run starts anew" in (finished / "train.log").read_text()
    assert read(finished)["status"] == "completed"
    assert not (finished / "lock").exists()


def test_a_run_that_is_done_is_left_alone_with_one_line(run, capsys):
    before = contents(run)
    assert start(run, "--epochs", "2") == 0
    out, err = capsys.readouterr()
    assert out.startswith("train.py: all was done before: test accuracy ")
    assert (out.count("\n"), err) == (1, "")
    assert contents(run) == before


def test_more_epochs_go_on_and_a_kill_then_is_not_taken_for_done(run, monkeypatch):
    def die(*args):
        raise SystemExit(9)  # as near to a kill as a test in this process comes

    with monkeypatch.context() as patch:
        patch.setattr(train, "run", lambda job, folder, log: (train.begin(job, folder, log), die()))
        with pytest.raises(SystemExit):
            start(run, "--epochs", "3")
    assert not (run / "summary.json").exists() and (run / "summary.1.json").exists()
    assert start(run, "--epochs", "3") == 0
    assert (read(run)["status"], read(run)["num_steps"]) == ("completed", 9)
    assert start(run, "--epochs", "2") == 2  # fewer than are done


def test_evaluation_and_summary_are_made_up_for(run, finished):
    """Killed between the end of the training and that of the process."""
    for name in ("summary.json", "history.json"):
        (run / name).unlink()
    assert start(run, "--epochs", "2") == 0
    summary, expected = read(run), read(finished)
    for name in ("status", "test_accuracy", "history", "weights_sha256", "num_steps"):
        assert summary[name] == expected[name], name
    assert (run / "metrics.csv").read_text() == (finished / "metrics.csv").read_text()


def test_a_start_that_came_to_nothing_is_set_aside(run, finished):
    """Killed before its first checkpoint, perhaps in the middle of writing it."""
    shutil.rmtree(run / "checkpoints")
    (run / "checkpoints").mkdir()
    (run / "checkpoints" / "ckpt-3.npz.77.tmp").write_bytes(b"torn")
    kept = {name: (run / name).read_bytes() for name in FILES}
    assert start(run, "--epochs", "2") == 0
    for name in FILES:
        stem, suffix = name.split(".")
        assert (run / f"{stem}.1.{suffix}").read_bytes() == kept[name]
    assert (run / "tensorboard.1").is_dir()
    assert read(run)["weights_sha256"] == read(finished)["weights_sha256"]
    assert epochs_of(run) == epochs_of(finished) == ["0", "1"]


def epochs_of(folder):
    """Returns the epochs of the table: rows of executions come by the clock."""
    rows = csv.DictReader((folder / "metrics.csv").read_text().splitlines())
    return [row["epoch"] for row in rows if row["kind"] == "epoch"]


def damage(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def test_a_damaged_newest_checkpoint_costs_one_epoch(run, finished, capsys):
    (run / "summary.json").unlink()
    damage(run / "checkpoints" / "ckpt-6.npz")
    assert start(run, "--epochs", "2") == 0
    assert "ckpt-6.npz is damaged" in capsys.readouterr().err
    assert (run / "checkpoints" / "quarantine" / "ckpt-6.npz").exists()
    assert read(run)["weights_sha256"] == read(finished)["weights_sha256"]
    assert read(run)["history"] == read(finished)["history"]


def test_no_good_checkpoint_is_exit_1_and_never_a_start_from_zero(run, capsys):
    (run / "summary.json").unlink()
    for path in (run / "checkpoints").glob("*.npz"):
        damage(path)
    for _ in range(2):  # the second time, all are in quarantine
        capsys.readouterr()
        assert start(run, "--epochs", "2") == 1
        out, err = capsys.readouterr()
        assert err.splitlines()[-1].startswith("train.py: error: there is no intact checkpoint in")
        assert (out, "Traceback" in err) == ("", False)
    assert (run / "metrics.csv").exists() and not (run / "metrics.1.csv").exists()


def test_the_same_command_profiles_in_its_first_start_alone(tmp_path):
    flags = ["--epochs", "1", "--profile", "2,3"]
    assert start(tmp_path / "run", *flags) == 0
    (tmp_path / "run" / "summary.json").unlink()
    assert start(tmp_path / "run", *flags) == 0
    assert [path.name for path in (tmp_path / "run").glob("profile*")] == ["profile"]


def test_plain_resume_completes_but_does_not_repeat(run, capsys):
    (run / "summary.json").unlink()
    keras.utils.clear_session(free_memory=False)
    flags = ["--resume", "--run_dir", str(run)]
    assert train.main(flags) == 0
    assert read(run)["status"] == "completed"
    keras.utils.clear_session(free_memory=False)
    assert train.main(flags) == 2
    assert "epochs=2, but 2 are done: to continue, ask for more" in capsys.readouterr().err


def test_evaluating_a_run_leaves_its_own_files_alone(run):
    before = contents(run)
    keras.utils.clear_session(free_memory=False)
    assert train.main(["--mode", "evaluate", "--resume", "--run_dir", str(run)]) == 0
    accuracy = json.loads((run / "summary.evaluate.json").read_text())["test_accuracy"]
    assert accuracy == read(run)["test_accuracy"]
    after = contents(run)
    changed = {path.name for path, content in before.items() if after[path] != content}
    assert changed <= {"command.txt", "train.log", "report.html"}


@pytest.mark.slow  # 10 s
def test_another_checkpoint_is_where_a_run_begins_alone(run, finished, tmp_path):
    checkpoint = ["--checkpoint", str(finished), "--epochs", "1"]
    assert start(tmp_path / "new", *checkpoint) == 0
    assert str(finished) in (tmp_path / "new" / "train.log").read_text()
    digest = read(tmp_path / "new")["weights_sha256"]
    shutil.rmtree(tmp_path / "new" / "checkpoints")  # killed before its first one
    assert start(tmp_path / "new", *checkpoint) == 0
    assert read(tmp_path / "new")["weights_sha256"] == digest
    (run / "summary.json").unlink()
    assert start(run, "--checkpoint", "none.npz", "--epochs", "2") == 0  # it has its own
    assert read(run)["weights_sha256"] == read(finished)["weights_sha256"]


def test_a_second_process_is_refused_and_touches_nothing(run, capsys):
    # Another file of the same process: flock does not tell whose it is.
    with lock.locked(run):
        before = contents(run)
        for flags in (["--epochs", "5"], ["--epochs", "2"]):
            assert start(run, *flags) == 2
            err = capsys.readouterr().err
            assert err.startswith(f"train.py: error: {run} is in use by process ")
            assert err.count("\n") == 1
        assert contents(run) == before
