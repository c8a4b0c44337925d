"""Which devices TensorFlow sees. All of the engine asks here, so that tests can fake them."""

from __future__ import annotations

from typing import Any

import tensorflow as tf


def physical(kind: str | None = None) -> list[Any]:
    """Returns the `tf.config.PhysicalDevice`s of a kind, "CPU" or "GPU"; None: all.

    They are what the machine has, also those that `configure_runtime` hides. Does not initialize
    TensorFlow.
    """
    return list(tf.config.list_physical_devices(kind))


def logical(kind: str | None = None) -> list[Any]:
    """Returns the `tf.config.LogicalDevice`s of a kind, "CPU" or "GPU"; None: all.

    They are what operations can be placed on. Initializes TensorFlow: call it after
    `configure_runtime`.
    """
    return list(tf.config.list_logical_devices(kind))


def has_gpu() -> bool:
    """Returns whether operations can be placed on a GPU; see `logical`."""
    return bool(logical("GPU"))
