"""The GPUs of a run: which of them it takes, how much of their memory, and what they are."""

from __future__ import annotations

import contextlib
import ctypes
import subprocess
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from . import devices
from .config import TrainConfig

_QUERY = ("driver_version", "name", "compute_cap", "memory.total", "pci.bus_id")
_SMI_SECS = 20.0


def choose_gpus(config: TrainConfig, gpus: Sequence[Any]) -> list[Any] | None:
    """Returns the GPUs that a run takes; None if the config does not say, and all stay as they are.

    TensorFlow initializes each GPU that it sees, which takes seconds and hundreds of megabytes of
    it, and others may use it.

    Args:
      config: Read: `strategy`, `num_replicas`.
      gpus: All that there are.
    """
    if config.strategy == "one_device":
        return list(gpus[:1])
    if config.strategy == "mirrored":
        return list(gpus[: config.num_replicas])
    return list(gpus) if config.strategy == "multi_worker" else None


def configure_gpus(config: TrainConfig) -> None:
    """Hides the GPUs that a run does not take; the others give it memory as it needs it.

    Raises:
      RuntimeError: If TensorFlow has started with others.
    """
    gpus = devices.physical("GPU")
    visible = tf.config.get_visible_devices("GPU") if gpus else []
    chosen = choose_gpus(config, gpus)
    if chosen is not None and chosen != visible:
        try:
            tf.config.set_visible_devices(chosen, "GPU")
            visible = chosen
        except RuntimeError:  # TensorFlow has started: more than are needed are no harm.
            if not set(chosen) <= set(visible):
                raise
    for gpu in visible:
        if not tf.config.experimental.get_memory_growth(gpu):
            tf.config.experimental.set_memory_growth(gpu, True)


def describe_gpus() -> dict[str, Any]:
    """Returns models, versions and connections of the GPUs; None for what cannot be found.

    The versions of CUDA and cuDNN are those that TensorFlow was built for, the one of NCCL is the
    library's that the process loads; the driver's and the rest come from `nvidia-smi`.
    """
    build = tf.sysconfig.get_build_info()
    rows = _smi(f"--query-gpu={','.join(_QUERY)}", "--format=csv,noheader") or ""
    values = [line.split(", ") for line in rows.splitlines()]
    found = [dict(zip(_QUERY, row, strict=False)) for row in values]
    return {
        "driver": found[0]["driver_version"] if found else None,
        "cuda": build.get("cuda_version"),
        "cudnn": build.get("cudnn_version"),
        "nccl": nccl_version() if devices.physical("GPU") else None,
        "devices": [{k: v for k, v in row.items() if k != "driver_version"} for row in found],
        "topology": _smi("topo", "-m"),
    }


def nccl_version(load: Callable[[str], Any] = ctypes.CDLL) -> str | None:
    """Returns the version of the NCCL library, as 2.27.3; None without one.

    Args:
      load: Loads a shared library.
    """
    number = ctypes.c_int(0)
    with contextlib.suppress(OSError, AttributeError):
        if load("libnccl.so.2").ncclGetVersion(ctypes.byref(number)) == 0:
            # nccl.h: major * 10000 + minor * 100 + patch, since 2.9.
            major, rest = divmod(number.value, 10_000)
            return f"{major}.{rest // 100}.{rest % 100}"
    return None


def _smi(*arguments: str) -> str | None:
    """Returns what `nvidia-smi` prints; None if there is none, or it fails."""
    try:
        return subprocess.run(
            ["nvidia-smi", *arguments],
            capture_output=True, text=True, timeout=_SMI_SECS, check=True,
        ).stdout.strip()  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
