# PYTHON_ARGCOMPLETE_OK: argcomplete, which completes flags in a shell, looks for this line.
"""Trains, evaluates, predicts or compares; `python train.py --help` lists the settings."""

import sys

from gradloop.cli.start import start

if __name__ == "__main__":
    sys.exit(start())
