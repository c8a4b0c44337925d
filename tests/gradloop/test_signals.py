"""Signals: the first one is told or raised, the second one ends the process at once."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from gradloop import signals

ROOT = Path(__file__).parents[2]
BOTH = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
# No bytecode runs meanwhile, and so no handler of Python's: like a long call of TensorFlow's.
LONG_CALL = "hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)"


@pytest.fixture(autouse=True)
def fresh_keras():
    """Nothing here touches Keras."""


def start(*lines):
    """Starts a process that runs these lines; returns it when it has printed its first line."""
    code = "import hashlib, os, signal, time\nfrom gradloop import signals\n" + "\n".join(lines)
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"},
    )  # fmt: skip
    assert process.stdout.readline() == "ready\n", process.stderr.read()
    return process


def end(process, secs=10):
    out, err = process.communicate(timeout=secs)
    return process.returncode, out, err


@BOTH
def test_without_a_listener_the_first_is_raised_with_its_number(number):
    before = time.monotonic()
    with signals.caught():
        assert (signals.number(), signals.received_at()) == (None, None)
        with pytest.raises(signals.Interruption) as raised:
            signal.raise_signal(number)
        assert raised.value.signal_number == signals.number() == number
        assert before <= signals.received_at() <= time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            signals.check()
    signals.check()  # what came belongs to that block


def test_the_innermost_listener_is_told_once_and_nothing_is_raised():
    told = []
    with signals.listening(lambda number: told.append(("outer", number))):
        with signals.listening(lambda number: told.append(("inner", number))):
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGTERM)  # at the same time: still the first one
        assert told == [("inner", signal.SIGTERM)]
        with signals.listening(lambda number: told.append(("later", number))):
            assert told[1:] == [("later", signal.SIGTERM)]  # of what came before
        with pytest.raises(signals.Interruption), signals.listening(signals.interrupt):
            raise AssertionError("it is told before the block begins")


def test_a_listener_that_has_ended_is_not_in_the_way_of_the_one_outside():
    with signals.caught(), signals.listening(signals.note):
        with signals.listening(signals.interrupt):
            pass
        signal.raise_signal(signal.SIGTERM)


def test_handlers_and_wakeup_descriptor_come_back_also_after_an_error():
    read_end, write_end = socket.socketpair()
    write_end.setblocking(False)
    signal.set_wakeup_fd(write_end.fileno())
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]
    num_threads = threading.active_count()
    try:
        with pytest.raises(ZeroDivisionError), signals.caught(), signals.caught():
            assert [signal.getsignal(number) for number in numbers] != before
            signal.signal(signal.SIGUSR1, lambda number, frame: None)
            signal.raise_signal(signal.SIGUSR1)
            read_end.settimeout(5)
            assert read_end.recv(1) == bytes([signal.SIGUSR1])  # the event loop's own ones
            raise ZeroDivisionError
        assert [signal.getsignal(number) for number in numbers] == before
        assert threading.active_count() == num_threads
    finally:
        assert signal.set_wakeup_fd(-1) == write_end.fileno()
        signal.signal(signal.SIGUSR1, signal.SIG_DFL)
        read_end.close()
        write_end.close()


def test_another_thread_cannot_catch_but_listens_where_they_are_caught():
    found = []

    def catch():
        try:
            with signals.listening(signals.note):
                found.append("listens")
        except ValueError as error:
            found.append(str(error))

    for is_caught in (False, True):
        thread = threading.Thread(target=catch)
        with signals.caught() if is_caught else threading.Lock():
            thread.start()
            thread.join()
    assert "main thread alone" in found[0] and "leave StopOnSignal out" in found[0]
    assert found[1:] == ["listens"]


@BOTH
def test_a_second_one_ends_the_process_at_once_within_a_long_call(number):
    process = start(
        "with signals.listening(signals.note):",
        "    print('not flushed', end='')",
        "    os.write(1, b'ready\\n')",  # past the stream, which keeps what it has
        f"    {LONG_CALL}",
    )
    process.send_signal(number)
    time.sleep(signals.SAME_SECS / 5)
    process.send_signal(number)  # `timeout` sends it twice: one signal
    time.sleep(2 * signals.SAME_SECS)
    assert process.poll() is None
    process.send_signal(number)
    sent_at = time.monotonic()
    code, out, err = end(process)
    assert time.monotonic() - sent_at < 5
    assert (code, out) == (128 + number, "not flushed")
    assert err == f"\ngradloop: ended at once by a second signal, {number.name}\n"


def test_what_is_ignored_stays_ignored():
    process = start(
        "signal.signal(signal.SIGINT, signal.SIG_IGN)",
        "with signals.caught():",
        "    print('ready', flush=True)",
        "    time.sleep(0.5)",
        "    print(signals.number(), signal.getsignal(signal.SIGINT).name)",
    )
    process.send_signal(signal.SIGINT)
    assert end(process) == (0, "None SIG_IGN\n", "")


def test_a_process_at_its_end_can_ignore_them():
    process = start(
        "with signals.caught():",
        "    signals.ignore()",
        "print('ready', flush=True)",
        "time.sleep(0.5)",
    )
    for number in (signal.SIGINT, signal.SIGTERM):
        process.send_signal(number)
    assert end(process) == (0, "", "")


def test_a_signal_to_a_forked_process_is_its_own():
    """A terminal sends Ctrl-C to all: with the data's workers, it would look like several."""
    process = start(
        "import warnings",
        "warnings.simplefilter('ignore')  # of Python 3.12: the process has threads",
        "told = []",
        "with signals.listening(told.append):",
        "    child = os.fork()",
        "    if child == 0:",
        "        signal.signal(signal.SIGTERM, lambda number, frame: os._exit(3))",
        "        print('ready', flush=True)",
        "        time.sleep(20)",
        "    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), told, signals.number())",
    )
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    if not children.exists():
        pytest.skip("this system does not list the children of a process")
    os.kill(int(children.read_text().split()[0]), signal.SIGTERM)
    assert end(process) == (0, "3 [] None\n", "")
