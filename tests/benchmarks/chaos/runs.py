"""Small run folders, as a run leaves them behind."""

import json

import numpy as np
import tensorflow as tf

DIGESTS = "step,sha256\n10,aa\n20,bb\n30,cc\n"
TABLE = "step,epoch,kind,loss\n4,0,execution,0.5\n8,0,epoch,0.25\n"


def write_checkpoint(path, *, kernel=(1.0, 2.0), epoch=1):
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = {"progress": {"epoch": epoch, "step": 8}, "tree": {"seconds": 1.5}}
    np.savez(
        path,
        metadata=np.frombuffer(json.dumps(metadata).encode(), np.uint8),
        **{"replica0/model/kernel": np.float32(kernel), "replica0/optimizer/step": np.int64(8)},
    )


def write_run(folder, *, secs=1.0):
    """Times, and the folder's own name, are not the same in two runs."""
    for name in ("ckpt-4.npz", "ckpt-8.npz", "ckpt-12.npz", "best.npz"):
        write_checkpoint(folder / "checkpoints" / name)
    (folder / "digests.csv").write_text(DIGESTS)
    (folder / "metrics.csv").write_text(TABLE)
    (folder / "history.json").write_text(json.dumps({"loss": [0.25]}))
    summary = {"test_accuracy": 0.75, "timing": secs, "file": str(folder / "plots")}
    (folder / "summary.json").write_text(json.dumps(summary))
    with tf.summary.create_file_writer(str(folder / "tensorboard" / "train")).as_default():
        for step in range(3):
            tf.summary.scalar("loss", 1 / (step + 1), step)
    return folder
