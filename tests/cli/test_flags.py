"""Flags: what they set, what is wrong with others, and what --help lists."""

import dataclasses

import pytest

from gradloop.cli.config import JobConfig
from gradloop.cli.flags import parse_flags


@pytest.fixture(autouse=True)
def fresh_keras():
    """Nothing here touches Keras: no need to reset it for each of these many tests."""


def parse(*argv):
    return parse_flags(argv, prog="train.py", description="Trains.")


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
        (["--tune"], {"mode": "tune"}),
        (["--diagnose-input"], {"mode": "diagnose_input"}),
        (["--mode", "compare"], {"mode": "compare"}),
        (["--no_rescale"], {"rescale": False}),
        (["--no-rescale"], {"rescale": False}),
        (["--rescale", "false"], {"rescale": False}),
        (["--rescale"], {"rescale": True}),
        (["--resume"], {"resume": True}),
        (["--no_resume"], {"resume": False}),
        (["--resume", "auto"], {"resume": "auto"}),
        (["--max_time", "90"], {"max_time": "90"}),
        (["--no_deterministic"], {"deterministic": False}),
        (["--jit_compile", "true"], {"jit_compile": True}),
        (["--jit-compile", "auto"], {"jit_compile": None}),
        (["--steps-per-execution", "auto"], {"steps_per_execution": None}),
        (["--steps-per-execution", "8"], {"steps_per_execution": 8}),
        (["--learning-rate", "1e-3"], {"learning_rate": 0.001}),
        (["--learning_rate", "1"], {"learning_rate": 1.0}),
        (["--validation-freq", "2"], {"validation_freq": 2}),
        (["--validation-freq", "1,3"], {"validation_freq": [1, 3]}),
        (["--seed", "none"], {"seed": None}),
        (["--run-dir", "my-runs/a-b"], {"run_dir": "my-runs/a-b"}),
        (["--run-dir=my-runs/--x"], {"run_dir": "my-runs/--x"}),
        (["--epochs", "3", "--epochs", "4"], {"epochs": 4}),
        (["--rescale", "--no-rescale"], {"rescale": False}),
        (["--tags", "a, b", "--tags=c"], {"tags": ["a", "b", "c"]}),
        (["--config=a.json", "--config", "b.toml"], {"config": ["a.json", "b.toml"]}),
        (
            ["--print-config", "--config", "a-b.toml"],
            {"print_config": True, "config": ["a-b.toml"]},
        ),
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
        (["train"], ["unknown argument 'train'", "Did you mean '--mode train'?"]),
        (["qqqqq"], ["unknown argument 'qqqqq'. --help lists the flags."]),
        (["--tune", "--check"], ["--tune and --check both set mode: leave one of them out"]),
        (["--mode", "train", "--tune"], ["--mode and --tune both set mode"]),
        (["--batch_size", "3", "--global-batch-size=4"], ["both set global_batch_size"]),
        (["--run_dir", ""], ["run_dir='' is empty"]),
        (["--data_dir="], ["data_dir='' is empty"]),
        (["--checkpoint", " "], ["checkpoint=' ' is empty"]),
        (["--precision", "Float32"], ["Did you mean 'float32'?"]),
        (["--strategy", "multi"], ["Did you mean 'multi_worker'?"]),
        (["--epochs", "9" * 5000], ["epochs=9999", "9... must be of type int"]),
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
    for field in dataclasses.fields(JobConfig):
        assert f"--{field.name}" in out
        assert f"{field.metadata['group']}:" in out
    for text in (
        "number of epochs (default: the model's recipe)",
        "examples per step, over all replicas together (default: the model's recipe)",
        "use deterministic ops (default: false)",
        "same as --mode tune: measure what is fastest",
    ):
        assert text in out
    assert "(default: float32)" in out
    assert "--batch_size" in out
