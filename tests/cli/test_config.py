"""JobConfig: what is legal, and how files, recipes and flags are layered."""

import dataclasses
import json

import pytest

from gradloop.cli import main, modes
from gradloop.cli.config import FAST_DEV_RUN_STEPS, MODES, JobConfig, choice_key
from gradloop.cli.config_files import read_config_file, read_settings_beside
from gradloop.cli.reading import make_config, may_change, read_config
from gradloop.cli.texts import parse_profile
from gradloop.engine.options import ConfigError
from gradloop.engine.storage import extras
from gradloop.files import json_text


@pytest.fixture(autouse=True)
def fresh_keras(monkeypatch):
    """Nothing here touches Keras: no need to reset it for each of these many tests."""
    monkeypatch.delenv("GRADLOOP_PLOTS")  # of tests/cli/conftest.py: what is chosen is looked at


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
    assert {*modes.MODES, *main.WITHOUT_A_RUN} == set(MODES)


def test_a_choice_depends_on_what_speed_depends_on_and_on_nothing_else():
    key = choice_key(JobConfig())
    assert choice_key(JobConfig(epochs=3, seed=1, run_dir="r", numerics="fast")) == key
    others = {
        "model": "lstm", "global_batch_size": 8, "deterministic": True, "validation_split": 0.1,
        "intra_op_threads": 2, "on_nonfinite": "skip", "precision": "mixed_bfloat16",
    }  # fmt: skip
    for name, value in others.items():
        assert choice_key(JobConfig(**{name: value})) == key | {name: value}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, False),
        ({"dataset": "synthetic", "metrics": ["accuracy"], "optimizer": "adam"}, False),
        ({"model": "nets:build"}, True),
        ({"dataset": "data.csv"}, True),
        ({"metrics": ["accuracy", "own:metric"]}, True),
    ],
)
def test_code_and_data_of_ones_own_may_change(fields, expected):
    assert may_change(JobConfig(**fields)) is expected


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
        ("c.yaml", "epochs: 3\nbatch-size: 8\nrescale: false\n"),
        ("C.YML", "{epochs: 3, batch_size: 8, rescale: False}"),
        ("c.JSON", '\ufeff{"epochs": 3, "batch_size": 8, "rescale": false}'),
    ],
)
def test_files_are_json_toml_or_yaml_and_know_the_aliases(tmp_path, name, text):
    (tmp_path / name).write_text(text, encoding="utf-8")
    values = {"epochs": 3, "global_batch_size": 8, "rescale": False}
    assert read_config_file(tmp_path / name) == values


