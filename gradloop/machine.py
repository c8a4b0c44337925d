"""This machine and this process: processor, cores, memory, and the user's cache."""

from __future__ import annotations

import contextlib
import os
import platform
import resource
import sys
from pathlib import Path


def processor_name() -> str:
    """Returns the name of the processor, or the architecture if that is unknown.

    With family and model where Linux knows them: in a virtual machine, generations whose speeds and
    instructions differ may share a name.
    """
    found: dict[str, str] = {}
    with contextlib.suppress(OSError):  # Not Linux.
        for line in reversed(Path("/proc/cpuinfo").read_text("utf-8").splitlines()):
            name, _, value = line.partition(":")
            found[name.strip()] = value.strip()
    model = [f"{key.split()[-1]} {found[key]}" for key in ("cpu family", "model") if key in found]
    name = found.get("model name") or platform.processor() or platform.machine()
    return f"{name} ({', '.join(model)})" if model else name


def num_cores() -> int:
    """Returns how many cores this process may use: in a container fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory_bytes() -> int:
    """Returns the size of the machine's memory."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def resident_bytes() -> int | None:
    """Returns the resident memory of this process now; None where only the peak is known."""
    try:
        return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * os.sysconf(
            "SC_PAGE_SIZE"
        )
    except OSError:  # Not Linux.
        return None


def peak_memory_bytes() -> int:
    """Returns the largest resident memory that this process has had."""
    # Linux lets a process inherit ru_maxrss from the one that started it; VmHWM is its own.
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text("utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts in bytes.


def cache_dir() -> Path:
    """Returns gradloop's folder in the user's cache, `$XDG_CACHE_HOME` or `~/.cache`."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "gradloop"
