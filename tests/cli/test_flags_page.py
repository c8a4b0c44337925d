"""docs/command_line.md, flags and config files: its commands do what it says."""

import json
import re
import shlex

import pytest

from gradloop.cli.reading import read_config
from tests.cli.runs import ROOT

PAGE = (ROOT / "docs" / "command_line.md").read_text("utf-8")
SECTION = PAGE.partition("\n## Flags and config files\n")[2].partition("\n## ")[0]
BLOCKS = re.findall(r"(?ms)^```\n(.*?)^```", SECTION)
COMMANDS = [line for block in BLOCKS for line in block.splitlines() if "python train.py" in line]


@pytest.fixture(autouse=True)
def fresh_keras():
    """Nothing here runs Keras."""


def run(command, monkeypatch, capsys):
    words = shlex.split(command, comments=True)
    with monkeypatch.context() as patch:
        while "=" in words[0]:
            patch.setenv(*words.pop(0).split("=", 1))
        assert words[:2] == ["python", "train.py"]
        with pytest.raises(SystemExit) as stop:
            read_config(words[2:])
    assert stop.value.code == 0
    return capsys.readouterr().out


def test_each_command_ends_well(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    outputs = [run(command, monkeypatch, capsys) for command in COMMANDS]
    assert len(outputs) >= 6 and all(outputs)
    (flag, variable) = (json.loads(text) for text in outputs[1:3])
    assert flag == variable  # "the same"
    assert (flag["model"], flag["epochs"]) == ("lstm", 3)
    assert list(tmp_path.iterdir()) == []
