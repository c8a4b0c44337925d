"""This machine: its cores, and the memory of this process alone."""

import subprocess
import sys

import gradloop
from gradloop import machine, usage

PEAK = "from gradloop.machine import peak_memory_bytes; print(peak_memory_bytes())"
LARGE_PARENT = f"""
import subprocess, sys
ballast = bytearray(300 * 2**20)
print(subprocess.run([sys.executable, "-c", {PEAK!r}], capture_output=True, text=True).stdout)
"""


def test_the_peak_is_of_this_process_and_not_of_the_one_that_started_it():
    done = subprocess.run(
        [sys.executable, "-c", LARGE_PARENT], capture_output=True, text=True, check=True
    )
    assert 2**20 < int(done.stdout) < 200 * 2**20


def test_the_peak_grows_with_what_is_used():
    ballast = bytearray(64 * 2**20)
    assert machine.peak_memory_bytes() > len(ballast)
    assert 0 < machine.resident_bytes() <= machine.peak_memory_bytes()


def test_the_modules_for_all_need_no_framework():
    code = (
        "import sys; from gradloop import files, machine, usage; "
        "print([n for n in ('tensorflow', 'keras', 'numpy') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_cache_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert machine.cache_dir() == tmp_path / "gradloop"


def test_hints_do_not_count_case():
    assert usage.did_you_mean("MNIST", ["mnist", "synthetic"]) == " Did you mean 'mnist'?"
    assert usage.did_you_mean("transformer", ["cnn", "dense"]) == ""


def test_the_version_is_there():
    assert gradloop.__version__.count(".") == 2
