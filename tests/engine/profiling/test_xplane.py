"""Traces: what is read from a profiler's file."""

import pytest
from tensorflow.tsl.profiler.protobuf import xplane_pb2

from gradloop.engine.profiling.xplane import Event, parse_trace, read_trace


def make_trace(lines, plane="/host:CPU", space=None):
    """Returns an XSpace; an event is (name, start, end, stats) in picoseconds."""
    space = space or xplane_pb2.XSpace()
    proto = space.planes.add(name=plane)
    ids = {}

    def metadata(kind, name):
        key = ids.setdefault((kind, name), len(ids) + 1)
        getattr(proto, kind)[key].id = key
        getattr(proto, kind)[key].name = name
        return key

    for name, events in lines.items():
        line = proto.lines.add(name=name, timestamp_ns=1)
        for text, start, end, *stats in events:
            event = line.events.add(
                metadata_id=metadata("event_metadata", text),
                offset_ps=start,
                duration_ps=end - start,
            )
            for key, value in (stats[0] if stats else {}).items():
                stat = event.stats.add(metadata_id=metadata("stat_metadata", key))
                if isinstance(value, int):
                    stat.int64_value = value
                else:
                    stat.ref_value = metadata("stat_metadata", value)
    return space


def parse(lines, **more):
    return parse_trace(make_trace(lines, **more).SerializeToString())


def marker(step, start, end):
    return ("train", start, end, {"step_num": step, "_r": 1})


def test_events_are_distinguished_and_named_as_in_the_step():
    trace = parse(
        {
            "python": [marker(3, 0, 100), ("_trace", 1, 99), ("train", 5, 6)],
            "tf_Compute/-12": [
                ("ExecutorState::Process", 0, 90),
                ("while/body/_1/while/StatefulPartitionedCall/net/MatMul:_MklMatMul", 10, 20),
                ("while/body/_1/while/next_batch/GatherV2:GatherV2", 30, 40),
                ("OptionalGetValue:OptionalGetValue", 50, 60),
                ("EagerLocalExecute: __inference_f", 61, 62),
            ],
            "tf_Compute/99": [
                ("fusion.12", 0, 5, {"hlo_op": "fusion.12"}),
                ("end: fusion.12", 5, 6),
            ],
            "tf_data_private_threadpool/7": [("MatMul:MatMul", 0, 5)],
            "idle": [("Other::Thing", 0, 5)],
        }
    )
    assert trace.steps == {3: (1000, 1100)} and trace.marker_line == "python"
    lines = {line.name: line.events for line in trace.lines}
    assert list(lines) == ["python", "tf_Compute", "tf_Compute 2", "tf_data_private_threadpool"]
    assert lines["tf_Compute"] == (
        Event(1010, 1020, "op", "net/MatMul", "_MklMatMul"),
        Event(1030, 1040, "op", "next_batch/GatherV2", "GatherV2", is_input=True),
        Event(1050, 1060, "op", "OptionalGetValue", "OptionalGetValue", is_input=True),
    )
    assert lines["tf_Compute 2"] == (Event(1000, 1005, "op", "fusion.12", "fusion"),)
    assert lines["tf_data_private_threadpool"][0].is_input


def test_threads_of_a_pool_work_between_its_start_and_stop_events():
    names = ("Stop", "Start", "Stop", "Start")  # begun before the trace; not ended in it
    events = [(f"ThreadpoolListener::{n}Region", 10 * i, 10 * i) for i, n in enumerate(names)]
    trace = parse(
        {"python": [marker(1, 0, 99)], "pool": [*events, ("ThreadpoolListener::Record", 5, 5)]}
    )
    (region,) = trace.lines[1].events
    assert (region.kind, region.interval) == ("region", (1010, 1020))


@pytest.mark.parametrize(
    ("name", "is_waiting"),
    [
        ("Iterator::Root", True),
        ("Iterator::Root::Prefetch", True),
        ("Iterator::Root::Prefetch::ParallelMapV2[3]", True),
        ("Iterator::Root::Prefetch::Map", False),
        ("Iterator::Root::Prefetch::FlatMap[0]::Zip[1]::ForeverRepeat", False),
    ],
)
def test_stages_that_only_wait_are_known(name, is_waiting):
    trace = parse({"python": [marker(1, 0, 99)], "tf_data": [(name, 1, 2)]})
    (event,) = trace.lines[1].events
    assert (event.kind, event.is_input, event.is_waiting) == ("stage", True, is_waiting)


def test_of_a_gpu_only_the_streams_are_read_and_not_what_tools_derive_from_them():
    space = make_trace({"python": [marker(1, 0, 50)], "tf_Compute/1": [("a/MatMul:MatMul", 0, 5)]})
    streams = {
        "Stream #13(Compute)": [
            ("void gemm<float>(int)", 10, 90, {"tf_op": "while/body/_1/while/net/MatMul:MatMul"}),
            ("ncclDevKernel_AllReduce(args)", 90, 120),
        ],
        "TensorFlow Ops": [("MatMul", 10, 90)],
    }
    trace = parse(streams, plane="/device:GPU:0", space=space)
    (stream,) = trace.device_lines
    assert (stream.name, stream.device) == ("GPU:0 Stream #13(Compute)", "GPU:0")
    assert [(e.name, e.type) for e in stream.events] == [
        ("net/MatMul", "MatMul"),
        ("ncclDevKernel_AllReduce(args)", "ncclDevKernel_AllReduce"),
    ]
    # The GPU works on when the call has returned.
    assert trace.window == (1000, 1120)


def test_a_step_that_was_called_twice_counts_once():
    """The first call found that the data had ended."""
    trace = parse({"python": [marker(1, 0, 10), marker(2, 20, 21), marker(2, 30, 40)]})
    assert trace.steps == {1: (1000, 1010), 2: (1030, 1040)}


def test_a_trace_without_a_step_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no step marker"):
        parse({"python": [("train", 0, 1)]})
    with pytest.raises(ValueError, match="nothing was profiled"):
        read_trace(tmp_path)
