"""The arms of `benchmarks.memory_limited`, which train on files that do not fit into memory.

Each first trains on a small file, which traces and starts its threads; from then on its process may
have a share of the large file's size more of private memory, which is what arrays and buffers take.
"""

from __future__ import annotations

import re
import resource
from pathlib import Path
from typing import Any

from benchmarks.race.workloads import Task

SMALL, LARGE = "small.tfrecord", "large.tfrecord"
# Of the size of the large file.
MEMORY_SHARE = 1 / 4


def limit_memory(task: Task) -> dict[str, Any]:
    """Limits the memory of this process from now on; returns what the record says of it."""
    private, resident = (_status(name) for name in ("VmData", "VmRSS"))
    allowed = int((task.directory / LARGE).stat().st_size * MEMORY_SHARE)
    resource.setrlimit(resource.RLIMIT_DATA, (private + allowed, private + allowed))
    return {"resident_bytes_before": resident, "limit_bytes": private + allowed}


def _status(name: str) -> int:
    """Returns a size of this process, in bytes."""
    found = re.search(rf"^{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024
