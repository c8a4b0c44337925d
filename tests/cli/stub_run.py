"""Stands in for `train.py` in tests of sweeps: the files of a run, without TensorFlow.

The loss is (learning_rate - 0.01)². A learning rate of 1 fails, 2 diverges; 5 waits for SIGINT. A
batch size of 7 is refused in a run that goes on.
"""

import json
import os
import signal
import sys
from pathlib import Path

NAMES = ("learning_rate", "resume", "set", "run_name", "checkpoint", "epochs")


def main(file):
    settings = json.loads(Path(file).read_text())
    folder = Path(settings["run_dir"])
    if settings.get("global_batch_size") == 7 and folder.exists():
        return 2
    folder.mkdir(exist_ok=True)
    with (folder / "command.txt").open("a") as log:
        log.write(json.dumps({name: settings.get(name) for name in NAMES}) + "\n")
    (folder / "config.json").write_text(json.dumps(settings))
    rate = settings["learning_rate"]
    if rate == 5 and not settings.get("resume"):
        return wait(folder)
    if rate == 1:
        (folder / "summary.json").write_text(json.dumps({"status": "failed", "num_steps": 0}))
        return 1
    status = "diverged" if rate == 2 else "completed"
    loss = (rate - 0.01) ** 2
    (folder / "metrics.csv").write_text(
        f"step,epoch,kind,loss,val_loss\n4,0,epoch,9,{loss + 1}\n8,1,epoch,9,{loss}\n"
    )
    summary = {"status": status, "num_steps": 8, "images_per_sec": 100.0, "train_secs": 0.5}
    (folder / "summary.json").write_text(json.dumps(summary))
    print(f"ran with {rate}, GRADLOOP_EPOCHS={os.environ.get('GRADLOOP_EPOCHS')}")
    return status == "diverged"


def wait(folder):
    signal.signal(signal.SIGINT, lambda *args: None)
    (folder / "waits").touch()
    signal.pause()
    (folder / "summary.json").write_text(json.dumps({"status": "interrupted", "num_steps": 3}))
    return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[2]))
