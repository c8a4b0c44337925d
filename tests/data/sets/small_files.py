"""A dataset of four small files, good and bad ones."""

import hashlib
import io
from pathlib import Path

import numpy as np

from gradloop.data.sets import idx
from gradloop.data.sets.idx import Fetched, RawDataset, Source

ROOT = Path(__file__).parents[3]

SMALL = {
    "train-images-idx3-ubyte": (60, 4, 4),
    "train-labels-idx1-ubyte": (60,),
    "t10k-images-idx3-ubyte": (10, 4, 4),
    "t10k-labels-idx1-ubyte": (10,),
}
IMAGES = "train-images-idx3-ubyte"


def make_files(seed=0):
    rng = np.random.default_rng(seed)
    return {n: idx.encode(rng.integers(0, 10, s, np.uint8)) for n, s in SMALL.items()}


def make_spec(*fetches, files=None):
    hashes = {n: hashlib.sha256(b).hexdigest() for n, b in (files or make_files()).items()}
    named = tuple(Source(f"source {i}", fetch) for i, fetch in enumerate(fetches))
    return RawDataset("tiny", hashes, named)


def good(scratch):
    return Fetched(make_files(), scratch)


def fail(scratch):
    raise OSError("no such host")


def write(folder, files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


def names(folder):
    return sorted(p.name for p in folder.iterdir() if p.name != ".lock")


def assert_good(arrays):
    for array, (name, shape) in zip(arrays, SMALL.items(), strict=True):
        assert array.shape == shape
        assert array.dtype == np.uint8
        assert array.flags.writeable  # As those of keras.datasets are.
        assert idx.encode(array) == make_files()[name]


def npz_bytes(**changed):
    arrays = {
        key: np.frombuffer(make_files()[name], np.uint8)[-int(np.prod(SMALL[name])) :]
        for name, key in idx.NPZ_KEYS.items()
    }
    shaped = {k: arrays[k].reshape(SMALL[n]) for n, k in idx.NPZ_KEYS.items()}
    buffer = io.BytesIO()
    np.savez(buffer, **{**shaped, **changed})
    return buffer.getvalue()


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))
