"""benchmarks.chaos finds one bit, one row, one file that differs, and leaves out times."""

import json

import numpy as np
import pytest
import tensorflow as tf

from benchmarks.chaos import __main__ as chaos
from benchmarks.chaos.comparison import compare_digests, compare_runs
from tests.benchmarks.chaos.runs import TABLE, write_checkpoint, write_run


@pytest.fixture
def runs(tmp_path):
    return write_run(tmp_path / "killed", secs=7.0), write_run(tmp_path / "reference")


def test_equal_runs_are_equal_whatever_they_took(runs):
    found = compare_runs(*runs)
    assert found.differences == []
    assert found.counts == {
        "variables of ckpt-12.npz": 4, "variables of best.npz": 4, "metrics.csv": 3,
        "digests.csv": 4, "history.json": 1, "summary.json": 2, "TensorBoard": 3, "files": 0,
    }  # fmt: skip
    assert chaos.format_verdict(found).startswith("Equal, bit for bit: variables of ckpt-12.npz 4")


def flip_a_bit(folder):
    kernel = np.float32([1.0, 2.0])
    kernel.view(np.uint32)[1] ^= 1
    write_checkpoint(folder / "checkpoints" / "ckpt-12.npz", kernel=kernel)


def lose_a_row(folder):
    (folder / "metrics.csv").write_text(TABLE.replace("4,0,execution,0.5\n", ""))


def repeat_a_row(folder):
    (folder / "metrics.csv").write_text(TABLE + TABLE.splitlines(keepends=True)[-1])


def change_a_line_end(folder):
    (folder / "metrics.csv").write_bytes(TABLE.replace("0.25\n", "0.25\r\n").encode())


def repeat_an_event(folder):
    with tf.summary.create_file_writer(str(folder / "tensorboard" / "train")).as_default():
        tf.summary.scalar("loss", 0.5, 1)


def change_json(name, **values):
    def change(folder):
        path = folder / f"{name}.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return change


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (flip_a_bit, "variables of ckpt-12.npz: replica0/model/kernel is float32 (2,)"),
        (lambda folder: write_checkpoint(folder / "checkpoints" / "best.npz", epoch=2),
         "variables of best.npz: progress/epoch is"),
        (lambda folder: (folder / "checkpoints" / "ckpt-12.npz").unlink(), "checkpoints: ['ckpt-8"),
        (lambda folder: (folder / "checkpoints" / "best.npz").unlink(), "checkpoints: ['ckpt-12"),
        (lose_a_row, "metrics.csv: line 2 is '8,0,epoch,0.25\\n' instead of '4,0,"),
        (repeat_a_row, "metrics.csv: line 4 is '8,0,epoch,0.25\\n' instead of ''"),
        (change_a_line_end, "metrics.csv: line 3 is"),
        (lambda folder: (folder / "digests.csv").unlink(), "digests.csv: line 1 is ''"),
        (change_json("history", loss=[0.5]), "history.json: loss is [0.5] instead of [0.25]"),
        (change_json("history", accuracy=[1]), "history.json: accuracy is missing there"),
        (change_json("summary", test_accuracy=0.5), "summary.json: test_accuracy is 0.5"),
        (repeat_an_event, "TensorBoard: (1, 'train/loss') instead of (2, 'train/loss')"),
        (lambda folder: (folder / "a.tmp").touch(), "files: a.tmp was left behind"),
    ],
)  # fmt: skip
def test_each_difference_is_found_alone(change, what, runs):
    change(runs[0])
    found = compare_runs(*runs)
    assert len(found.differences) == 1 and found.differences[0].startswith(
        what.replace("\\\\", "\\")
    )
    assert chaos.format_verdict(found).startswith("Different (")


def test_compare_finds_the_first_step_that_differs(runs, capsys):
    flags = ["--compare", *map(str, runs)]
    assert chaos.main(flags) == 0
    assert capsys.readouterr().out == "equal: 3 digests, the last one of step 30\n"
    table = runs[0] / "digests.csv"
    table.write_text("step,sha256\n10,aa\n20,b0\n30,c0\n")
    assert chaos.main(flags) == 1
    assert capsys.readouterr().out == "the first difference is at step 20: b0, bb\n"
    table.write_text("step,sha256\n10,aa\n30,cc\n")
    assert compare_digests(table, runs[1]) == (
        False, "the first difference is at step 20: missing, bb",
    )  # fmt: skip


def test_what_is_no_table_of_digests_is_refused(runs, tmp_path, capsys):
    assert chaos.main(["--compare", str(tmp_path), str(runs[0])]) == 2
    assert "there is no table" in capsys.readouterr().err
    assert chaos.main(["--compare", str(runs[0] / "metrics.csv"), str(runs[0])]) == 2
    assert "is no table of digests" in capsys.readouterr().err


@pytest.mark.parametrize("flags", [["--kills", "0"], ["--keep", "."]])
def test_wrong_usage(flags, capsys):
    assert chaos.main(flags) == 2
    assert "benchmarks.chaos: error: --" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("metrics.csv", "step,epoch,kind,time,loss\n4,0,execution,{},0.5\n8,0,epoch,{},0.25\n"),
        ("metrics.csv", "step,epoch,kind,loss,time\n4,0,execution,0.5,{}\n8,0,epoch,0.25,{}\n"),
        ("metrics.jsonl", '{{"step": 4, "time": {}, "loss": 0.5}}\n{{"step": 8, "time": {}}}\n'),
    ],
)
def test_the_times_of_records_are_not_compared(runs, name, table):
    for secs, folder in enumerate(runs):
        (folder / name).write_text(table.format(1e9 + secs, 2e9 + secs))
    assert compare_runs(*runs).differences == []
    (runs[0] / name).write_text(table.format(1e9, 2e9).replace("4", "5", 1))
    assert len(compare_runs(*runs).differences) == 1
