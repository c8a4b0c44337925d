"""A trace of TensorFlow's profiler: the threads, and what ran on them and when.

It is read from the `*.xplane.pb` that the profiler writes. TensorFlow ships the format; no package
of TensorBoard's is needed.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

from ..graph_loops import NEXT_SCOPE
from .intervals import Interval

# Name of the step markers.
MARKER = "train"

# An operation is recorded as `its/name:ItsType`; the profiler's own events have "::" or blanks.
_OPERATION = re.compile(r"([^:\s]+):([A-Za-z_]\w*)")
# What loops and calls prepend to the name that an operation has in the step.
_AROUND_STEP = re.compile(
    r"^(?:(?:while|body|cond|then|else|_\d+|(?:Stateful)?PartitionedCall(?:_\d+)?)/)+"
)
_NEXT = re.compile(r"IteratorGetNext\w*::DoCompute")
_NEXT_TYPES = re.compile(r"(?:MultiDevice)?Iterator\w+|Optional\w+")
# Stages that wait for other threads, which work under the names of the stages before them.
_WAITING = re.compile(r"(Root|Prefetch|Generator|Parallel\w*|MapAndBatch\w*)(\[\d+\])?$")
_REGION = "ThreadpoolListener::"


class Event(NamedTuple):
    """Something that ran on a thread.

    Attributes:
      start: In picoseconds.
      end: In picoseconds.
      kind: "op": an operation or a kernel; "stage": a stage of tf.data; "next": a batch is
        requested; "region": a thread of a pool works.
      name: Of an operation: as in the step, without what loops prepend.
      type: Of an operation; else empty.
      is_input: Whether it makes batches, or hands them over.
    """

    start: int
    end: int
    kind: str
    name: str
    type: str = ""
    is_input: bool = False

    @property
    def interval(self) -> Interval:
        """Start and end."""
        return self.start, self.end

    @property
    def is_waiting(self) -> bool:
        """Whether it is a stage of tf.data that, apart from what it calls, waits for a thread."""
        return self.kind == "stage" and bool(_WAITING.search(self.name.split("::")[-1]))


class Line(NamedTuple):
    """A thread of the host, or a stream of a device, with its events in the order of their start.

    Attributes:
      name: Unique; a number follows where the profiler gives a name twice.
      device: "" for a thread of the host, else "GPU:0", ...
      events: Of all kinds.
    """

    name: str
    device: str
    events: tuple[Event, ...]


class Trace(NamedTuple):
    """What the profiler recorded.

    Attributes:
      lines: Threads and streams with at least one event.
      steps: Number of a step to the time of the call that performs it.
      marker_line: Name of the thread that makes the calls.
    """

    lines: tuple[Line, ...]
    steps: dict[int, Interval]
    marker_line: str

    @property
    def window(self) -> Interval:
        """From the start of the first call to the end of the last, and of its work on a GPU."""
        ends = [end for _, end in self.steps.values()]
        ends += [event.end for line in self.lines if line.device for event in line.events]
        return min(start for start, _ in self.steps.values()), max(ends)

    @property
    def device_lines(self) -> tuple[Line, ...]:
        """The lines that compute: those of GPUs if there are any, else the host's."""
        return tuple(line for line in self.lines if line.device) or self.lines


def read_trace(directory: Path) -> Trace:
    """Reads the newest `*.xplane.pb` below a directory.

    Raises:
      ValueError: If there is none, or no step marker in it.
    """
    paths = sorted(directory.rglob("*.xplane.pb"), key=lambda path: path.stat().st_mtime)
    if not paths:
        raise ValueError(f"There is no *.xplane.pb in {directory}: nothing was profiled.")
    return parse_trace(paths[-1].read_bytes())


def parse_trace(data: bytes) -> Trace:
    """Parses the bytes of a `*.xplane.pb`.

    Raises:
      ValueError: If there is no step marker in it.
    """
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    steps: dict[int, Interval] = {}
    lines: list[Line] = []
    counts: dict[str, int] = {}
    marker_line = ""
    for plane in xplane_pb2.XSpace.FromString(data).planes:
        device = plane.name.removeprefix("/device:") if "/device:GPU:" in plane.name else ""
        if not device and plane.name != "/host:CPU":
            continue
        for line in plane.lines:
            if device and not line.name.startswith("Stream"):
                continue  # what tools derive from the streams
            name = f"{device} {line.name}" if device else line.name.split("/")[0]
            name = _unique(name, counts)
            markers, events = _read_line(plane, line, is_gpu=bool(device))
            marker_line = name if markers else marker_line
            steps |= markers
            if events or markers:
                lines.append(Line(name, device, tuple(sorted(events, key=_by_start))))
    if not steps:
        raise ValueError(f"There is no step marker ({MARKER!r}) in the trace.")
    return Trace(tuple(lines), steps, marker_line)


def _by_start(event: Event) -> tuple[int, int]:
    return event.start, -event.end


def _unique(name: str, counts: dict[str, int]) -> str:
    counts[name] = counts.get(name, 0) + 1
    return name if counts[name] == 1 else f"{name} {counts[name]}"


def _read_line(plane: Any, line: Any, *, is_gpu: bool) -> tuple[dict[int, Interval], list[Event]]:
    """Returns the step markers and the events of a line."""
    markers: dict[int, Interval] = {}
    events: list[Event] = []
    region_start: int | None = None
    is_tf_data = line.name.startswith("tf_data_")
    for proto in sorted(line.events, key=lambda proto: proto.offset_ps):
        name = plane.event_metadata[proto.metadata_id].name
        start = line.timestamp_ns * 1000 + proto.offset_ps
        end = start + proto.duration_ps
        if name.startswith(_REGION):
            if name.endswith("StartRegion"):
                region_start = start
            elif name.endswith("StopRegion") and region_start is not None:
                events.append(Event(region_start, start, "region", name))
                region_start = None
        elif name == MARKER and "step_num" in (stats := _stats(plane, proto)):
            markers[int(stats["step_num"])] = (start, end)
        elif event := _read_event(plane, proto, start, is_gpu=is_gpu):
            events.append(event._replace(is_input=event.is_input or is_tf_data))
    return markers, events


def _read_event(plane: Any, proto: Any, start: int, *, is_gpu: bool) -> Event | None:
    name, end = plane.event_metadata[proto.metadata_id].name, start + proto.duration_ps
    if name.startswith("Iterator::"):
        return Event(start, end, "stage", name, is_input=True)
    if _NEXT.fullmatch(name):
        return Event(start, end, "next", name, is_input=True)
    found = _OPERATION.fullmatch(_stats(plane, proto).get("tf_op", name) if is_gpu else name)
    if found:
        short = _AROUND_STEP.sub("", found[1])
        is_input = short.split("/")[0] == NEXT_SCOPE or bool(_NEXT_TYPES.fullmatch(found[2]))
        return Event(start, end, "op", short, found[2], is_input)
    if is_gpu:
        return Event(start, end, "op", name, re.split(r"[<(]", name)[0])
    if "::" not in name and not name.startswith("end: ") and "hlo_op" in _stats(plane, proto):
        return Event(start, end, "op", name, re.sub(r"\.\d+$", "", name))  # XLA's
    return None


def _stats(plane: Any, proto: Any) -> dict[str, Any]:
    stats = {}
    for stat in proto.stats:
        kind = stat.WhichOneof("value")
        value = getattr(stat, kind) if kind else None
        if kind == "ref_value":
            value = plane.stat_metadata[value].name
        stats[plane.stat_metadata[stat.metadata_id].name] = value
    return stats
