"""What takes too long ends the process, whatever it is stuck in, and says where it stands."""

import subprocess
import sys
import textwrap
import threading
import time

from gradloop import deadline

PROGRAM = """
import threading, time
from gradloop import deadline

def wait(lock):
    lock.acquire()
    lock.acquire()

with deadline.{name}({secs}, "it hangs.", 75):
    {body}
print("done")
"""


def run(body, secs=0.3, name="within"):
    program = textwrap.dedent(PROGRAM).format(secs=secs, body=body, name=name)
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=30
    )
    return done, time.monotonic() - began


def test_a_block_that_hangs_ends_the_process_with_its_stack():
    # A lock is waited for in C: no Python handler of a signal would run.
    done, secs = run("wait(threading.Lock())")
    assert done.returncode == 75 and secs < 10
    assert done.stderr.startswith("gradloop: it hangs. All threads:\n")
    assert "in wait" in done.stderr


# Python's lock is held in the call.
HELD = "import ctypes; ctypes.PyDLL(None).sleep(20)"


def test_a_call_that_holds_pythons_lock_ends_in_time():
    done, secs = run(HELD, name="within_c")
    assert done.returncode == 75 and secs < 10
    line, stacks = done.stderr.split("\n", 1)
    assert line.endswith(": it hangs.")
    assert "most recent call first" in stacks and '"<string>", line' in stacks


def test_after_the_block_no_timer_is_left():
    done, _ = run("pass\ntime.sleep(2)", name="within_c")
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


def test_a_block_that_ends_in_time_is_left_alone():
    done, _ = run("pass\ntime.sleep(0.6)")
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


def test_an_event_in_time_is_not_a_limit_that_passed():
    ended = threading.Event()
    assert deadline.passes(0.05, ended)
    ended.set()
    assert not deadline.passes(60, ended)
