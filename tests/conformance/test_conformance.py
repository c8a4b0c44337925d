"""Keras's own tests pass through the engine, but for a list of exceptions that is kept exact."""

import collections
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[1]
# The files of the installed keras package whose tests call fit, evaluate or predict.
ALL = [line for line in (FOLDER / "modules.txt").read_text("utf-8").split() if line]

# What trains with layers, optimizers and metrics of one kind; the others are about training itself.
KINDS = ("layers.", "optimizers.", "metrics.", "saving.")
ABOUT_TRAINING = [module for module in ALL if not module.startswith(KINDS)]
ABOUT_KINDS = [module for module in ALL if module.startswith(KINDS)]
NUM_PARTS = 6  # each takes a minute or less, but for the one with the trainer's own tests


def expected_failures():
    """Returns test to reason."""
    lines = (FOLDER / "expected_failures.txt").read_text("utf-8").splitlines()
    pairs = (line.split("  # ") for line in lines if line and not line.startswith("#"))
    return {name.strip(): reason for name, reason in pairs}


def run(modules, path):
    names = [f"keras.src.{module}" for module in modules]
    command = [
        sys.executable, "-m", "pytest", "-q", "-c", FOLDER / "keras_tests.ini", f"--rootdir={ROOT}",
        "-W", "ignore", "--outcomes", path, "--pyargs", *names,
    ]  # fmt: skip
    environment = {
        **os.environ, "KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3",
        "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    done = subprocess.run(
        [str(word) for word in command], cwd=ROOT, env=environment, check=False,
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode in (0, 1), done.stdout[-3000:] + done.stderr[-3000:]
    lines = path.read_text("utf-8").splitlines()
    return dict(reversed(line.split(" ", 1)) for line in lines)


def compare(outcomes, modules):
    """Returns the tests that fail and should pass, and those that pass and should fail."""
    failed = {name for name, outcome in outcomes.items() if outcome == "failed"}
    prefixes = tuple(f"{module}::" for module in modules)
    expected = {name for name in expected_failures() if name.startswith(prefixes)}
    return sorted(failed - expected), sorted(expected - failed)


def part_of_ci(part):
    """Returns a part with its mark: CI has time for half, without the trainer's own tests."""
    is_sampled = part >= NUM_PARTS // 2
    return pytest.param(part, marks=pytest.mark.slow if is_sampled else pytest.mark.exhaustive)


@pytest.mark.parametrize("part", [part_of_ci(part) for part in range(NUM_PARTS)])
def test_all_that_are_about_training_do(part, tmp_path):
    modules = ABOUT_TRAINING[part::NUM_PARTS]
    outcomes = run(modules, tmp_path / "outcomes")
    assert len(outcomes) > 5
    assert compare(outcomes, modules) == ([], [])


@pytest.mark.exhaustive
@pytest.mark.parametrize("part", range(NUM_PARTS))
def test_all_others_do(part, tmp_path):
    modules = ABOUT_KINDS[part::NUM_PARTS]
    assert compare(run(modules, tmp_path / "outcomes"), modules) == ([], [])


def main():
    """Runs all of them: `make conformance`. Some minutes."""
    with tempfile.TemporaryDirectory() as folder:
        outcomes = run(ALL, Path(folder) / "outcomes")
    counts = collections.Counter(outcomes.values())
    num_run = counts["passed"] + counts["failed"]
    print(f"{counts['passed']} of {num_run} tests of Keras pass with the engine.")
    new, gone = compare(outcomes, ALL)
    for name in new:
        print(f"fails, and is not in expected_failures.txt: {name}")
    for name in gone:
        print(f"passes, take it off expected_failures.txt: {name}")
    return 1 if new or gone else 0


if __name__ == "__main__":
    sys.exit(main())
