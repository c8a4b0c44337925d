"""Trains, evaluates, predicts or compares; `python train.py --help` lists the settings."""

import sys

from gradloop.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
