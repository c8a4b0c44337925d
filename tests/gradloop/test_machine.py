"""This machine: its cores, and the memory of this process alone."""

import os
import platform
import re
import subprocess
import sys

import pytest

from gradloop import machine

MIB = 2**20
PEAK = "from gradloop.machine import peak_memory_bytes; print(peak_memory_bytes())"
LARGE_PARENT = f"""
import subprocess, sys
from gradloop.machine import peak_memory_bytes
ballast = bytearray(300 * {MIB})
print(peak_memory_bytes())
child = subprocess.run([sys.executable, "-c", {PEAK!r}], capture_output=True, text=True, check=True)
print(child.stdout)
"""
FREED = f"""
from gradloop.machine import peak_memory_bytes, resident_bytes
start = peak_memory_bytes()
ballast = bytearray(100 * {MIB})
del ballast
print(start, peak_memory_bytes(), resident_bytes())
"""


def run(code):
    """Returns the numbers that a new process prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return [int(word) for word in done.stdout.split()]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_peak_is_of_this_process_and_not_of_the_one_that_started_it():
    parent, child = run(LARGE_PARENT)
    assert parent > 300 * MIB
    assert MIB < child < 200 * MIB


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_peak_stays_when_memory_is_freed():
    start, peak, now = run(FREED)
    assert peak - start > 95 * MIB
    assert 0 < now < peak - 50 * MIB


def test_cores_are_those_that_this_process_may_use(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 3, 7}, raising=False)
    assert machine.num_cores() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 5)
    assert machine.num_cores() == 5


def test_the_processor_has_a_name_and_the_machine_more_memory_than_this_process():
    name = machine.processor_name()
    assert name
    if sys.platform == "linux" and platform.machine() == "x86_64":
        assert re.search(r"\(family \d+, model \d+\)$", name)
    assert machine.memory_bytes() > machine.peak_memory_bytes()


def test_the_cache_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert machine.cache_dir() == tmp_path / "cache" / "gradloop"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert machine.cache_dir() == tmp_path / ".cache" / "gradloop"
