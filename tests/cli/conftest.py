"""A run that several tests look at."""

import os

import pytest

from gradloop.cli import main as train
from tests.cli.runs import QUICK

# Predictions and pictures take a second a run: tests that look at them ask for `--plots`.
os.environ["GRADLOOP_PLOTS"] = "false"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a finished quick run."""
    folder = tmp_path_factory.mktemp("runs") / "trained"
    assert train.main([*QUICK, "--plots", "--run_dir", str(folder)]) == 0
    return folder
