"""--check says what does not go together, and a run says it before its first step."""

import pytest

from gradloop.cli import main as train
from gradloop.engine import devices
from tests.cli.runs import QUICK, SMALL


@pytest.fixture(autouse=True)
def cpu_alone(monkeypatch):
    logical = devices.logical
    monkeypatch.setattr(
        devices, "logical", lambda kind=None: [] if kind == "GPU" else logical(kind)
    )


def test_check_prints_a_table_and_leaves_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    flags = [*SMALL, "--strategy", "mirrored", "--batch_size", "15", "--run_dir", "new"]
    assert train.main([*flags, "--check"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("slow         global_batch_size=15 on 2 replicas") for line in lines)
    assert any(line.startswith("ok           precision=float32") for line in lines)
    assert list(tmp_path.iterdir()) == []


def test_check_of_what_is_unsupported_exits_with_2(capsys):
    assert train.main([*SMALL, "--run_eagerly", "--input", "resident", "--check"]) == 2
    table = capsys.readouterr().out
    assert "unsupported  input=resident" in table and "Set input='auto'." in table


def test_a_run_warns_in_one_line_and_refuses_before_it_has_a_folder(tmp_path, capsys):
    folder = tmp_path / "run"
    assert train.main([*QUICK, "--run_eagerly", "--run_dir", str(folder)]) == 0
    warnings = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert warnings == [
        "warning: slow: run_eagerly=true: Python runs each operation, for a debugger. "
        "Set run_eagerly=False."
    ]
    flags = [*QUICK, "--run_eagerly", "--input", "resident"]
    assert train.main([*flags, "--run_dir", str(tmp_path / "other")]) == 2
    error = capsys.readouterr().err
    assert "error: input=resident: " in error and error.count("\n") == 1
    assert not (tmp_path / "other").exists()
