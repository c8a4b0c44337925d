"""Trains, evaluates, predicts or compares; `python train.py --help` lists the settings."""

import sys

from gradloop.cli.start import start

if __name__ == "__main__":
    sys.exit(start())