@pytest.mark.parametrize(
    ("name", "text", "parts"),
    [
        ("c.json", '{"epoch": 3}', ["unknown key 'epoch'", "Did you mean 'epochs'?"]),
        ("c.toml", "[training]\nepochs = 3", ["unknown key 'training'"]),
        ("c.json", "[1, 2]", ["must hold an object"]),
        ("c.json", "{epochs: 3}", ["cannot be read"]),
        ("c.toml", "epochs 3", ["cannot be read as TOML"]),
        ("c.yaml", "epochs: [3", ["cannot be read as YAML"]),
        ("c.yaml", "epochs: 3\nepochs: 4", ["the key 'epochs' is there twice"]),
        ("c.yaml", "rescale: no", ["rescale='no' is not one of: true, false"]),
        ("c.yaml", "epochs: 1:30", ["epochs=1:30 must be of type int"]),
        ("c.yaml", "- epochs", ["must hold an object of fields, not a list"]),
        ("c.yaml", "", ["must hold an object of fields, not a NoneType"]),
        ("c.json", '{"epochs": 3, "epochs": 4}', ["the key 'epochs' is there twice"]),
        ("c.json", '{"set": {"a.b": 1, "a.b": 2}}', ["the key 'a.b' is there twice"]),
        ("c.toml", "epochs = 3\nepochs = 4", ["cannot be read as TOML"]),
        ("c.json", '{"batch_size": 3, "global_batch_size": 3}', ["are the same setting"]),
        ("c.toml", "batch-size = 3\nbatch_size = 3", ["are the same setting"]),
        ("c.json", '{"epochs": "3"}', ["epochs=3 must be of type int", "Write 3."]),
        ("c.json", '{"model": [1]}', ["model=[1] must be of type str"]),
        ("c.json", '{"run_dir": ""}', ["run_dir='' is empty"]),
        ("c.json", '{"run_dir": "a\\u0000b"}', ["holds a null character"]),
        ("c.json", "[" * 100_000, ["too many brackets"]),
        ("c.toml", "epochs = " + "[" * 100_000, ["too many brackets"]),
        ("c.yaml", "[" * 700, ["too many brackets"]),
        ("c.json", '{"epochs": "' + "x" * 10**6 + '"}', ["..."]),
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


YAML = {
    "learning_rate: 1e-3": 0.001,
    "learning_rate: 1.5E+2": 150.0,
    "learning_rate: .5": 0.5,
    "learning_rate: 1": 1,
    "learning_rate: null": None,
    "learning_rate: ~": None,
    "learning_rate:": None,
    "learning_rate: none": None,
    "epochs: 010": 10,
    "epochs: 0x10": 16,
    "epochs: +3": 3,
    "deterministic: TRUE": True,
    "jit_compile: auto": None,
    "model: 'no'": "no",
    "model: on": "on",
    "run_dir: 2026-11-28": "2026-11-28",
    "tags: [no, 'yes', y]": ["no", "yes", "y"],
}


@pytest.mark.parametrize("text", YAML)
def test_yaml_means_what_it_seems_to_mean(tmp_path, text):
    (tmp_path / "c.yaml").write_text(text)
    assert read_config_file(tmp_path / "c.yaml") == {text.split(":")[0]: YAML[text]}


def test_none_can_be_written_where_a_format_has_no_word_for_it(tmp_path):
    (tmp_path / "c.toml").write_text('seed = "none"\ncheckpoint = "none"\njit_compile = "auto"')
    values = {"seed": None, "checkpoint": None, "jit_compile": None}
    assert read_config_file(tmp_path / "c.toml") == values


def test_without_the_library_yaml_is_refused_in_one_line(tmp_path, monkeypatch):
    (tmp_path / "c.yaml").write_text("epochs: 3")
    monkeypatch.setattr(extras.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"c.yaml': yaml is not installed: .*gradloop\[yaml\]"):
        read_config_file(tmp_path / "c.yaml")


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
    return dict(read_config(argv).chosen)


def test_flags_win_over_variables_and_these_over_the_last_file(tmp_path, monkeypatch):
    (tmp_path / "c.toml").write_text("epochs = 3\nseed = 7\nkeep = 7\nprefetch = 7\n")
    (tmp_path / "d.json").write_text('{"seed": 8, "keep": 8, "prefetch": 8}')
    monkeypatch.setenv("GRADLOOP_KEEP", "9")
    monkeypatch.setenv("GRADLOOP_PREFETCH", "9")
    files = [f"--config={tmp_path / name}" for name in ("c.toml", "d.json")]
    assert choices(*files, "--prefetch", "10") == {
        "epochs": 3, "seed": 8, "keep": 9, "prefetch": 10,
    }  # fmt: skip


def test_what_does_not_go_together_says_where_it_comes_from(tmp_path, monkeypatch):
    (tmp_path / "c.toml").write_text("initial_epoch = 7\n")
    monkeypatch.setenv("GRADLOOP_EPOCHS", "3")
    with pytest.raises(ConfigError) as raised:
        read_config(["--config", str(tmp_path / "c.toml")])
    message = str(raised.value)
    assert f"initial_epoch comes from config file '{tmp_path / 'c.toml'}'" in message
    assert "epochs comes from GRADLOOP_EPOCHS" in message
    with pytest.raises(ConfigError, match=r"\(initial_epoch comes from config file '[^']*'\.\)$"):
        read_config(["--config", str(tmp_path / "c.toml"), "--epochs", "3"])


def test_a_resumed_run_keeps_its_settings(tmp_path):
    config = JobConfig(model="lstm", epochs=3, seed=7, checkpoint="c.npz", run_dir="elsewhere")
    (tmp_path / "config.json").write_text(json_text(config))
    chosen = choices("--resume", "--run_dir", str(tmp_path), "--epochs", "4")
    assert (chosen["model"], chosen["epochs"], chosen["seed"]) == ("lstm", 4, 7)
    assert (chosen["run_dir"], "checkpoint" in chosen) == (str(tmp_path), False)
    assert make_config(chosen).resume


def test_settings_of_a_training_may_stand_elsewhere_than_on_the_line_of_an_evaluation(
    tmp_path, monkeypatch
):
    (tmp_path / "config.json").write_text(json_text(JobConfig(epochs=3, on_nonfinite="skip")))
    (tmp_path / "c.toml").write_text("validation_steps = 5")
    monkeypatch.setenv("GRADLOOP_LEARNING_RATE", "0.5")
    for flags in (["--resume", "--run_dir"], ["--checkpoint"]):
        line = ["--mode", "predict", "--config", str(tmp_path / "c.toml"), *flags, str(tmp_path)]
        assert read_config(line).config.learning_rate == 0.5
    sweep = ["--mode", "sweep", "--set", "seed=1,2", "--learning_rate", "1", "--epochs", "2"]
    assert read_config(sweep).config.epochs == 2


def test_a_resumed_quick_run_can_be_made_longer(tmp_path):
    (tmp_path / "config.json").write_text(json_text(make_config({"fast_dev_run": True})))
    config = make_config(choices("--resume", "--run_dir", str(tmp_path), "--epochs", "2"))
    assert (config.epochs, config.steps_per_epoch) == (2, FAST_DEV_RUN_STEPS)


def test_a_checkpoint_is_measured_with_the_arguments_of_what_measures_it(tmp_path):
    arguments = {"model.units": 3, "dataset.n": 4, "loss.x": 5, "step.y": 6, "optimizer.z": 7}
    saved = {"model": "m:build", "dataset": "d:load", "loss": "l:Loss", "set": arguments}
    (tmp_path / "config.json").write_text(json.dumps(saved | {"train_step": "s:step"}))

    def found(**chosen):
        return read_settings_beside({"mode": "predict", "checkpoint": str(tmp_path), **chosen})[
            "set"
        ]

    assert found() == {"model.units": 3, "dataset.n": 4, "loss.x": 5}
    assert found(dataset="mnist", loss="mse", set={"loss.x": 9}) == {"model.units": 3}
    with pytest.raises(ConfigError, match="its weights are of that"):
        found(set={"model.units": 9})


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
