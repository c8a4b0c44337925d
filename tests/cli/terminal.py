"""A terminal of a given width: a process writes to it, and a test reads its screen."""

import contextlib
import fcntl
import os
import pty
import re
import select
import struct
import termios
import time

_TOKEN = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])|(.)", re.DOTALL)


def screen(text, num_columns):
    """Returns the lines that a terminal shows after this output."""
    lines, row, column = [[]], 0, 0
    for _, command, char in _TOKEN.findall(text):
        if command == "K":
            del lines[row][column:]
        elif command == "A":
            row -= 1
        elif char == "\r":
            column = 0
        elif char == "\n":
            row += 1
        elif char:
            if column == num_columns:
                row, column = row + 1, 0
            lines.extend([] for _ in range(row + 1 - len(lines)))
            lines[row].extend(" " * (column - len(lines[row])))
            lines[row][column : column + 1] = char
            column += 1
        lines.extend([] for _ in range(row + 1 - len(lines)))
    return ["".join(line).rstrip() for line in lines]


def run_in_terminal(command, num_columns, *, press=None, when="", env=None, limit=100.0):
    """Runs a command in a terminal; returns its exit code and all that it wrote.

    `press` is typed once, when the output has `when`.
    """
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvpe(command[0], command, env or os.environ)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 50, num_columns, 0, 0))
    output, deadline = b"", time.monotonic() + limit
    with contextlib.suppress(OSError):  # the other end is closed
        while time.monotonic() < deadline:
            if not select.select([terminal], [], [], 0.1)[0]:
                continue
            output += os.read(terminal, 1 << 16)
            if press is not None and when.encode() in output:
                os.write(terminal, press)
                press = None
    if time.monotonic() >= deadline:
        os.kill(pid, 9)
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), output.decode()
