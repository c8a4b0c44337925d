"""TrainConfig: which values are legal, and what the errors say."""

import dataclasses
import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from gradloop.cli.config import JobConfig
from gradloop.engine.config import TrainConfig
from gradloop.engine.options import ConfigError
from gradloop.files import json_text


@pytest.fixture(autouse=True)
def fresh_keras():
    """Nothing here touches Keras: no need to reset it for each of these many tests."""


@pytest.mark.parametrize(
    ("fields", "parts"),
    [
        (
            {"strategy": "miror"},
            ["strategy='miror'", "default, one_device, mirrored", "'mirrored'?"],
        ),
        ({"precision": "float16"}, ["'float16'", "mixed_float16", "Did you mean"]),
        ({"precision": "mixed_bfloat"}, ["'mixed_bfloat'", "Did you mean 'mixed_bfloat16'?"]),
        ({"jit_compile": "yes"}, ["jit_compile='yes'", "true, false, auto"]),
        ({"jit_compile": "loop"}, ["jit_compile='loop'", "true, false, auto"]),
        ({"jit_compile": 1}, ["jit_compile=1", "bool or auto"]),
        ({"epochs": 0}, ["epochs=0", "1 or more"]),
        ({"epochs": -3}, ["epochs=-3", "1 or more"]),
        ({"epochs": 2.5}, ["epochs=2.5", "type int"]),
        ({"epochs": True}, ["epochs=true", "type int"]),
        ({"epochs": None}, ["epochs=none", "type int"]),
        ({"validation_freq": []}, ["validation_freq=[]", "[1, 5, 10]"]),
        ({"validation_freq": [0, 2]}, ["validation_freq=[0, 2]", "[1, 5, 10]"]),
        ({"epochs": 1, "initial_epoch": 2}, ["initial_epoch=2", "epochs=1"]),
        ({"initial_epoch": -1}, ["initial_epoch=-1", "0 or more"]),
        ({"global_batch_size": 0}, ["global_batch_size=0", "1 or more"]),
        ({"global_batch_size": -64}, ["global_batch_size=-64"]),
        ({"global_batch_size": "64"}, ["global_batch_size=64", "type int or none"]),
        (
            {"strategy": "mirrored", "num_replicas": 4, "global_batch_size": 3},
            ["global_batch_size=3", "num_replicas=4"],
        ),
        (
            {"num_replicas": 2, "strategy": "default"},
            ["num_replicas=2", "strategy='default'", "strategy='mirrored'"],
        ),
        ({"num_replicas": 2, "strategy": "one_device"}, ["num_replicas=2", "'one_device'"]),
        ({"num_replicas": 0, "strategy": "mirrored"}, ["num_replicas=0", "1 or more"]),
        ({"numerics": "fats"}, ["numerics='fats'", "exact, fast", "'fast'?"]),
        ({"input": "stream"}, ["input='stream'", "auto, resident, streamed", "'streamed'?"]),
        ({"jit_scope": "lop"}, ["jit_scope='lop'", "step, loop, update", "'loop'?"]),
        ({"jit_scope": "loop"}, ["jit_scope='loop'", "jit_compile=auto", "jit_compile=True"]),
        (
            {"jit_scope": "update", "jit_compile": False},
            ["jit_scope='update'", "jit_compile=false", "jit_compile=True"],
        ),
        (
            {"numerics": "fast", "strategy": "mirrored"},
            ["numerics='fast'", "strategy='mirrored'", "numerics='exact'"],
        ),
        (
            {"jit_compile": True, "jit_scope": "loop", "strategy": "mirrored"},
            ["jit_scope='loop'", "strategy='mirrored'", "jit_scope='step'"],
        ),
        ({"steps_per_epoch": 0}, ["steps_per_epoch=0"]),
        ({"validation_steps": 0}, ["validation_steps=0"]),
        ({"validation_freq": 0}, ["validation_freq=0"]),
        ({"steps_per_execution": 0}, ["steps_per_execution=0"]),
        ({"steps_per_execution": "many"}, ["steps_per_execution=many", "int or auto"]),
        ({"max_retraces": -1}, ["max_retraces=-1", "0 or more"]),
        ({"seed": -1}, ["seed=-1"]),
        ({"seed": 2**32}, ["seed=4294967296"]),  # NumPy takes 32 bits
        ({"deterministic": "maybe"}, ["deterministic='maybe'", "true, false"]),
        ({"intra_op_threads": 0}, ["intra_op_threads=0"]),
        ({"inter_op_threads": 0}, ["inter_op_threads=0"]),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_illegal_values_are_named_in_one_line_with_the_legal_ones(fields, parts):
    with pytest.raises(ConfigError) as raised:
        TrainConfig(**fields)
    message = str(raised.value)
    assert "\n" not in message
    assert [part for part in parts if part not in message] == [], message


def test_hint_is_written_as_a_person_would_write_it():
    with pytest.raises(ConfigError, match="Did you mean 'false'"):
        TrainConfig(jit_compile="flase")


@pytest.mark.parametrize(
    ("make", "parts"),
    [
        (lambda: TrainConfig(epoch=3), ["TrainConfig has no field 'epoch'", "mean 'epochs'?"]),
        (lambda: dataclasses.replace(TrainConfig(), epoch=3), ["'epoch'", "mean 'epochs'?"]),
        (lambda: JobConfig(epoch=3), ["JobConfig has no field 'epoch'", "mean 'epochs'?"]),
        (lambda: TrainConfig(batch_size=8), ["'batch_size'", "mean 'global_batch_size'?"]),
        (lambda: JobConfig(learning_rat=0.1), ["'learning_rat'", "mean 'learning_rate'?"]),
        (
            lambda: TrainConfig(callbacks=[]),
            ["'callbacks'", "Legal are all_reduce, "],
        ),
        (lambda: TrainConfig(3), ["by name", "TrainConfig(epochs=3), not TrainConfig(3)"]),
    ],
)
def test_an_unknown_field_is_named_with_a_hint(make, parts):
    with pytest.raises(ConfigError) as raised:
        make()
    assert [part for part in parts if part not in str(raised.value)] == [], raised.value


def test_fields_of_the_command_line_are_not_the_engine_s():
    with pytest.raises(ConfigError, match="no field 'learning_rate'"):
        TrainConfig(learning_rate=0.1)


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        (TrainConfig(epochs=np.int64(3)), TrainConfig(epochs=3)),
        (TrainConfig(seed=np.uint8(3)), TrainConfig(seed=3)),
        (TrainConfig(deterministic=np.True_), TrainConfig(deterministic=True)),
        (TrainConfig(jit_compile=np.bool_(False)), TrainConfig(jit_compile=False)),
        (TrainConfig(input=np.str_("streamed")), TrainConfig(input="streamed")),
        (TrainConfig(validation_freq=(1, np.int32(2))), TrainConfig(validation_freq=[1, 2])),
        (JobConfig(learning_rate=np.float32(0.5)), JobConfig(learning_rate=0.5)),
        (JobConfig(run_dir=Path("runs/1")), JobConfig(run_dir="runs/1")),
        (JobConfig(data_dir=Path("data")), JobConfig(data_dir="data")),
    ],
)
def test_values_of_numpy_and_paths_are_taken_as_python_s_own(given, taken):
    assert given == taken
    assert json_text(given) == json_text(taken)
    assert dataclasses.replace(given) == pickle.loads(pickle.dumps(given)) == taken


