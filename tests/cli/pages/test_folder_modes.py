"""--report and --mode compare_runs: what they show and write, and what they refuse."""

import importlib.util
import json
import subprocess
import sys

import pytest

from gradloop.cli import main as train
from tests.cli.pages.folders import CONFIG, CSV, SUMMARY, make_folder
from tests.cli.runs import ROOT, contents


@pytest.fixture
def two_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_folder(tmp_path / "one")
    summary = SUMMARY | {"status": "diverged", "images_per_sec": 99.0}
    config = CONFIG | {"learning_rate": 0.5, "run_dir": "elsewhere", "checkpoint": "first.npz"}
    csv = CSV.replace("0.55,1.25", "0.15,7.25")
    make_folder(tmp_path / "two", summary=summary, config=config, csv=csv)
    return tmp_path


def test_report_writes_the_page_of_a_folder(two_runs, capsys):
    assert train.main(["--report", "--run_dir", "one"]) == 0
    assert "one/report.html" in capsys.readouterr().out
    assert (two_runs / "one" / "report.html").exists()


def test_compare_runs_prints_and_draws_runs_side_by_side(two_runs, capsys):
    pytest.importorskip("matplotlib")
    assert train.main(["--mode", "compare_runs", "one", "two", "--run_dir", "out"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["learning_rate", "-", "0.5"] in lines, "what differs"
    assert ["checkpoint", "-", "first.npz"] in lines, "where training began"
    assert not any(line[:1] == ["run_dir"] for line in lines), "where files lie is no difference"
    assert ["status", "completed", "diverged"] in lines
    assert ["examples", "a", "second", "1,234", "99"] in lines
    assert {path.name for path in (two_runs / "out").iterdir()} == {"compare.html", "compare.png"}
    page = (two_runs / "out" / "compare.html").read_text()
    curves = [json.loads(part.split('"')[0].replace("&quot;", '"'))
              for part in page.split('data-series="')[1:]]  # fmt: skip
    assert [curve["label"] for curve in curves[0]] == [
        "one training", "one", "two training", "two",
    ]  # fmt: skip
    assert curves[0][3]["points"][0][2:] == ["1", "7.25"], "epoch and value"


def test_a_comparison_has_a_new_folder_by_default(two_runs, capsys, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)  # no picture
    for _ in range(2):
        assert train.main(["--mode", "compare_runs", "one", "two", "one"]) == 0
    assert len(list((two_runs / "runs").glob("*/*/compare.html"))) == 2
    assert "one (2)" in capsys.readouterr().out, "each has a name of its own"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--report", "needs run_dir"),
        ("--report --run_dir nowhere", "'nowhere' is not a folder"),
        ("--report --run_dir .", "'.' holds no run"),
        ("--report --run_dir one --epochs 3", "epochs is of a run, and this is mode='report'"),
        ("--mode compare_runs one", "2 to 8 runs, not 1"),
        ("--mode compare_runs one two one two one two one two one", "2 to 8 runs, not 9"),
        ("--mode compare_runs one nowhere", "'nowhere' is not a folder"),
        ("--mode compare_runs one two --run_dir one", "run_dir='one' holds a run"),
        ("--mode compare_runs one two --run_dir one/config.json", "cannot write to"),
        ("--runs one,two", "runs is for mode 'compare_runs'"),
    ],
)
def test_what_they_refuse_leaves_no_trace(two_runs, capsys, flags, message):
    before = contents(two_runs)
    try:
        code = train.main(flags.split())
    except SystemExit as stop:
        code = stop.code
    error = capsys.readouterr().err
    assert code == 2 and message in error and error.count("\n") == 1
    assert contents(two_runs) == before


def test_a_folder_that_cannot_be_written_is_refused_in_a_line(two_runs, capsys):
    (two_runs / "one" / "report.html").mkdir()
    assert train.main(["--report", "--run_dir", "one"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_neither_needs_tensorflow_or_matplotlib(two_runs):
    code = (
        "import sys; sys.modules['tensorflow'] = sys.modules['keras'] = None; "
        "sys.modules['matplotlib'] = None; from gradloop.cli.start import start; sys.exit(start())"
    )
    for flags in ("--report --run_dir one", "--mode compare_runs one two --run_dir out"):
        command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r}); {code}"]
        done = subprocess.run(
            [*command, *flags.split()], check=False, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
    assert "no picture: matplotlib is not installed" in done.stdout
    assert (two_runs / "out" / "compare.html").exists()
