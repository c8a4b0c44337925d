"""TrainConfig: what is legal, what the errors say, flags, files and layers."""

from __future__ import annotations

import dataclasses
import json

import pytest

from gradloop.cli.flags import make_config, parse_flags, read_choices, read_config_file
from gradloop.engine import config as config_lib
from gradloop.engine.config import ConfigError, TrainConfig
from gradloop.files import json_text


@pytest.fixture(autouse=True)
def fresh_keras():
    """Nothing here touches Keras: no need to reset it for each of these many tests."""


def parse(*argv):
    return parse_flags(argv, prog="train.py", description="Trains.")


@pytest.mark.parametrize(
    ("fields", "parts"),
    [
        (
            {"strategy": "miror"},
            ["strategy='miror'", "default, one_device, mirrored", "'mirrored'?"],
        ),
        ({"precision": "float16"}, ["'float16'", "mixed_float16", "Did you mean"]),
        ({"precision": "mixed_bfloat"}, ["'mixed_bfloat'", "Did you mean 'mixed_bfloat16'?"]),
        ({"mode": "eval"}, ["mode='eval'", "train, evaluate, predict, compare"]),
        ({"mode": "trian"}, ["Did you mean 'train'?"]),
        ({"jit_compile": "yes"}, ["jit_compile='yes'", "auto, true, false"]),
        ({"epochs": 0}, ["epochs=0", "1 or more"]),
        ({"epochs": -3}, ["epochs=-3", "1 or more"]),
        ({"epochs": 2.5}, ["epochs=2.5", "type int"]),
        ({"epochs": True}, ["epochs=true", "type int"]),
        ({"epochs": 1, "initial_epoch": 1}, ["initial_epoch=1", "epochs=1"]),
        ({"initial_epoch": -1}, ["initial_epoch=-1", "0 or more"]),
        ({"global_batch_size": 0}, ["global_batch_size=0", "1 or more"]),
        ({"global_batch_size": -64}, ["global_batch_size=-64"]),
        ({"global_batch_size": None}, ["global_batch_size=none", "type int"]),
        (
            {"strategy": "mirrored", "num_replicas": 4, "global_batch_size": 3},
            ["global_batch_size=3", "num_replicas=4"],
        ),
        ({"num_replicas": 2}, ["num_replicas=2", "strategy='default'", "strategy='mirrored'"]),
        ({"num_replicas": 0, "strategy": "mirrored"}, ["num_replicas=0", "1 or more"]),
        ({"numerics": "fats"}, ["numerics='fats'", "exact, fast", "'fast'?"]),
        ({"input": "stream"}, ["input='stream'", "auto, resident, streamed", "'streamed'?"]),
        ({"prefetch": 0}, ["prefetch=0", "1 or more"]),
        ({"jit_compile": "lop"}, ["jit_compile='lop'", "parts, loop", "'loop'?"]),
        (
            {"numerics": "fast", "strategy": "mirrored"},
            ["numerics='fast'", "strategy='mirrored'", "numerics='exact'"],
        ),
        (
            {"jit_compile": "loop", "strategy": "mirrored"},
            ["jit_compile=loop", "strategy='mirrored'", "jit_compile='auto'"],
        ),
        ({"mode": "tune", "checkpoint": "x"}, ["mode='tune'", "new weights"]),
        ({"learning_rate": 0}, ["learning_rate=0", "above 0"]),
        ({"learning_rate": float("nan")}, ["learning_rate=nan"]),
        ({"learning_rate": float("inf")}, ["learning_rate=inf"]),
        ({"learning_rate": "fast"}, ["learning_rate=fast", "float or none"]),
        ({"steps_per_epoch": 0}, ["steps_per_epoch=0"]),
        ({"validation_steps": 0}, ["validation_steps=0"]),
        ({"validation_freq": 0}, ["validation_freq=0"]),
        ({"steps_per_execution": 0}, ["steps_per_execution=0"]),
        ({"steps_per_execution": "many"}, ["steps_per_execution='many'", "'auto'"]),
        ({"seed": -1}, ["seed=-1"]),
        ({"seed": 2**32}, ["seed=4294967296"]),  # NumPy takes 32 bits
        ({"intra_op_threads": 0}, ["intra_op_threads=0"]),
        ({"rescale": "maybe"}, ["rescale=maybe", "bool"]),
        ({"resume": True}, ["resume", "run_dir"]),
        ({"resume": True, "run_dir": "r", "checkpoint": "c.npz"}, ["'c.npz'", "choose one"]),
        ({"mode": "compare", "checkpoint": "c.npz"}, ["mode='compare'", "checkpoint"]),
        ({"mode": "compare", "resume": True, "run_dir": "r"}, ["mode='compare'", "resume"]),
        ({"mode": "evaluate"}, ["mode='evaluate'", "--checkpoint FILE", "--resume"]),
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


def test_config_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        TrainConfig().epochs = 2


def test_json_round_trip(tmp_path):
    config = TrainConfig(epochs=7, jit_compile=False, learning_rate=0.1, steps_per_execution=32)
    path = tmp_path / "config.json"
    path.write_text(json_text(config, indent=2))
    assert make_config(read_config_file(path)) == config
    assert set(json.loads(path.read_text())) == {f.name for f in dataclasses.fields(TrainConfig)}


# Flags.


def test_only_flags_that_were_given_are_in_the_result():
    assert parse() == {}
    assert parse("--epochs", "3") == {"epochs": 3}


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["--global-batch-size=32"], {"global_batch_size": 32}),
        (["--batch_size", "32"], {"global_batch_size": 32}),
        (["--batch-size", "32"], {"global_batch_size": 32}),
        (["--limit-train-batches", "5"], {"steps_per_epoch": 5}),
        (["--no_rescale"], {"rescale": False}),
        (["--no-rescale"], {"rescale": False}),
        (["--rescale", "false"], {"rescale": False}),
        (["--rescale"], {"rescale": True}),
        (["--no_deterministic"], {"deterministic": False}),
        (["--jit_compile", "true"], {"jit_compile": True}),
        (["--jit-compile", "auto"], {"jit_compile": "auto"}),
        (["--steps-per-execution", "auto"], {"steps_per_execution": "auto"}),
        (["--steps-per-execution", "8"], {"steps_per_execution": 8}),
        (["--learning-rate", "1e-3"], {"learning_rate": 0.001}),
        (["--learning_rate", "1"], {"learning_rate": 1.0}),
        (["--seed", "none"], {"seed": None}),
        (["--run-dir", "my-runs/a-b"], {"run_dir": "my-runs/a-b"}),
        (["--run-dir=my-runs/--x"], {"run_dir": "my-runs/--x"}),
        (["--print-config", "--config", "a-b.toml"], {"print_config": True, "config": "a-b.toml"}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_flags(argv, expected):
    assert parse(*argv) == expected


@pytest.mark.parametrize(
    ("argv", "parts"),
    [
        (["--epochs", "0"], ["epochs=0", "1 or more"]),
        (["--epochs", "two"], ["epochs=two", "type int"]),
        (["--epochs"], ["--epochs", "expected one argument"]),
        (["--batch-size", "-4"], ["global_batch_size=-4"]),
        (["--strategy", "mirorred"], ["'mirorred'", "one_device", "Did you mean 'mirrored'?"]),
        (["--precision", "float61"], ["'float61'", "Did you mean 'float32'?"]),
        (["--epoch", "3"], ["unknown argument '--epoch'", "Did you mean '--epochs'?"]),
        (["--learning-rte=3"], ["'--learning_rte=3'", "Did you mean '--learning_rate'?"]),
        (["train"], ["unknown argument 'train'"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_flags_give_one_line_and_exit_2(argv, parts, capsys):
    with pytest.raises(SystemExit) as raised:
        parse(*argv)
    assert raised.value.code == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith("train.py: error: ")
    assert [part for part in parts if part not in err] == [], err


def test_help_has_every_field_its_group_and_its_default(capsys):
    with pytest.raises(SystemExit) as raised:
        parse("--help")
    assert raised.value.code == 0
    out = " ".join(capsys.readouterr().out.split())
    for field in dataclasses.fields(TrainConfig):
        assert f"--{field.name}" in out
        assert f"{field.metadata['group']}:" in out
    assert "over all replicas together" in out
    assert "(default: float32)" in out
    assert "--batch_size" in out


# Files and layers.


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("c.json", '{"epochs": 3, "batch-size": 8, "rescale": false}'),
        ("c.toml", "epochs = 3\nbatch_size = 8\nrescale = false\n"),
    ],
)
def test_files_are_json_or_toml_and_know_the_aliases(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    values = {"epochs": 3, "global_batch_size": 8, "rescale": False}
    assert read_config_file(tmp_path / name) == values


@pytest.mark.parametrize(
    ("name", "text", "parts"),
    [
        ("c.json", '{"epoch": 3}', ["unknown key 'epoch'", "Did you mean 'epochs'?"]),
        ("c.toml", "[training]\nepochs = 3", ["unknown key 'training'"]),
        ("c.json", "[1, 2]", ["must hold an object"]),
        ("c.json", "{epochs: 3}", ["cannot be read"]),
        ("c.toml", "epochs 3", ["cannot be read"]),
        ("missing.json", None, ["missing.json", "cannot be read"]),
    ],
)
def test_wrong_files_give_one_line_that_names_them(tmp_path, name, text, parts):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError) as raised:
        read_config_file(tmp_path / name)
    message = str(raised.value)
    assert "\n" not in message
    assert [part for part in [name, *parts] if part not in message] == [], message


def test_wrong_type_in_a_file(tmp_path):
    (tmp_path / "c.json").write_text('{"epochs": "3"}')
    with pytest.raises(ConfigError, match="epochs=3 must be of type int"):
        make_config(read_config_file(tmp_path / "c.json"))


def test_later_layers_win():
    recipe = {"epochs": 5, "global_batch_size": 128, "learning_rate": 0.1}
    file = {"epochs": 4, "global_batch_size": 32}
    config = make_config(recipe, file, {"epochs": 3})
    assert (config.epochs, config.global_batch_size, config.learning_rate) == (3, 32, 0.1)
    assert config.validation_freq == 1  # the default, where no layer speaks
    assert make_config() == TrainConfig()


def test_fast_dev_run_is_one_short_epoch_whatever_the_layers_say():
    config = make_config({"epochs": 5, "initial_epoch": 2}, {"fast_dev_run": True})
    steps = config_lib.FAST_DEV_RUN_STEPS
    assert (config.epochs, config.initial_epoch) == (1, 0)
    assert (config.steps_per_epoch, config.validation_steps) == (steps, steps)


def choices(*argv):
    return read_choices(argv, prog="train.py", description="Trains.")


def test_flags_win_over_the_file(tmp_path):
    (tmp_path / "c.toml").write_text("epochs = 3\nseed = 7\n")
    argv = ["--config", str(tmp_path / "c.toml"), "--epochs", "4"]
    assert choices(*argv) == {"epochs": 4, "seed": 7}


def test_a_resumed_run_keeps_what_it_was_told(tmp_path):
    config = TrainConfig(model="lstm", epochs=3, seed=7, checkpoint="c.npz", run_dir="elsewhere")
    (tmp_path / "config.json").write_text(json_text(config))
    chosen = choices("--resume", "--run_dir", str(tmp_path), "--epochs", "4")
    assert (chosen["model"], chosen["epochs"], chosen["seed"]) == ("lstm", 4, 7)
    assert (chosen["run_dir"], "checkpoint" in chosen) == (str(tmp_path), False)
    assert make_config(chosen).resume


def test_a_resumed_quick_run_can_be_made_longer(tmp_path):
    (tmp_path / "config.json").write_text(json_text(make_config({"fast_dev_run": True})))
    config = make_config(choices("--resume", "--run_dir", str(tmp_path), "--epochs", "2"))
    assert (config.epochs, config.steps_per_epoch) == (2, config_lib.FAST_DEV_RUN_STEPS)


def test_without_resume_the_folder_is_not_read(tmp_path):
    (tmp_path / "config.json").write_text("nonsense")
    assert choices("--run_dir", str(tmp_path)) == {"run_dir": str(tmp_path)}
