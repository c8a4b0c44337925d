"""Completion in a shell: the words that argcomplete gives it, at once."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.runs import ROOT

pytest.importorskip("argcomplete")
PAGE = (ROOT / "docs" / "command_line.md").read_text("utf-8")
# What the shell calls when a person presses Tab.
TAB = """
eval "$(register-python-argcomplete gradloop)"
COMP_LINE=$1; COMP_POINT=${#1}; COMP_TYPE=9
_python_argcomplete gradloop
printf '%s\\n' "${COMPREPLY[@]}"
"""
LINES = {
    "gradloop --ep": ["--epochs"],
    "gradloop --epochs 3 --strategy m": ["mirrored", "multi_worker"],
    "gradloop --model ": ["cnn", "cnn_lstm", "dense", "lstm"],
    "gradloop --num_replicas ": ["none"],
    "gradloop --deterministic t": ["true"],
    "gradloop --resume a": ["auto"],
    "gradloop --list opt": ["optimizers"],
    "gradloop --config c": ["c.toml"],
    "gradloop --epohcs 3 --dataset s": ["synthetic"],
}


@pytest.fixture(autouse=True)
def fresh_keras():
    """Nothing here runs Keras in this process."""


@pytest.fixture
def gradloop(tmp_path):
    """The environment of a shell that knows the command `gradloop`, of this checkout."""
    command = tmp_path / "bin" / "gradloop"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {sys.executable} {ROOT / "train.py"} "$@"\n')
    command.chmod(0o755)
    path = [command.parent, Path(sys.executable).parent, os.environ["PATH"]]
    return os.environ | {"PATH": ":".join(map(str, path))}


@pytest.mark.parametrize("line", LINES)
def test_a_tab_completes(line, gradloop, tmp_path):
    (tmp_path / "c.toml").touch()
    done = subprocess.run(
        ["bash", "-c", TAB, "bash", line],
        capture_output=True, text=True, env=gradloop, cwd=tmp_path, check=True, timeout=20,
    )  # fmt: skip
    assert [word.strip() for word in done.stdout.splitlines()] == LINES[line]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bin", "c.toml"]


def test_without_the_library_nothing_is_run(tmp_path):
    code = (
        "import sys; sys.modules['argcomplete'] = None; "
        f"sys.path.insert(0, {str(ROOT)!r}); "
        "from gradloop.cli.start import start; sys.exit(start())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, env=os.environ | {"_ARGCOMPLETE": "1"}, cwd=tmp_path, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (1, b"", b"")
    assert list(tmp_path.iterdir()) == []


def test_the_page_says_how_to_switch_it_on():
    assert f"\n{TAB.splitlines()[1]}\n" in PAGE
    assert "PYTHON_ARGCOMPLETE_OK" in (ROOT / "train.py").read_text("utf-8")[:1024]
