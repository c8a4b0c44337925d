"""docs/command_line.md on pages and pictures: its commands run, and its pictures are there."""

import re

import pytest

from gradloop.cli import main as train
from gradloop.cli.reading import read_config
from tests.cli.pages.folders import make_folder
from tests.cli.runs import ROOT

DOCS = ROOT / "docs"
_, _, SECTION = (DOCS / "command_line.md").read_text("utf-8").partition("## Pages and pictures\n")
COMMANDS = re.findall(r"(?m)^python train.py (.*)$", SECTION)


def test_there_are_commands_and_pictures():
    assert len(COMMANDS) == 4
    pictures = re.findall(r"\]\((images/[^)]*)\)", SECTION)
    assert len(pictures) == 3
    for name in pictures:
        assert (DOCS / name).stat().st_size < 150_000, name


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_does_what_the_page_says(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("first", "second"):
        make_folder(tmp_path / "runs" / name)
    if "--mode predict" in command:
        assert read_config(command.split()).config.mode == "predict"
        return
    assert train.main(command.split()) == 0
    written = {path.name for path in tmp_path.rglob("*.html")}
    assert written == {"report.html" if "--report" in command else "compare.html"}
