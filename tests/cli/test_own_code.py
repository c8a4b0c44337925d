"""A person's own code is found by `pkg.module:name`, and is called with what it takes."""

import contextlib
import itertools
import sys

import keras
import pytest

from gradloop.cli import own_code
from gradloop.cli.own_code import call_with, lies_in_working_directory, load_object
from gradloop.engine import ConfigError

_NUMBERS = itertools.count()
SOURCE = """
WIDTH = 3

class Nets:
    @staticmethod
    def small(units=4, *, depth):
        return units, depth

def build(units=4):
    return units
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Name of a package in the working directory, with a module `nets`."""
    name = f"own{next(_NUMBERS)}"
    (tmp_path / name).mkdir()
    (tmp_path / name / "nets.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return name


def test_modules_of_the_working_directory_are_found(package, tmp_path):
    assert load_object(f"{package}.nets:build", "model")(5) == 5
    assert load_object(f"{package}.nets:Nets.small", "model")(depth=1) == (4, 1)
    assert sys.path[0] == str(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}.nets:bild", "has no 'bild'. It has Nets, build. Did you mean 'build'?"),
        ("{}.net:build", "no module '{}.net', in the working directory"),
        ("{}.net:build", "Did you mean '{}.nets'?"),
        ("nowhere:build", "there is no module 'nowhere'"),
        ("{}.nets.deep:build", "there is no module '{}.nets.deep'"),
        ("{}/nets.py:build", "must be MODULE:NAME, the module as in an import statement: {}.nets:"),
        ("{}.nets:", "must be MODULE:NAME"),
        ("{}.nets:WIDTH", "is a int, and must be a function or a class."),
    ],
)
def test_what_cannot_be_found_is_told_in_one_line(package, text, message):
    with pytest.raises(ConfigError) as error:
        load_object(text.format(package), "model")
    assert str(error.value).startswith(f"model={text.format(package)!r}")
    assert message.format(package) in str(error.value) and "\n" not in str(error.value)


def test_a_bug_in_the_module_is_the_persons(package, tmp_path):
    (tmp_path / package / "broken.py").write_text("import no_such_library\n")
    with pytest.raises(ModuleNotFoundError, match="no_such_library"):
        load_object(f"{package}.broken:build", "model")


def test_files_of_the_working_directory_are_a_persons_and_others_are_not(tmp_path, monkeypatch):
    (tmp_path / "layers.py").write_text("")
    monkeypatch.chdir(tmp_path)
    assert lies_in_working_directory(str(tmp_path / "layers.py"))
    assert not lies_in_working_directory("<string>")
    monkeypatch.chdir("/")
    assert lies_in_working_directory(__file__)
    others = [own_code.__file__, keras.__file__, contextlib.__file__]
    assert not any(map(lies_in_working_directory, others))


def build(input_shape, units=4):
    return input_shape, units


def test_a_function_gets_what_it_takes():
    offered = {"input_shape": (2,), "num_classes": 3}
    assert call_with(build, offered, {}, "model") == ((2,), 4)
    assert call_with(build, offered, {"units": 5}, "model") == ((2,), 5)
    assert call_with(build, offered, {"input_shape": (9,)}, "model") == ((9,), 4)
    assert call_with(lambda **options: options, offered, {"depth": 1}, "model") == {"depth": 1}


def test_arguments_that_it_does_not_take_or_lacks_are_named():
    with pytest.raises(ConfigError, match=r"model.unit=5, .*It takes input_shape, units. Did you "):
        call_with(build, {}, {"unit": 5}, "model")
    with pytest.raises(ConfigError, match=r"needs 'input_shape', .*--set model.input_shape=VALUE"):
        call_with(build, {}, {}, "model")
