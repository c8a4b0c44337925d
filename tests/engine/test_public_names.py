"""The public names of the engine: imported when they are first used, for everybody the same."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from gradloop import engine
from gradloop.engine import hooks
from tests.cli.runs import ROOT

PACKAGES = {"engine": engine, "engine/hooks": hooks}


@pytest.fixture(autouse=True)
def fresh_keras():
    """Nothing here runs Keras."""


def names_for_type_checkers(folder):
    tree = ast.parse((ROOT / folder / "__init__.py").read_text("utf-8"))
    (block,) = [node for node in tree.body if type(node) is ast.If]
    homes = {}
    for node in block.body:
        home = "." * (node.level - 1) + node.module
        homes |= {alias.asname or alias.name: (home, alias.name) for alias in node.names}
    return homes


@pytest.mark.parametrize("folder", PACKAGES)
def test_type_checkers_see_what_there_is(folder):
    package = PACKAGES[folder]
    at_home = getattr(package, "_AT_HOME", {})
    homes = {
        name: (home, at_home.get(name, name))
        for home, names in package._HOMES.items()
        for name in names
    }
    assert names_for_type_checkers(folder) == homes
    assert sorted(homes) == sorted(package.__all__)


@pytest.mark.parametrize("name", engine.__all__)
def test_each_name_is_there(name):
    assert getattr(engine, name).__module__.startswith("gradloop.engine.")
    assert name in dir(engine)


@pytest.mark.parametrize("package", PACKAGES.values(), ids=list(PACKAGES))
def test_all_names_come_with_a_star(package):
    names = {}
    exec(f"from {package.__name__} import *", names)
    assert set(package.__all__) <= set(names)
    assert names["ProgressBar"] is engine.ProgressBar


def test_modules_are_there_and_other_names_are_not():
    assert Path(engine.runtime.__file__).name == "runtime.py"
    with pytest.raises(AttributeError, match=r"'gradloop\.engine' has no attribute 'fitt'"):
        _ = engine.fitt
    with pytest.raises(ImportError, match="cannot import name 'fitt'"):
        exec("from gradloop.engine import fitt")


def test_a_library_that_is_missing_is_named(monkeypatch):
    monkeypatch.delitem(sys.modules, "gradloop.engine.gpus")
    monkeypatch.delattr(engine, "gpus")
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(ModuleNotFoundError, match="tensorflow"):
        _ = engine.gpus


def test_importing_the_engine_brings_no_framework():
    code = (
        "import sys; from gradloop import engine; engine.TrainConfig(epochs=3); "
        "print([n for n in ('tensorflow', 'keras', 'numpy') if n in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.strip() == "[]"


EACH_MODULE_ALONE = """
import importlib, sys, tensorflow
failed = {}
for name in sys.argv[1:]:
    for loaded in [one for one in sys.modules if one.startswith("gradloop")]:
        del sys.modules[loaded]
    try:
        importlib.import_module(name)
    except ImportError as error:
        failed[name] = error
print(failed)
"""


@pytest.mark.slow
def test_each_module_can_be_the_first_that_is_imported():
    """With lazy packages, the order of imports is the user's, and no circle must show."""
    paths = [path for part in ("engine", "data", "models", "cli")
             for path in (ROOT / part).rglob("*.py")]  # fmt: skip
    names = ["gradloop." + ".".join(path.relative_to(ROOT).with_suffix("").parts) for path in paths]
    done = subprocess.run(
        [sys.executable, "-c", EACH_MODULE_ALONE, *names],
        capture_output=True, text=True, check=True, cwd=ROOT,
    )  # fmt: skip
    assert done.stdout.strip() == "{}"
