"""The page, the section of the README and the charts come from the records alone."""

import json
import re
from pathlib import Path

import pytest

from benchmarks import ROOT
from benchmarks.reporting import report
from tests.benchmarks.reporting.made_up import arm, ratio, record

ARMS = {
    "engine": arm(1180.0) | {"bits_of": "keras_fit"},
    "engine_resident": arm(1200.0),
    "keras_fit": arm(1000.0),
    "keras_fit_tuned": arm(1150.0) | {"settings": {"steps_per_execution": 32}},
    "torch_eager": arm(987_654.0, status="void", reason="mean loss 0.51,\nfit has 0.48"),
    "jax_scan": arm(1.0, status="not_installed"),
}
RATIOS = [
    ratio("engine", "keras_fit", 1.22, 1.15, 1.26),
    ratio("engine", "keras_fit_tuned", 1.026, 0.99, 1.05, "undecided"),
    ratio("engine", "engine_resident", 0.983),
]
README = f"# Words\n\nbefore\n{report.BEGIN}\nold figures\n{report.END}\nafter\n"


@pytest.fixture
def root(tmp_path):
    (tmp_path / "README.md").write_text(README, "utf-8")
    add(tmp_path, record(ARMS, ratios=RATIOS))
    return tmp_path


def add(root, made):
    directory = root / report.RESULTS
    directory.mkdir(parents=True, exist_ok=True)
    name = f"{made['workload']}_{made['hardware']}_{made['date']}.json"
    (directory / name).write_text(json.dumps(made), "utf-8")


def page(root):
    return report.make_texts(root)[report.PAGE]


