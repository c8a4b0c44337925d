"""The arms of `benchmarks.gpu`: as in benchmarks/arms, and they say how much memory they used."""

from __future__ import annotations

from typing import Any

import tensorflow as tf


class WithDeviceMemory:
    """Goes before an arm's own class: after each run, its settings hold the peak."""

    settings: dict[str, Any]

    def run(self, num_epochs: int) -> float:
        """Trains, and reads the device's own count."""
        loss: float = super().run(num_epochs)  # type: ignore[misc]
        self.settings["device_memory_bytes"] = peak_device_memory()
        return loss


def peak_device_memory() -> int | None:
    """Returns the largest number of bytes in use on any GPU so far, or None without a GPU."""
    peaks = [
        tf.config.experimental.get_memory_info(device.name.removeprefix("/device:"))["peak"]
        for device in tf.config.list_logical_devices("GPU")
    ]
    return max(peaks, default=None)
