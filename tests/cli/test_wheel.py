"""An installation puts one name beside everybody's own modules, and trains from anywhere."""

import importlib.metadata
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile

import pytest

import gradloop
from tests.cli.runs import ROOT

pytestmark = pytest.mark.slow
INSTALLED = ("engine", "data", "models", "cli")
HOSTILE = "raise ImportError('a folder of the user hides the one of gradloop')\n"
IMPORTS = """
import importlib.metadata, gradloop, gradloop.data.mnist
from gradloop import cli, data, engine, models
assert gradloop.__version__ == importlib.metadata.version("gradloop")
print(gradloop.__file__)
"""


def run(*command, **options):
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, check=False, **options
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy: setuptools leaves folders behind where it builds."""
    folder = tmp_path_factory.mktemp("wheel")
    run("git", "-C", ROOT, "checkout-index", "--all", f"--prefix={folder}/checkout/")
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", folder]
    run(*command, folder / "checkout", env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"})
    (path,) = folder.glob("gradloop-*.whl")
    return path


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory):
    """A new environment with the wheel; TensorFlow and its like come from this one."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", "--no-deps", wheel)
    site = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    # Only a path: .pth files in it, such as that of the editable installation, do not count.
    with open(os.path.join(site, "dependencies.pth"), "w", encoding="utf-8") as file:
        file.write(sysconfig.get_path("purelib") + "\n")
    return folder


@pytest.fixture
def crowded(tmp_path):
    """A folder of a person who has modules of these names."""
    for name in (*INSTALLED, "train", "benchmarks", "tests"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(HOSTILE)
    return tmp_path


def test_a_wheel_holds_the_package_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {
        "gradloop", f"gradloop-{gradloop.__version__}.dist-info",
    }  # fmt: skip
    listed = run("git", "-C", ROOT, "ls-files", "--", *INSTALLED, "gradloop/*.py").split()
    sources = {n if n.startswith("gradloop/") else f"gradloop/{n}" for n in listed}
    assert {name for name in names if name.endswith(".py")} == {
        name for name in sources if name.endswith(".py")
    }


def test_it_is_imported_from_anywhere(environment, crowded):
    file = run(environment / "bin" / "python", "-c", IMPORTS, cwd=crowded).strip()
    assert file.startswith(str(environment))


def test_it_trains_from_anywhere(environment, crowded):
    flags = ["--model", "dense", "--dataset", "synthetic", "--fast_dev_run", "--run_dir", "out"]
    output = run(environment / "bin" / "gradloop", *flags, cwd=crowded)
    assert "Everything is in out" in output
    assert (crowded / "out" / "summary.json").exists()


def test_the_version_is_written_once():
    assert importlib.metadata.version("gradloop") == gradloop.__version__
