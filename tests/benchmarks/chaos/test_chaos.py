"""The kills of benchmarks.chaos: which are planned, where crash points are, and whole trials."""

import random
import subprocess
import sys

import pytest

from benchmarks.chaos import __main__ as chaos
from benchmarks.chaos.kills import FINAL, KINDS, Measured, Outcome, measure, plan
from tests.cli.runs import ROOT

MEASURED = Measured(startup_secs=5.0, num_operations=40, num_bytes=1000)
TEXT = "new text"
WRITES_A_FILE = f"""
import sys
from pathlib import Path
from benchmarks.chaos.victim import CrashPoint
from gradloop.files import write_atomically

folder, what, number = sys.argv[1:]
point = CrashPoint(Path(folder), **{{what: int(number)}})
point.install()
write_atomically(Path(folder, "a.txt"), lambda file: file.write({TEXT!r}))
print(point.num_operations, point.num_bytes)
"""


def write_a_file(folder, **crash):
    ((what, number),) = crash.items()
    folder.mkdir()
    (folder / "a.txt").write_text("old")
    command = [sys.executable, "-c", WRITES_A_FILE, str(folder), what, str(number)]
    return subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True)


def test_each_kind_comes_as_often_and_the_last_one_after_training():
    kinds = [kill.kind for kill in plan(2 * len(KINDS) + 1, MEASURED, random.Random(0))]
    assert sorted(kinds[:-1]) == sorted(2 * KINDS) and kinds[-1] == FINAL


def test_a_seed_decides_all_kills():
    plans = [list(plan(20, MEASURED, random.Random(seed))) for seed in (0, 0, 1)]
    assert plans[0] == plans[1] != plans[2]


def test_kills_are_where_there_is_something_to_hit():
    for kill in plan(200, MEASURED, random.Random(0)):
        if kill.kind == "start-up":
            assert 0 <= kill.delay_secs <= 5
        elif kill.flags:
            assert int(kill.flags[1]) < {"--byte": 1000, "--operation": 40}[kill.flags[0]]
        else:
            assert kill.moment[0].split()[0] in ("on_execution_end", "on_eval_begin")


def test_what_is_measured_is_of_an_epoch():
    lines = ["on_train_begin -", "on_epoch_end -", "on_epoch_end -", "files 80 2000"]
    moments = [(line, 5.0 + i) for i, line in enumerate(lines)]
    assert measure(Outcome(0, is_killed=False, moments=moments)) == MEASURED
    with pytest.raises(RuntimeError, match="has not told that it trained"):
        measure(Outcome(0, is_killed=False, moments=moments[:-1]))


def test_a_crash_point_at_each_operation_leaves_the_old_file_or_the_new_one(tmp_path):
    whole = write_a_file(tmp_path / "whole", at_operation=1000)
    num_operations, num_bytes = map(int, whole.stdout.split())
    assert num_bytes == len(TEXT) and num_operations >= 4  # open, fsync, replace, fsync
    left = []
    for number in range(num_operations):
        folder = tmp_path / str(number)
        process = write_a_file(folder, at_operation=number)
        assert process.returncode == -9, process.stderr
        torn = [path.read_text() for path in folder.iterdir() if path.name != "a.txt"]
        left.append([(folder / "a.txt").read_text(), *torn])
    # Nothing is done; it is written; it is forced to disk; it is renamed.
    assert left[0] == ["old"] and left.count(["old", TEXT]) == 2 and left[-1] == [TEXT]
    assert all(files[0] in ("old", TEXT) for files in left)


def test_a_crash_point_at_each_byte_ends_the_process_within_the_bytes(tmp_path):
    for number in range(len(TEXT)):
        folder = tmp_path / str(number)
        assert write_a_file(folder, at_byte=number).returncode == -9
        (torn,) = set(folder.iterdir()) - {folder / "a.txt"}
        assert torn.read_text() == TEXT[:number]
        assert (folder / "a.txt").read_text() == "old"
    assert write_a_file(tmp_path / "whole", at_byte=len(TEXT)).returncode == 0


@pytest.mark.slow
def test_a_run_that_is_killed_twice_is_equal_to_one_that_was_not(capfd):
    assert chaos.main(["--kills", "2", "--model", "dense"]) == 0
    output = capfd.readouterr().out
    assert "Equal, bit for bit: variables of ckpt-" in output
    assert output.splitlines()[-2].split() == ["all", "2"]
