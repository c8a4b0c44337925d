"""A run that several tests look at."""

import pytest

from gradloop.cli import main as train
from tests.cli.runs import QUICK


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a finished quick run."""
    folder = tmp_path_factory.mktemp("runs") / "trained"
    assert train.main([*QUICK, "--run_dir", str(folder)]) == 0
    return folder
