"""Cost by size: sizes are measured in turn, and too many images are an error in advance."""

import json

import pytest

from benchmarks import scaling


def test_sizes_run_in_turn_until_a_sample_is_long_enough():
    order = []
    runs = {
        1: lambda: order.append("one step") or (1.0, 1),
        2: lambda: order.append("five steps") or (10.0, 5),
    }
    usecs = scaling.measure(runs, num_repeats=1, min_images=64)  # two steps of 32
    assert order == ["one step", "one step", "five steps", "five steps", "one step", "one step"]
    assert usecs == {1: [1e6], 2: [2e6]}


def test_rows_are_a_step_or_an_image():
    rows = scaling.summarize({100: [32.0, 64.0, 320.0]}, divisor=32)
    assert rows == [
        {"size": 100, "usecs": [1.0, 2.0, 10.0], "median_usecs": 2.0, "quartile_1": 1.5,
         "quartile_3": 6.0}
    ]  # fmt: skip


def test_what_does_not_fit_into_memory_is_said_before():
    scaling.check_memory(6_000_000, 12 * 2**30)
    scaling.check_memory(6_000_000, None)
    with pytest.raises(ValueError, match="Pass a smaller --max_images"):
        scaling.check_memory(6_000_000, 8 * 2**30)


def test_a_record_of_few_images(tmp_path, capsys):
    path = tmp_path / "scaling.json"
    flags = ["--max_images", "64", "--max_steps", "3", "--num_repeats", "1", "--min_images", "1"]
    assert scaling.main([*flags, "--output", str(path)]) == 0
    record = json.loads(path.read_text("utf-8"))
    assert [row["size"] for row in record["images"]] == [64]
    assert [row["size"] for row in record["steps"]] == [3]
    assert record["images"][0]["median_usecs"] > 0
    assert record["command"] == f"python -m benchmarks.scaling {' '.join(flags)} --output {path}"
    assert "| 64 |" in capsys.readouterr().out


def test_a_run_of_more_steps_has_more_steps():
    dataset = scaling.make_dataset(96)
    assert scaling.make_run(dataset, num_epochs=4)()[1] == 4 * 3


@pytest.mark.parametrize("flags", [["--max_images", "0"], ["--num_repeats", "0"]])
def test_wrong_usage_is_one_line(flags, capsys):
    assert scaling.main(flags) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_too_few_images_for_a_batch_is_one_line(capsys):
    assert scaling.main(["--max_images", "3", "--max_steps", "2", "--num_repeats", "1"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
