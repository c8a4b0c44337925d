"""The ladder: all rungs are measured, in turn."""

import json

import pytest

from benchmarks import ladder
from gradloop.data import synthetic

NAMES = ["forward", "+ backward", "+ optimizer", "+ metrics", "+ hooks", "+ logging", "+ real data"]


def test_what_a_rung_adds_sums_to_the_top():
    rows = ladder.summarize({"a": [3.0, 1.0, 2.0], "b": [5.0, 5.0, 9.0], "c": [4.0, 4.0, 4.0]})
    assert [row["usecs"] for row in rows] == [2.0, 5.0, 4.0]
    assert [row["adds_usecs"] for row in rows] == [2.0, 3.0, -1.0]
    lines = ladder.to_table(rows).splitlines()
    assert lines[2].split() == ["b", "5.0", "5.0", "to", "7.0", "3.0", "75.0%"]


def test_rungs_run_in_turn():
    order = []
    made = {name: lambda n, name=name: order.append((name, n)) or 1.0 for name in "abc"}
    usecs = ladder.measure(made, num_steps=10, num_repeats=2)
    warm_up = [("a", 5), ("a", 10), ("b", 5), ("b", 10), ("c", 5), ("c", 10)]
    assert order[:6] == warm_up
    assert "".join(name for name, _ in order[6:]) == "abccba"
    assert usecs == {name: [1e5, 1e5] for name in "abc"}


def test_as_many_steps_as_take_a_second():
    assert ladder.choose_num_steps({"+ metrics": lambda n: n * 1e-3}) == 1000
    assert ladder.choose_num_steps({"+ metrics": lambda n: n * 10.0}) == 5


def test_the_program_prints_and_writes(tmp_path, capsys, monkeypatch):
    small = lambda **_: synthetic.load_data(num_train=40, num_test=1)  # noqa: E731
    (x, y), (x_test, y_test) = small()
    loaded = ladder.data.DatasetArrays(x, y, x_test, y_test, 10)
    monkeypatch.setattr(ladder.data, "load_arrays", lambda name: loaded)
    flags = ["--model", "dense", "--dataset", "synthetic", "--global_batch_size", "8"]
    # More steps than the five batches of an epoch.
    flags += ["--num_steps", "7", "--num_repeats", "2"]
    output, chart = tmp_path / "ladder.json", tmp_path / "ladder.svg"
    assert ladder.main([*flags, "--output", str(output), "--chart", str(chart)]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in NAMES)
    record = json.loads(output.read_text("utf-8"))
    assert [row["rung"] for row in record["rungs"]] == NAMES
    assert all(len(samples) == 2 and min(samples) > 0 for samples in record["usecs"].values())
    assert chart.stat().st_size > 1000


@pytest.mark.parametrize(
    "flags", [["--num_steps", "0"], ["--global_batch_size", "-3"], ["--num_repeats", "0"]]
)
def test_wrong_usage_is_one_line(flags, capsys):
    assert ladder.main(["--dataset", "synthetic", *flags]) == 2
    error = capsys.readouterr().err
    assert flags[1] in error
    assert error.count("\n") == 1


def test_a_batch_that_the_data_cannot_fill_is_one_line(capsys):
    flags = ["--model", "dense", "--dataset", "synthetic", "--global_batch_size", "99999999"]
    assert ladder.main(flags) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_an_unknown_model_ends_with_2(capsys):
    with pytest.raises(SystemExit) as ended:
        ladder.main(["--model", "cmn"])
    assert ended.value.code == 2
