"""Cost by size: sizes are measured in turn, and too many images are an error in advance."""

import json

import pytest

from benchmarks import scaling


class Trained:
    """Stands for a net whose parts cost what a list says."""

    def __init__(self, name, costs, order):
        self.name, self.costs, self.order = name, iter(costs), order

    def run(self, num_parts, after_part=lambda: None):
        found = []
        for _ in range(num_parts):
            found.append(next(self.costs))
            self.order.append(self.name)
            after_part()
        return found


def test_the_smallest_run_follows_each_part():
    order = []
    longer, smallest = (
        Trained(name, costs, order)
        for name, costs in {"longer": [1, 2, 3, 4], "smallest": [5, 6, 7, 8]}.items()
    )
    assert scaling.measure(longer, smallest, 2, num_pairs=3) == [(1, 5), (2, 6), (3, 7), (4, 8)]
    assert order == 4 * ["longer", "smallest"]


def test_rows_are_a_step_or_an_image():
    row = scaling.summarize(100, [(32.0, 64.0), (96.0, 64.0)], divisor=32)
    assert row["usecs"] == [1.0, 3.0]
    assert row["usecs_of_smallest"] == [2.0, 2.0]
    assert (row["size"], row["mean_usecs"], row["ratio"]) == (100, 2.0, 1.0)
    assert (row["low"], row["high"]) == (0.5, 1.5)


def test_what_does_not_fit_into_memory_is_said_before():
    scaling.check_memory(6_000_000, 12 * 2**30)
    scaling.check_memory(6_000_000, None)
    with pytest.raises(ValueError, match="Pass a smaller --max_images"):
        scaling.check_memory(6_000_000, 8 * 2**30)


def test_a_record_of_few_images(tmp_path, capsys):
    path = tmp_path / "scaling.json"
    flags = ["--max_images", "64", "--max_steps", "3", "--num_pairs", "2"]
    assert scaling.main([*flags, "--output", str(path)]) == 0
    record = json.loads(path.read_text("utf-8"))
    assert [row["size"] for row in record["images"]] == [64]
    assert [row["size"] for row in record["steps"]] == [3]
    assert len(record["images"][0]["usecs"]) == 2
    assert record["images"][0]["ratio"] > 0
    assert record["command"] == f"python -m benchmarks.scaling {' '.join(flags)} --output {path}"
    assert "| 64 |" in capsys.readouterr().out


def test_parts_are_of_one_run_and_of_passes_over_the_data():
    few, more = scaling.make_dataset(96), scaling.make_dataset(192)
    pairs = scaling.measure_all({3: (few, 3), 6: (few, 6), 7: (more, 6)}, num_pairs=3)
    assert {size: len(found) for size, found in pairs.items()} == {3: 3, 6: 4, 7: 4}


@pytest.mark.parametrize("flags", [["--max_images", "0"], ["--num_pairs", "0"]])
def test_wrong_usage_is_one_line(flags, capsys):
    assert scaling.main(flags) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_too_few_images_for_a_batch_is_one_line(capsys):
    assert scaling.main(["--max_images", "3", "--max_steps", "2"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
