"""GRADLOOP_* variables: what they set, and what is wrong with others."""

import pytest

from gradloop.cli.variables import read_variables, without_variables
from gradloop.engine.options import ConfigError


@pytest.fixture(autouse=True)
def fresh_keras():
    """Nothing here touches Keras."""


@pytest.mark.parametrize(
    ("variable", "text", "values"),
    [
        ("LEARNING_RATE", "1e-3", {"learning_rate": 0.001}),
        ("BATCH_SIZE", "8", {"global_batch_size": 8}),
        ("RESCALE", "false", {"rescale": False}),
        ("RESUME", "auto", {"resume": "auto"}),
        ("JIT_COMPILE", "auto", {"jit_compile": None}),
        ("SEED", "none", {"seed": None}),
        ("TAGS", "a, b", {"tags": ["a", "b"]}),
        ("VALIDATION_FREQ", "1,3", {"validation_freq": [1, 3]}),
    ],
)
def test_each_setting_has_a_variable(variable, text, values):
    assert read_variables({"GRADLOOP_" + variable: text, "PATH": "x"}) == {
        "GRADLOOP_" + variable: values
    }


def test_the_folder_of_data_is_no_setting():
    assert read_variables({"GRADLOOP_DATA": "/data", "gradloop_epochs": "x"}) == {}


@pytest.mark.parametrize(
    ("environment", "parts"),
    [
        ({"GRADLOOP_EPOHCS": "3"}, ["GRADLOOP_EPOHCS", "Did you mean 'GRADLOOP_EPOCHS'?"]),
        ({"GRADLOOP_EPOCHS": "two"}, ["GRADLOOP_EPOCHS: epochs=two", "type int"]),
        ({"GRADLOOP_EPOCHS": "0"}, ["GRADLOOP_EPOCHS: epochs=0 must be 1 or more"]),
        ({"GRADLOOP_EPOCHS": ""}, ["GRADLOOP_EPOCHS: epochs='' is empty"]),
        ({"GRADLOOP_STRATEGY": "mirorred"}, ["Did you mean 'mirrored'?"]),
        ({"GRADLOOP_BATCH_SIZE": "8", "GRADLOOP_GLOBAL_BATCH_SIZE": "8"}, ["the same setting"]),
    ],
)
def test_others_are_refused_by_their_name(environment, parts):
    with pytest.raises(ConfigError) as raised:
        read_variables(environment)
    message = str(raised.value)
    assert "\n" not in message
    assert [part for part in parts if part not in message] == [], message


def test_a_process_with_settings_of_its_own_gets_none():
    environment = {"GRADLOOP_EPOCHS": "3", "GRADLOOP_DATA": "d", "PATH": "x"}
    assert without_variables(environment) == {"GRADLOOP_DATA": "d", "PATH": "x"}
