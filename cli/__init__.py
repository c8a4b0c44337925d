"""The command line: `python train.py ...`, and `gradloop ...` where it is installed."""
