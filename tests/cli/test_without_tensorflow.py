"""What needs no TensorFlow does without it, and so answers at once."""

import subprocess
import sys
import time

import pytest

from tests.cli.runs import ROOT

FRAMEWORKS = ("tensorflow", "keras", "numpy")
CODE = f"""
import sys, time
sys.path.insert(0, {str(ROOT)!r})
sys.argv[0] = "train.py"
before = time.monotonic()
from gradloop.cli.start import start
try:
    code = start()
except SystemExit as stop:
    code = stop.code or 0
secs = time.monotonic() - before
found = [name for name in {FRAMEWORKS} if name in sys.modules]
print("frameworks", found, "secs", f"{{secs:.3f}}", file=sys.stderr)
sys.exit(code)
"""
COMMANDS = {
    "--help": 0,
    "--list": 0,
    "--list models": 0,
    "--version": 0,
    "--list modls": 2,
    "--print_config": 0,
    "--print_config --model lstm --strategy mirrored": 0,
    "--epohcs 3": 2,
    "--epochs 0": 2,
    "--model cn": 2,
    "--num_replicas 2": 2,
    "--config nowhere.json": 2,
    "--mode predict": 2,
}


@pytest.fixture(autouse=True)
def fresh_keras():
    """Nothing here runs Keras in this process."""


@pytest.mark.parametrize("flags", COMMANDS)
def test_without_any_framework_and_at_once(flags, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", CODE, *flags.split()],
        capture_output=True, text=True, cwd=tmp_path, check=False,
    )  # fmt: skip
    *error, last = done.stderr.splitlines()
    assert done.returncode == COMMANDS[flags], done.stderr
    assert len(error) == (1 if COMMANDS[flags] else 0), done.stderr
    assert last.startswith("frameworks [] secs "), last
    # 0.1 s on a quiet machine; with TensorFlow it would be 4 s.
    assert float(last.split()[-1]) < 2.0


@pytest.mark.benchmark
@pytest.mark.parametrize("flags", ["--help", "--list"])
@pytest.mark.parametrize("command", ["train.py", "gradloop"])
def test_the_screen_comes_within_three_tenths_of_a_second(command, flags, tmp_path):
    program = [sys.executable, str(ROOT / "train.py")]
    if command == "gradloop":
        program = [str(ROOT / ".venv" / "bin" / "gradloop")]
    secs = []
    for _ in range(7):
        before = time.monotonic()
        subprocess.run([*program, flags], stdout=subprocess.DEVNULL, check=True, cwd=tmp_path)
        secs.append(time.monotonic() - before)
    assert sorted(secs)[3] < 0.3, secs
