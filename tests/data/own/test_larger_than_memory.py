"""A set that does not fit into memory trains, and goes on in mid-epoch with equal bits."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

ROOT = Path(__file__).parents[3]
SIDE = 256
SPEC = {
    "features": {
        "image": {"encoding": "raw", "dtype": "uint8", "shape": [SIDE, SIDE, 1]},
        "label": {"dtype": "int64"},
    },
    "x": "image",
    "y": "label",
}


def write(path, num_times):
    """Writes a few records again and again: the file is large, and made in no time."""
    generator = np.random.default_rng(0)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for label in range(4):
            image = generator.integers(0, 64 * (label + 1), (SIDE, SIDE), np.uint8)
            feature = {
                "image": tf.train.Feature(bytes_list=tf.train.BytesList(value=[image.tobytes()])),
                "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
            }
            example = tf.train.Example(features=tf.train.Features(feature=feature))
            writer.write(example.SerializeToString())
    once = path.read_bytes()
    with path.open("wb") as file:
        file.writelines([once] * num_times)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_a_set_four_times_as_large_as_the_memory_trains_and_resumes_with_equal_bits(tmp_path):
    write(tmp_path / "small.tfrecord", 64)
    write(tmp_path / "large.tfrecord", 3000)  # 750 MiB
    (tmp_path / "spec.json").write_text(json.dumps(SPEC))
    script = Path(__file__).with_name("larger_than_memory.py")
    environment = {
        "XDG_CACHE_HOME": str(tmp_path),
        "PYTHONPATH": str(ROOT),
        # With an arena for each of many threads, malloc keeps what was freed, on some processors
        # more than the limit allows.
        "MALLOC_ARENA_MAX": "1",
    }
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path)], env=os.environ | environment,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    whole, resumed, stopped, growth = done.stdout.split()
    assert whole == resumed != stopped
    assert float(growth) < 0.25
