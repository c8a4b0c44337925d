"""The commands of docs/command_line.md on one's own work, each run as it stands."""

import re
import shlex
import sys

import keras
import pytest

from gradloop.cli import main as train
from tests.cli.runs import ROOT

PAGE = (ROOT / "docs" / "command_line.md").read_text("utf-8")
SECTION = PAGE.split("## Your own code\n")[1].split("\n## ")[0]
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", SECTION, re.DOTALL)
# What makes a command quick; the settings of a run are those of its first start.
QUICK = ["--dataset", "synthetic", "--limit_train_batches", "3", "--validation_steps", "1"]
QUICK += ["--no_tensorboard", "--no_plots"]


@pytest.mark.slow
def test_the_commands_run_as_they_stand(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (source,) = [text for language, text in BLOCKS if language == "python"]
    (tmp_path / "nets.py").write_text(source)
    monkeypatch.setattr(sys, "path", list(sys.path))
    commands = [line for language, text in BLOCKS if not language for line in text.splitlines()]
    assert len(commands) == 10
    for command in commands:
        program, *flags = shlex.split(command)
        assert program == "gradloop"
        keras.utils.clear_session(free_memory=False)
        assert train.main([*flags, *([] if "--mode" in flags else QUICK)]) == 0, command
