"""The process of an arm: what it imports before the arm does."""

import subprocess
import sys

from benchmarks import ROOT


def test_a_worker_imports_no_framework():
    code = (
        "import sys, benchmarks.race.worker, gradloop.machine; "
        "print(sorted({'keras', 'tensorflow', 'torch', 'jax'} & sys.modules.keys()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
