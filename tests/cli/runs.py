"""Quick runs, and what they leave behind."""

import json
from pathlib import Path

ROOT = Path(__file__).parents[2]
SMALL = ["--model", "dense", "--dataset", "synthetic"]
QUICK = [*SMALL, "--fast_dev_run"]
SUMMARY_KEYS = {
    "test_accuracy", "history", "images_per_sec", "num_steps", "num_traces", "peak_memory_bytes",
    "exit_reason", "weights_sha256", "traces", "timing", "memory",
}  # fmt: skip


def contents(folder):
    return {path: path.is_file() and path.read_bytes() for path in folder.rglob("*")}


def read(folder, name="summary.json"):
    return json.loads((folder / name).read_text())
