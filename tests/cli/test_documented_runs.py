"""Commands of the README, and of docs/command_line.md on runs and sweeps: each is taken."""

import json
import re
import shlex

import pytest

from gradloop.cli.flags import make_parser
from gradloop.cli.reading import read_config
from gradloop.cli.sweeps import space
from gradloop.models.registry import MODELS
from tests.cli.runs import ROOT

_, _, REST = (ROOT / "docs" / "command_line.md").read_text("utf-8").partition("## Runs and sweeps")
SECTION = REST.partition("\n## ")[0]
COMMANDS = re.findall(r"^python train\.py (.*)$", SECTION, re.MULTILINE)
README = re.findall(
    r"^python train\.py (.*)$", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE
)


@pytest.fixture(autouse=True)
def fresh_keras():
    """Nothing here touches Keras."""


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_are_taken(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = read_config(shlex.split(command)).config
    if config.mode == "sweep":
        assert len(space.combinations(config)) == (20 if config.search == "random" else 6) or (
            config.run_dir == "my_sweep"
        )


@pytest.mark.parametrize("command", README)
def test_commands_of_the_readme_are_taken(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    flags = shlex.split(command, comments=True)
    if flags[0] in ("--list", "--help"):
        with pytest.raises(SystemExit) as ended:
            read_config(flags)
        assert ended.value.code == 0 and capsys.readouterr().out
    else:
        assert read_config(flags).config.model in MODELS


def test_flags_and_examples_in_the_text_are_real(tmp_path):
    assert len(COMMANDS) == 11
    legal = {f for a in make_parser(prog="", description="")._actions for f in a.option_strings}
    named = set(re.findall(r"--[a-z_]+", re.sub(r"--backend-store-uri", "", SECTION)))
    assert named <= legal, named - legal
    (example,) = re.findall(r'`(\{"mode": "sweep".*?\})`', SECTION)
    assert json.loads(example)["set"]["learning_rate"] == [1e-4, 1e-3]
    for text in re.findall(r"`((?:uniform|log|int|logint)\([^`]*\))`", SECTION):
        flags = ["--search", "random", "--num_runs", "2", "--set", f"learning_rate={text}"]
        assert space.combinations(read_config(["--mode", "sweep", *flags]).config)
