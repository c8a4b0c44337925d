"""The arms of `benchmarks.gpu`: those of benchmarks/arms, with the device memory that they used."""

from __future__ import annotations

from typing import Any

import tensorflow as tf


class WithDeviceMemory:
    """A mixin, first in the list of base classes: adds the peak after each run to the settings."""

    settings: dict[str, Any]

    def run(self, num_epochs: int) -> float:
        """Trains, reads the peak from the device, and returns the mean training loss."""
        loss: float = super().run(num_epochs)  # type: ignore[misc]
        self.settings["device_memory_bytes"] = peak_device_memory()
        return loss


def peak_device_memory() -> int | None:
    """Returns the peak memory so far of the GPU that used most, in bytes; None without a GPU."""
    peaks = [
        tf.config.experimental.get_memory_info(device.name.removeprefix("/device:"))["peak"]
        for device in tf.config.list_logical_devices("GPU")
    ]
    return max(peaks, default=None)
