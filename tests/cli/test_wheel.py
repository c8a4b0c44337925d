"""An installation puts one name beside everybody's own modules, and trains from anywhere.

A wheel of the checkout is installed in a new environment, and run from a folder whose own modules
have the names of ours and raise when they are imported.
"""

import importlib.metadata
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

import gradloop
from tests.cli.runs import ROOT, read
from tests.data.own import files

pytestmark = pytest.mark.slow
INSTALLED = ("engine", "data", "models", "cli")
LEFT_BEHIND = (".*", "__pycache__", "build", "dist", "runs", "*.egg-info")
IMPORTS = """
import importlib.metadata, gradloop
from gradloop import cli, data, engine, models
assert gradloop.__version__ == importlib.metadata.version("gradloop")
for module in (gradloop, cli, data, engine, models):
    print(module.__file__)
"""


def run(*command, cwd=None, returncode=0):
    # PYTHONPATH would bring the checkout into the new environment; the other two hide the folder.
    hidden = ("PYTHONPATH", "PYTHONSAFEPATH", "PYTHONHOME")
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, check=False, cwd=cwd,
        env={name: value for name, value in os.environ.items() if name not in hidden},
    )  # fmt: skip
    assert done.returncode == returncode, done.stdout + done.stderr
    return done


def pip(*arguments, python=sys.executable):
    options = ["--python", python, "--disable-pip-version-check", "--quiet"]
    run(sys.executable, "-m", "pip", *options, *arguments)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy: setuptools leaves folders behind where it builds."""
    ignore = shutil.ignore_patterns(*LEFT_BEHIND)
    folder = tmp_path_factory.mktemp("wheel") / "checkout"
    return Path(shutil.copytree(ROOT, folder, symlinks=True, ignore=ignore))


@pytest.fixture(scope="module")
def wheel(checkout):
    """Built with the setuptools of this environment (the extra `dev`), so without a network."""
    options = ["--no-deps", "--no-build-isolation", "--check-build-dependencies"]
    pip("wheel", *options, "--wheel-dir", checkout.parent, checkout)
    (path,) = checkout.parent.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory):
    """The folder of a new environment with the wheel; what it depends on comes from this one."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    pip("install", "--no-deps", "--no-index", wheel, python=python)
    site = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").stdout
    # A line of a .pth file adds its folder alone: the .pth file of the editable installation, which
    # lies in that folder, is not read.
    Path(site.strip(), "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder


@pytest.fixture
def crowded(tmp_path):
    """The folder of a person who has modules of these names."""
    for name in (*INSTALLED, "train", "benchmarks", "tests"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"raise ImportError('a person`s own {name}')")
    return tmp_path


def test_a_wheel_holds_the_package_and_nothing_else(wheel, checkout):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {
        "gradloop", f"gradloop-{gradloop.__version__}.dist-info",
    }  # fmt: skip
    kinds = (".py", ".css", ".js")  # the style and the script of pages
    found = [path for room in INSTALLED for path in (checkout / room).rglob("*")]
    sources = [path for path in found if path.suffix in kinds]
    expected = {f"gradloop/{path.relative_to(checkout)}" for path in sources}
    expected |= {f"gradloop/{path.name}" for path in (checkout / "gradloop").glob("*.py")}
    assert {name for name in names if name.endswith(kinds)} == expected


def test_the_folder_has_modules_that_cannot_be_imported(environment, crowded):
    error = run(environment / "bin/python", "-c", "import data", cwd=crowded, returncode=1).stderr
    assert "a person`s own data" in error


def test_it_is_imported_from_anywhere(environment, crowded):
    files = run(environment / "bin/python", "-c", IMPORTS, cwd=crowded).stdout.splitlines()
    assert len(files) == 5
    assert all(Path(file).resolve().is_relative_to(environment.resolve()) for file in files)


def test_its_command_trains_from_anywhere(environment, crowded):
    command = [environment / "bin/gradloop", "--model", "dense", "--fast_dev_run"]
    output = run(*command, cwd=crowded).stdout
    (folder,) = crowded.glob("runs/dense-mnist/*")
    assert f"Everything is in {folder.relative_to(crowded)}" in output
    summary = read(folder)
    assert (summary["status"], summary["num_steps"]) == ("completed", 8)
    assert "dense on mnist" in (folder / "report.html").read_text("utf-8")


NETS = """
import keras

def build(input_shape, num_classes, units=4):
    flat = [keras.Input(input_shape), keras.layers.Flatten(), keras.layers.Dense(units)]
    return keras.Sequential([*flat, keras.layers.Dense(num_classes)])
"""


def test_the_commands_of_the_readme_train_own_work_from_an_empty_folder(environment, tmp_path):
    files.write_images(tmp_path)
    files.write_csv(tmp_path)
    (tmp_path / "nets.py").write_text(NETS)
    lines = (ROOT / "README.md").read_text("utf-8").splitlines()
    commands = [shlex.split(line, comments=True) for line in lines if line.startswith("gradloop ")]
    assert len(commands) == 4
    for program, *flags in commands:
        quick = [] if "--mode" in flags else ["--fast_dev_run"]
        output = run(environment / "bin" / program, *flags, *quick, cwd=tmp_path).stdout
        assert "Everything is in runs/" in output
    (own,) = tmp_path.glob("runs/nets_build-mnist/*")
    assert read(own, "config.json")["set"] == {"model.units": 64}
    (table,) = tmp_path.glob("runs/nets_build-table.csv/*")
    assert len(read(table)["history"]["val_loss"]) == 1
    (evaluated,) = tmp_path.glob("runs/nets_build-pictures/*")
    accuracy = read(tmp_path / "runs" / "pictures")["test_accuracy"]
    assert read(evaluated)["test_accuracy"] == accuracy is not None


def test_its_command_has_its_own_name_in_errors(environment, crowded):
    command = [environment / "bin/gradloop", "--model", "cn"]
    error = run(*command, cwd=crowded, returncode=2).stderr
    assert error.startswith("gradloop: error: unknown model 'cn'")


def test_an_editable_installation_is_imported_from_anywhere(crowded):
    """This environment's own, made by `make`: pytest itself would find the checkout without it."""
    files = run(sys.executable, "-c", IMPORTS, cwd=crowded).stdout.splitlines()
    packages = [Path(file).resolve().parent for file in files]
    assert packages == [ROOT / name for name in ("gradloop", "cli", "data", "engine", "models")]


def test_the_version_is_written_once():
    assert importlib.metadata.version("gradloop") == gradloop.__version__
