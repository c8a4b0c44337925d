"""tests/slow.txt names tests that there are: a renamed one would be quick again, unnoticed."""

import ast
from pathlib import Path

import pytest

from tests.conftest import SLOW

ROOT = Path(__file__).parents[1]
FUNCTIONS = sorted({name.split("[")[0] for name in SLOW if "::" in name})


@pytest.fixture(autouse=True)
def fresh_keras():
    """Replaces conftest's: nothing here runs Keras."""


def test_the_list_names_tests_that_there_are():
    assert len(FUNCTIONS) > 100
    gone = [name for name in FUNCTIONS if name.split("::")[-1] not in functions_of(name)]
    assert not gone


def functions_of(name):
    """Returns the functions of the file that a test is in."""
    path = ROOT / name.split("::")[0]
    tree = ast.parse(path.read_text("utf-8")) if path.exists() else ast.Module([], [])
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
