"""One worker writes, and what it writes is what one process under mirrored writes."""

from __future__ import annotations

import numpy as np
import pytest

from tests.engine.distribution import clusters

pytestmark = pytest.mark.multi_worker


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("saving")


@pytest.fixture(scope="module")
def found(folder):
    """What the first worker, the second one, and mirrored found."""
    configs = [*clusters.tf_configs(2), clusters.ALONE]
    return clusters.run(f"{__package__}.checks_of_saving", folder, configs)


def test_an_interrupted_run_goes_on_to_the_bits_of_a_whole_one(found):
    sha256, history = found[0]["whole"]
    assert len(history["loss"]) == 3
    for one in found:
        assert one["whole"] == [sha256, history]
        assert one["interrupted"] == [12, 4, sha256, history]


def test_what_mirrored_saved_is_restored_on_workers_and_the_other_way_round(found):
    assert {one["from_the_other"] for one in found} == {found[0]["whole"][0]}


def test_files_hold_the_same_and_the_values_of_each_replica(found, folder):
    paths = sorted((folder / "multi" / "whole" / "checkpoints").iterdir())
    assert [path.name for path in paths] == [
        f"ckpt-{step}.npz" for step in (10, 15, 16, 20, 24, 5, 8)
    ]
    for path in paths:
        with (
            np.load(path) as ours,
            np.load(folder / "mirrored" / path.relative_to(folder / "multi")) as theirs,
        ):
            arrays = {name: ours[name].tobytes() for name in ours if name != "metadata"}
            assert arrays == {name: theirs[name].tobytes() for name in theirs if name != "metadata"}
        assert any("moving_mean" in name and "replica1" in name for name in arrays)


@pytest.mark.parametrize("name", ["whole", "interrupted"])
@pytest.mark.parametrize("table", ["metrics.csv", "digests.csv"])
def test_tables_have_each_row_once(found, folder, name, table):
    text = (folder / "multi" / name / table).read_text()
    assert text == (folder / "mirrored" / "whole" / table).read_text()
    assert len(text.splitlines()) > 5


def test_the_bar_is_the_chiefs(found, folder):
    logs = [(folder / f"{name}.log").read_text() for name in ("worker0", "worker1", "alone2")]
    assert logs[0].count("Epoch 3/3") == logs[2].count("Epoch 3/3") == 2
    assert "Epoch" not in logs[1]
