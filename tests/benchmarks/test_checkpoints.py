"""The cost of checkpoints: a quick run of all of it."""

import time

from benchmarks import checkpoints


def test_every_way_is_measured_and_compared(capsys, tmp_path):
    flags = ["--width", "40", "--num_rounds", "2", "--directory", str(tmp_path)]
    assert checkpoints.main(flags) == 0
    title, *table = capsys.readouterr().out.splitlines()
    assert title.startswith("0.0 million parameters")
    rows = [row.strip("| ").split(" | ") for row in table[2:]]
    assert len(rows) == 8
    assert all(float(row[1]) > 0 and float(row[4]) > 0 for row in rows)
    assert [row[4] for row in rows if row[0].startswith("model.")] == ["1.00", "1.00"]
    assert list(tmp_path.iterdir()) == []


def test_memory_that_is_taken_is_seen():
    def take():
        block = bytearray(b"x") * (64 << 20)  # Zeros would take none before they are written.
        time.sleep(0.1)
        return len(block)

    assert checkpoints.measure(take).peak_bytes > 50 << 20
    assert checkpoints.measure(lambda: None).peak_bytes < 30 << 20


def test_a_long_run_reports_memory_and_speed(tmp_path):
    lines = checkpoints.endure(200, tmp_path, every_steps=20)
    assert lines[0] == "200 steps, 10 saves"
    assert "MiB" in lines[1] and lines[2].startswith("steps/s in each fifth: ")
    assert len(list(tmp_path.glob("ckpt-*.npz"))) == 3
