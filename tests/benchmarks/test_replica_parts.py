"""The parts of a step under replicas: wrong usage, and each row once."""

import pytest

from benchmarks import replica_parts


@pytest.mark.parametrize("flags", [["--num_replicas", "1"], ["--num_rounds", "0"]])
def test_wrong_usage_is_one_line_and_exit_code_2(flags, capsys):
    assert replica_parts.main(flags) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1


@pytest.mark.slow
@pytest.mark.exhaustive
def test_each_row_has_its_time(capsys):
    assert replica_parts.main(["--num_rounds", "1", "--secs", "0.05"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line[:20].strip() for line in lines[2:]] == list(replica_parts.ROWS)
    assert all(float(line.split()[-1]) > 0 for line in lines[2:])
