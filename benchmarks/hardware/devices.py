"""The device that a benchmark runs on, and its short name."""

from __future__ import annotations

import contextlib
import re

from gradloop.machine import num_cores


def find_gpus() -> list[str]:
    """Returns the names of the GPUs that TensorFlow sees, and leaves them to the arms.

    The process that calls this does not use them: TensorFlow would take all of their memory.
    """
    import tensorflow as tf

    devices = tf.config.list_physical_devices("GPU")
    details = [tf.config.experimental.get_device_details(device) for device in devices]
    with contextlib.suppress(RuntimeError):  # TensorFlow has started already.
        tf.config.set_visible_devices([], "GPU")
    return [str(detail.get("device_name", "gpu")) for detail in details]


def short_name(device: str) -> str:
    """Returns the machine's name in records and files: cpu2, nvidia-h100-80gb-hbm3.

    Args:
      device: "cpu" or "gpu".
    """
    if device == "cpu":
        return f"cpu{num_cores()}"
    gpus = find_gpus()
    return re.sub(r"[^a-z0-9]+", "-", gpus[0].lower()).strip("-") if gpus else "gpu"
