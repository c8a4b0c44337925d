"""The package itself: a version, and modules that serve all and need no framework."""

import subprocess
import sys

import gradloop


def test_the_modules_for_all_need_no_framework():
    code = (
        "import sys; from gradloop import files, machine, usage; "
        "print([n for n in ('tensorflow', 'keras', 'numpy') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_version_is_there():
    assert gradloop.__version__.count(".") == 2
