"""JobConfig: what is legal, and how files, recipes and flags are layered."""

import dataclasses
import json

import pytest

from gradloop.cli import modes
from gradloop.cli.config import FAST_DEV_RUN_STEPS, MODES, JobConfig, choice_key
from gradloop.cli.config_files import read_config_file
from gradloop.cli.reading import make_config, read_choices
from gradloop.cli.texts import parse_profile
from gradloop.engine.options import ConfigError
from gradloop.files import json_text


@pytest.fixture(autouse=True)
def fresh_keras():
    """Nothing here touches Keras: no need to reset it for each of these many tests."""


@pytest.mark.parametrize(
    ("fields", "parts"),
    [
        ({"mode": "eval"}, ["mode='eval'", "train, evaluate, predict, compare"]),
        ({"mode": "trian"}, ["Did you mean 'train'?"]),
        ({"global_batch_size": None}, ["global_batch_size=none", "type int"]),
        ({"num_replicas": 2}, ["num_replicas=2", "strategy='default'", "strategy='mirrored'"]),
        ({"prefetch": 0}, ["prefetch=0", "1 or more"]),
        ({"mode": "tune", "checkpoint": "x"}, ["mode='tune'", "new weights"]),
        ({"learning_rate": 0}, ["learning_rate=0", "above 0"]),
        ({"learning_rate": float("nan")}, ["learning_rate=nan"]),
        ({"learning_rate": float("inf")}, ["learning_rate=inf"]),
        ({"learning_rate": "fast"}, ["learning_rate=fast", "float or none"]),
        ({"rescale": "maybe"}, ["rescale='maybe'", "true, false"]),
        ({"resume": True}, ["resume", "run_dir"]),
        ({"resume": True, "run_dir": "r", "checkpoint": "c.npz"}, ["'c.npz'", "choose one"]),
        ({"mode": "compare", "checkpoint": "c.npz"}, ["mode='compare'", "checkpoint"]),
        ({"mode": "compare", "resume": True, "run_dir": "r"}, ["mode='compare'", "resume"]),
        ({"mode": "evaluate"}, ["mode='evaluate'", "--checkpoint FILE", "--resume"]),
        ({"mode": "evaluate", "checkpoint": "c", "profile": "1,2"}, ["mode='evaluate'", "profile"]),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_illegal_values_are_named_in_one_line_with_the_legal_ones(fields, parts):
    with pytest.raises(ConfigError) as raised:
        JobConfig(**fields)
    message = str(raised.value)
    assert "\n" not in message
    assert [part for part in parts if part not in message] == [], message


def test_every_mode_that_is_legal_is_one_that_a_job_has():
    assert {*modes.MODES, "check"} == set(MODES)  # of which there is no run


def test_a_choice_depends_on_what_speed_depends_on_and_on_nothing_else():
    key = choice_key(JobConfig())
    assert choice_key(JobConfig(epochs=3, seed=1, run_dir="r", numerics="fast")) == key
    for name, value in {"model": "lstm", "global_batch_size": 8, "deterministic": True}.items():
        assert choice_key(JobConfig(**{name: value})) == key | {name: value}


def test_json_round_trip(tmp_path):
    config = JobConfig(epochs=7, jit_compile=False, learning_rate=0.1, steps_per_execution=32)
    path = tmp_path / "config.json"
    path.write_text(json_text(config, indent=2))
    assert make_config(read_config_file(path)) == config
    assert set(json.loads(path.read_text())) == {f.name for f in dataclasses.fields(JobConfig)}


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
    assert make_config() == JobConfig()


def test_fast_dev_run_is_one_short_epoch_whatever_the_layers_say():
    config = make_config({"epochs": 5, "initial_epoch": 2}, {"fast_dev_run": True})
    steps = FAST_DEV_RUN_STEPS
    assert (config.epochs, config.initial_epoch) == (1, 0)
    assert (config.steps_per_epoch, config.validation_steps) == (steps, steps)


def choices(*argv):
    return read_choices(argv, prog="train.py", description="Trains.")


def test_flags_win_over_the_file(tmp_path):
    (tmp_path / "c.toml").write_text("epochs = 3\nseed = 7\n")
    argv = ["--config", str(tmp_path / "c.toml"), "--epochs", "4"]
    assert choices(*argv) == {"epochs": 4, "seed": 7}


def test_a_resumed_run_keeps_its_settings(tmp_path):
    config = JobConfig(model="lstm", epochs=3, seed=7, checkpoint="c.npz", run_dir="elsewhere")
    (tmp_path / "config.json").write_text(json_text(config))
    chosen = choices("--resume", "--run_dir", str(tmp_path), "--epochs", "4")
    assert (chosen["model"], chosen["epochs"], chosen["seed"]) == ("lstm", 4, 7)
    assert (chosen["run_dir"], "checkpoint" in chosen) == (str(tmp_path), False)
    assert make_config(chosen).resume


def test_a_resumed_quick_run_can_be_made_longer(tmp_path):
    (tmp_path / "config.json").write_text(json_text(make_config({"fast_dev_run": True})))
    config = make_config(choices("--resume", "--run_dir", str(tmp_path), "--epochs", "2"))
    assert (config.epochs, config.steps_per_epoch) == (2, FAST_DEV_RUN_STEPS)


def test_without_resume_the_folder_is_not_read(tmp_path):
    (tmp_path / "config.json").write_text("nonsense")
    assert choices("--run_dir", str(tmp_path)) == {"run_dir": str(tmp_path)}


def test_the_steps_to_profile_are_read_strictly():
    assert parse_profile("20,40") == (20, 40)
    assert parse_profile(" 7 , 7 ", 7) == (7, 7)
    for text in ("x,3", "5,2", "0,2", "3", "1,2,3", "-1,4", "1.5,2", ""):
        with pytest.raises(ConfigError, match=r"must be A,B.*20,40"):
            parse_profile(text)
    with pytest.raises(ConfigError, match="this run has 8 steps: name steps from 1 to 8"):
        parse_profile("3,9", 8)
