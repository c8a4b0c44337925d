"""What a terminal shows: a bar of any width, whole words, and a clean screen after Ctrl-C."""

import io
import os
import shlex
import signal
import subprocess
import sys
import threading
import time

import pytest

from gradloop import signals
from gradloop.cli import main as train
from gradloop.cli import texts
from gradloop.cli.log import Log
from gradloop.engine.hooks.bar_text import MIN_BAR, bar_format
from tests.cli.runs import QUICK, ROOT, SMALL, read
from tests.cli.terminal import run_in_terminal, screen

WIDTHS = [40, 60, 80, 120]
COMMAND = [sys.executable, str(ROOT / "train.py"), *SMALL]


@pytest.mark.parametrize("num_columns", WIDTHS)
def test_a_bar_is_a_bar_at_any_width(num_columns):
    parts = ["1000/9380", "12,345 images/s", "loss: 0.1234", "accuracy: 0.9876", "00:12 left"]
    text, width = bar_format("Epoch 1/10:  10%", parts, num_columns)
    left, right = text.split("{bar}")
    assert width - len(left) - len(right) >= MIN_BAR
    assert width + len("^C") < num_columns  # what the terminal echoes stays on the line
    shown = [part for part in parts if part in right]
    assert shown == parts[: len(shown)]
    assert len(shown) == {40: 0, 60: 2, 80: 3, 120: 5}[num_columns]


class Terminal(io.StringIO):
    def __init__(self, num_columns):
        super().__init__()
        self.num_columns = num_columns

    def isatty(self):
        return True

    def fileno(self):
        return 1


@pytest.mark.parametrize("num_columns", WIDTHS)
def test_lines_break_between_words(num_columns, monkeypatch):
    monkeypatch.setattr(
        "os.get_terminal_size", lambda descriptor: os.terminal_size((num_columns, 50))
    )
    line = "  time       " + ", ".join(f"{n} % writers/TensorBoardWriter" for n in range(1, 9))
    shown = texts.wrapped(f"{line}\nshort", Terminal(num_columns)).split("\n")
    assert all(len(one) <= num_columns for one in shown)
    assert [word for one in shown for word in one.split()] == [*line.split(), "short"]
    indent = " " * (13 if num_columns >= 60 else 2)  # below the text, where there is room
    assert all(one.startswith(indent) for one in shown[1:-1])
    assert texts.wrapped(line, io.StringIO()) == line


def test_the_screen_of_a_terminal():
    assert screen("one\r\ntwo\rT\x1b[K\nend", 80) == ["one", "T", " end"]
    assert screen("abcdef", 4) == ["abcd", "ef"]


def wait_until(condition, secs=10.0):
    deadline = time.monotonic() + secs
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_first_signal_is_told_at_once_also_while_the_main_thread_is_busy():
    heard = []
    with signals.caught(), signals.listening(signals.note), signals.heard_by(heard.append):
        signal.raise_signal(signal.SIGTERM)
        wait_until(lambda: heard)  # the listener of the main thread does not tell it
        assert heard == [signal.SIGTERM]
    with signals.caught(), signals.listening(signals.note):
        signal.raise_signal(signal.SIGTERM)
    assert heard == [signal.SIGTERM]


def test_an_announcement_replaces_what_the_terminal_shows_of_the_key(monkeypatch, tmp_path):
    terminal = Terminal(80)
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, terminal)
    terminal.write("Epoch 1/2: half a bar^C")
    with Log(tmp_path / "train.log") as log:
        thread = threading.Thread(target=log.announce, args=["heard"])
        thread.start()
        thread.join()
    assert screen(terminal.getvalue(), 80) == ["heard", ""]
    assert (tmp_path / "train.log").read_text() == "heard\n"


def test_a_run_that_is_interrupted_says_so_and_how_to_go_on(tmp_path, monkeypatch, capsys):
    original = train.engine.ProgressBar.on_execution_end

    def strike(hook, info):
        signal.raise_signal(signal.SIGINT)
        return original(hook, info)

    monkeypatch.setattr(train.engine.ProgressBar, "on_execution_end", strike)
    monkeypatch.setattr(sys, "orig_argv", ["python", "train.py", "--epochs", "9"])
    monkeypatch.setattr(sys, "argv", ["train.py", "--epochs", "9"])
    folder = tmp_path / "a run"
    assert train.main([*QUICK, "--run_dir", str(folder)]) == 130
    out, err = capsys.readouterr()
    assert "interrupted: saving ..., Ctrl-C again to end now" in err
    assert out.splitlines()[-1] == f"To go on: python train.py --run_dir '{folder}' --resume"


def test_a_screen_that_nobody_reads_any_more_ends_no_run(tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stream, Log(tmp_path / "train.log", stream) as log:
        for number in range(3):
            log.line(f"line {number}")
    assert (tmp_path / "train.log").read_text() == "line 0\nline 1\nline 2\n"


def test_a_run_that_diverges_says_so_on_stderr(tmp_path, capsys):
    flags = [*QUICK, "--learning_rate", "1e38", "--run_dir", str(tmp_path / "nan")]
    assert train.main(flags) == 1
    (line,) = [x for x in capsys.readouterr().err.splitlines() if "error" in x]
    assert line.startswith("train.py: error: the run has diverged: divergence: loss is")


@pytest.mark.parametrize(
    "num_columns",
    [
        pytest.param(n, marks=pytest.mark.slow if n == 60 else pytest.mark.exhaustive)
        for n in WIDTHS
    ],
)
def test_ctrl_c_leaves_a_clean_screen_and_a_command_that_goes_on(tmp_path, num_columns):
    """A process in a terminal of its own, which echoes the key."""
    folder = tmp_path / "run"
    code, output = run_in_terminal(
        [*COMMAND, "--epochs", "500", "--run_dir", str(folder)], num_columns,
        press=b"\x03", when="Epoch 2/500:  ",
    )  # fmt: skip
    assert code == 130, output
    lines = screen(output, num_columns)
    assert "^C" in output
    assert not [line for line in lines if "^" in line or "|" in line]
    heard = texts.wrapped("interrupted: saving ..., Ctrl-C again to end now", io.StringIO())
    assert heard in " ".join(line.strip() for line in lines)
    text = (folder / "train.log").read_text().splitlines()[-1]
    start, command = text.split(": ", 1)
    assert start == "To go on" and output.split()[-1] == "--resume"
    done = subprocess.run(
        [*shlex.split(command), "--max_time", "1s"], cwd=ROOT, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert read(folder)["status"] == "paused"


@pytest.mark.slow
def test_without_a_terminal_there_are_plain_lines(tmp_path):
    done = subprocess.run(
        [*COMMAND, "--fast_dev_run", "--run_dir", str(tmp_path / "run")],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert not set(done.stdout) & set("\r\x1b\b")
    assert "Epoch 1/1 - 8 steps - " in done.stdout
