"""What is refused once a run has begun leaves nothing behind, and what was there stays."""

from pathlib import Path

import pytest

from gradloop.cli import main as train
from tests.cli.runs import SMALL, contents

HOOK = ["--hook", "wrong_hooks:number"]


@pytest.fixture(autouse=True)
def hooks(tmp_path, monkeypatch):
    (tmp_path / "wrong_hooks.py").write_text("def number():\n    return 3\n", "utf-8")
    monkeypatch.chdir(tmp_path)


def test_a_folder_that_was_made_is_removed(capsys):
    assert train.main([*SMALL, *HOOK]) == 2
    assert "hook='wrong_hooks:number' gave a int" in capsys.readouterr().err
    assert not Path("runs").exists()
    assert train.main([*SMALL, *HOOK, "--run_dir", "mine/first"]) == 2
    assert not Path("mine").exists()


def test_a_folder_with_files_of_somebody_keeps_them():
    Path("mine").mkdir()
    Path("mine/notes.txt").write_text("mine", "utf-8")
    assert train.main([*SMALL, *HOOK, "--run_dir", "mine"]) == 2
    assert contents(Path("mine")) == {Path("mine/notes.txt"): b"mine"}