def rows(text, first):
    """Returns the cells of each row whose first cell is `first`."""
    found = (line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|"))
    return [cells for cells in found if cells[0] == first]


def test_a_row_of_figures(root):
    assert rows(page(root), "engine")[0] == [
        "engine", "ok", "1,180", "1,160 to 1,200", "54,200", "25 %", "1.00", "12.5", "-",
        "1.00 GiB",
    ]  # fmt: skip


def test_reached_and_missed(root):
    outcomes = {tuple(r[1:3]): r[3:] for r in rows(page(root), "cnn") if r[1] == "engine"}
    assert outcomes["engine", "keras_fit"] == [
        "1.20", "1.22", "1", "1.22 to 1.22", "1.15 to 1.26", "reached",
    ]  # fmt: skip
    assert outcomes["engine", "keras_fit_tuned"][-1] == "**missed by 2.3 %**"
    assert outcomes["engine", "best PyTorch"][-1].startswith("not measured: best PyTorch was not")


def test_input_start_and_memory_are_targets_too(root):
    assert [
        "cnn", "0.983: reached", "1.00: reached", "1.00: reached", "not measured", "not measured",
    ] in rows(page(root), "cnn")  # fmt: skip


def test_a_void_arm_shows_its_reason_and_no_speed_anywhere(root):
    report.write(root)
    texts = [path.read_text("utf-8") for path in root.rglob("*") if path.suffix in (".md", ".svg")]
    assert len(texts) == 3
    for text in texts:
        assert not re.search(r"987,?654|988,?000", text)
    assert rows(texts[0] + texts[1] + texts[2], "torch_eager")
    assert "- `torch_eager`: void: mean loss 0.51, fit has 0.48" in page(root)


def test_the_readme_keeps_its_words(root):
    report.write(root)
    text = (root / "README.md").read_text("utf-8")
    assert text.startswith(f"# Words\n\nbefore\n{report.BEGIN}\n")
    assert text.endswith(f"\n{report.END}\nafter\n")
    assert "old figures" not in text
    (row,) = rows(text, "cnn")
    assert row[2:] == ["`engine`", "1.22 (1.15 to 1.26)", "1.03 (0.99 to 1.05)", "1"]


def test_the_readme_has_conclusions_and_leaves_the_targets_to_the_page(root):
    report.write(root)
    text = (root / "README.md").read_text("utf-8")
    assert "`engine` trains 1.22 times as fast as `fit` on cnn." in text
    assert "reached" not in text
    assert "missed" not in text
    assert "**missed by 2.3 %**" in page(root)


def test_writing_again_changes_nothing(root):
    assert len(report.write(root)) == 3
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    assert report.write(root) == []
    for path in root.rglob("*.svg"):
        path.unlink()  # drawn from nothing, the picture has the same bytes
    assert report.write(root) == [Path("docs/images/benchmarks_cnn.svg")]
    assert {p: p.read_bytes() for p in root.rglob("*") if p.is_file()} == before


def test_check_finds_what_is_out_of_date(root, capsys):
    arguments = ["--check", "--root", str(root)]
    assert report.main(arguments) == 1
    assert report.main(arguments[1:]) == 0
    assert report.main(arguments) == 0
    ratios = [ratio("engine", "keras_fit", 2.0)]
    changed = record(ARMS | {"engine": arm(2000.0)}, ratios=ratios)
    add(root, changed)
    capsys.readouterr()
    assert report.main(arguments) == 1
    stale = capsys.readouterr().out
    assert all(n in stale for n in ("docs/benchmarks.md", "README.md", "benchmarks_cnn.svg"))


def test_a_chart_of_another_matplotlib_is_up_to_date(root):
    report.write(root)
    picture = root / "docs/images/benchmarks_cnn.svg"
    picture.write_text(picture.read_text("utf-8").replace("<path", "<path  "), "utf-8")
    assert report.find_stale(root) == []


def test_all_records_count_and_are_listed_with_how_they_ended(root):
    later = [ratio("engine", "keras_fit", 1.4, 1.35, 1.45)]
    add(root, record(ARMS, ratios=later, date="2026-11-29", time="1405", stopped_by="max_secs"))
    text = page(root)
    measured = next(row for row in rows(text, "cnn") if row[1:3] == ["engine", "keras_fit"])
    assert measured[4:8] == ["1.31", "2", "1.22 to 1.40", "1.35 to 1.45"]
    of_runs = [row[1:] for row in rows(text, "cnn") if row[1].startswith("2026")]
    assert of_runs == [
        ["2026-11-22", "2 cores of Some CPU", "5", "narrow intervals", "1.22", "1.15 to 1.26"],
        [
            "2026-11-29 14:05",
            "2 cores of Some CPU",
            "5",
            "the limit of time",
            "1.40",
            "1.35 to 1.45",
        ],
    ]


def test_the_figures_of_the_arms_are_those_of_the_fullest_run(root):
    add(root, record({"engine": arm(777.0), "keras_fit": arm(1.0)}, date="2026-11-23"))
    assert rows(page(root), "engine")[0][2] == "1,180"
    add(root, record(ARMS | {"engine": arm(555.0)}, date="2026-11-24"))
    assert rows(page(root), "engine")[0][2] == "555"


def test_two_machines_have_charts_and_targets_of_their_own(root):
    add(root, record(ARMS, ratios=RATIOS, hardware="cpu64"))
    report.write(root)
    assert {path.name for path in root.rglob("*.svg")} == {
        "benchmarks_cnn_cpu2.svg", "benchmarks_cnn_cpu64.svg",
    }  # fmt: skip
    assert "## Targets: cpu2" in page(root)
    assert "## Targets: cpu64" in page(root)


def test_a_miss_without_words_is_named_until_they_are_there(root, capsys):
    assert report.main(["--root", str(root)]) == 0
    assert "no reason in docs/benchmarks_notes.md: cnn: `engine` over" in capsys.readouterr().err
    (root / report.NOTES).write_text("## cnn\n- `keras_fit_tuned`: convolutions.\n", "utf-8")
    assert report.main(["--root", str(root)]) == 0
    assert capsys.readouterr().err == ""
    _, _, said = page(root).partition("## Missed, and why")
    assert "- `keras_fit_tuned`: convolutions." in said


def test_scaling_shows_each_size_and_the_verdict(root):
    sizes = [
        {"size": size, "mean_usecs": 7 * r, "ratio": r, "low": 0.9 * r, "high": r, "usecs": [7 * r]}
        for size, r in ((60_000, 1.0), (6_000_000, 1.05))
    ]
    made = record({}, workload="scaling", images=sizes, steps=sizes[:1])
    del made["arms"]
    add(root, made)
    text = page(root)
    assert ["6,000,000", "7.350", "1.050", "0.945 to 1.05", "1"] in rows(text, "6,000,000")
    assert "5.0 % more than the smallest; the target is 3.0 % at most: **missed by 2.0 %**" in text


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "cannot be read"),
        ("[]", "cannot be read"),
        ('{"workload": "x"}', "has no command"),
        (
            json.dumps(dict.fromkeys(["arms", *record({})], "x")).replace("stopped_by", "old"),
            "former",
        ),
    ],
)
def test_a_file_that_is_no_record_is_one_line(root, capsys, content, words):
    (root / report.RESULTS / "old.json").write_text(content, "utf-8")
    assert report.main(["--root", str(root)]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("text", ["no markers", report.BEGIN, report.END + report.BEGIN])
def test_a_readme_without_markers_is_one_line(root, capsys, text):
    (root / "README.md").write_text(text, "utf-8")
    assert report.main(["--root", str(root)]) == 2
    assert "README.md must have" in capsys.readouterr().err


def test_without_records_it_says_so(root):
    for path in (root / report.RESULTS).iterdir():
        path.unlink()
    assert "There are no records of races yet" in page(root)


def test_without_matplotlib_it_is_one_line(root, capsys, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    assert report.main(["--root", str(root)]) == 2
    assert "pip install gradloop[plots]" in capsys.readouterr().err


def test_the_files_of_this_project_are_what_its_records_give():
    assert report.find_stale(ROOT) == []


def test_each_target_that_this_project_misses_has_a_reason():
    assert report.find_unexplained(ROOT) == []
