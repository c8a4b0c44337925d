"""What a run records of its environment: that of this process and this checkout, and no other."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from gradloop.engine.runtime import describe_environment

ROOT = Path(__file__).parents[2]


def test_the_commit_is_that_of_the_checkout(monkeypatch):
    environment = describe_environment()
    assert len(environment["git_commit"]) == 40
    assert environment["git_has_changes"] in (True, False)
    assert environment["num_cores"] >= 1
    monkeypatch.setenv("PATH", os.devnull)  # no git
    assert describe_environment()["git_commit"] is None


def test_an_installed_engine_has_no_commit_even_within_another_checkout(tmp_path):
    git = ["git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=e@example.com"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "first"], check=True)
    shutil.copytree(
        ROOT / "gradloop", tmp_path / "site" / "gradloop",
        ignore=shutil.ignore_patterns("__pycache__"),
    )  # fmt: skip
    code = "from gradloop.engine import runtime as r; print(r.describe_environment()['git_commit'])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site"), "TF_CPP_MIN_LOG_LEVEL": "3"},
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "None"
