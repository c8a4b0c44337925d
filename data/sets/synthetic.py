"""Random images of any shape for benchmarks, with labels that a model can learn.

Each class has its own pattern of bright and dark pixels, and an image is the pattern of its class
under noise. A dense model learns it within an epoch, so chance accuracy means a bug.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .idx import UInt8Array

# Of 255: so faint that a single pixel tells little, and strong enough that all pixels do.
_PATTERN_STRENGTH = 64
CLASS_NAMES = tuple(str(label) for label in range(10))
CHUNK_BYTES = 64 * 2**20


def load_data(
    shape: Sequence[int] = (28, 28),
    num_classes: int = 10,
    num_train: int = 60_000,
    num_test: int = 10_000,
    seed: int = 0,
) -> tuple[tuple[UInt8Array, UInt8Array], tuple[UInt8Array, UInt8Array]]:
    """Returns the same arrays for the same arguments, on every machine.

    Args:
      shape: Shape of one image, of any rank.
      num_classes: 1 to 256, so that labels are bytes.
      num_train: Number of training images.
      num_test: Number of test images.
      seed: Decides patterns, labels and noise.

    Returns:
      `(x_train, y_train), (x_test, y_test)`, all uint8, of shapes `(num, *shape)` and `(num,)`.

    Raises:
      ValueError: If a size is not positive, or there are more than 256 classes.

    Example:
      >>> (x_train, y_train), _ = data.synthetic.load_data(shape=(8, 8), num_train=100, num_test=1)
      >>> x_train.shape, y_train.shape
      ((100, 8, 8), (100,))
    """
    sizes = {"num_train": num_train, "num_test": num_test}
    for name, value in {**sizes, **{f"shape[{i}]": dim for i, dim in enumerate(shape)}}.items():
        if value < 1:
            raise ValueError(f"{name}: expected 1 or more, got {value}")
    if not 1 <= num_classes <= 256:
        raise ValueError(f"num_classes: expected 1 to 256, got {num_classes}")
    # One random stream per part, so that another num_train leaves the test images as they are.
    for_patterns, for_train, for_test = np.random.SeedSequence(seed).spawn(3)
    bits = np.random.default_rng(for_patterns).integers(0, 2, (num_classes, *shape), np.uint8)
    patterns = bits * np.uint8(_PATTERN_STRENGTH)
    return _sample(patterns, num_train, for_train), _sample(patterns, num_test, for_test)


def _sample(
    patterns: UInt8Array, num: int, seed: np.random.SeedSequence
) -> tuple[UInt8Array, UInt8Array]:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, len(patterns), num, np.uint8)
    x = np.empty((num, *patterns.shape[1:]), np.uint8)
    # In chunks, so that millions of images need hardly more memory than their own.
    chunk = max(1, CHUNK_BYTES // patterns[0].nbytes)
    for start in range(0, num, chunk):
        part = x[start : start + chunk]
        noise = np.frombuffer(rng.bytes(part.size), np.uint8).reshape(part.shape)
        # Noise up to 190 and a pattern of at most 64 stay within a byte.
        np.add((noise >> 2) * np.uint8(3), patterns[y[start : start + chunk]], out=part)
    return x, y
