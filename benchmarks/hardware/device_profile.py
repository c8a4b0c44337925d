"""How long the devices of a trace did nothing, and how long they exchanged gradients."""

from __future__ import annotations

from gradloop.engine.profiling.summary import summarize
from gradloop.engine.profiling.xplane import Trace


def device_shares(trace: Trace) -> dict[str, dict[str, float]]:
    """Returns for each GPU its shares of the wall time of the traced steps.

    Args:
      trace: Of TensorFlow's profiler, with the streams of GPUs.

    Returns:
      "GPU:0" and so on to `idle_share`: neither a kernel nor a copy ran on any of its streams; and
      `reduce_share`: a collective operation ran, which includes its wait for the other GPUs, and
      which may overlap with other kernels. The wall time is that from the start of the first call
      to the end of the last work of that GPU.

    Raises:
      RuntimeError: If the profiler recorded nothing of a GPU.
    """
    devices = sorted({line.device for line in trace.lines if line.device})
    if not devices:
        raise RuntimeError(
            "the profiler recorded nothing of a GPU: CUPTI is missing, or may not count (see "
            "NVreg_RestrictProfilingToAdminUsers)"
        )
    shares = {}
    for device in devices:
        lines = tuple(line for line in trace.lines if line.device == device)
        summary = summarize(trace._replace(lines=lines), num_replicas=len(devices))
        shares[device] = {
            "idle_share": 1 - summary["wall"]["operations"]["share"],
            "reduce_share": summary["reduce"]["wall_secs"] / summary["window_secs"],
        }
    return shares