@pytest.mark.parametrize(
    ("fields", "parts"),
    [
        ({"epochs": "3"}, ["epochs=3 must be of type int, not str", "Write 3."]),
        ({"steps_per_epoch": 8 / 2}, ["steps_per_epoch=4.0", "not float", "Write 4."]),
        ({"epochs": np.float64(2.5)}, ["epochs=2.5", "type int, not float."]),
        ({"precision": np.float16}, ["not type", "float32, mixed_bfloat16, mixed_float16"]),
        ({"validation_freq": [True]}, ["validation_freq=[True]", "[1, 5, 10]"]),
    ],
)
def test_another_type_is_named_with_what_to_write(fields, parts):
    with pytest.raises(ConfigError) as raised:
        TrainConfig(**fields)
    assert [part for part in parts if part not in str(raised.value)] == [], raised.value


@pytest.mark.parametrize("name", ["jit_compile", "steps_per_execution"])
def test_auto_is_none(name):
    config = TrainConfig(**{name: "auto"})
    assert getattr(config, name) is None
    assert config == TrainConfig() == dataclasses.replace(config, **{name: "auto"})


def test_what_is_none_leaves_things_as_they_are():
    names = ("strategy", "precision", "seed", "global_batch_size", "num_replicas")
    assert {getattr(TrainConfig(), name) for name in names} == {None}


def test_config_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        TrainConfig().epochs = 2


def test_json_round_trip():
    config = TrainConfig(epochs=7, jit_compile=True, jit_scope="loop", seed=3)
    text = json_text(config, indent=2)
    assert TrainConfig(**json.loads(text)) == config
    assert set(json.loads(text)) == {f.name for f in dataclasses.fields(TrainConfig)}
