"""Summaries of traces: sums worked by hand, and two traces that were recorded."""

import pytest

from gradloop.engine.profiling.intervals import innermost, total, union
from gradloop.engine.profiling.summary import summarize
from gradloop.engine.profiling.xplane import Event, Line, Trace

MSEC = 10**9  # in picoseconds


def op(start, end, name="net/MatMul", type_="MatMul", **more):
    return Event(start * MSEC, end * MSEC, "op", name, type_, **more)


def by_hand():
    """Two steps of 10 ms, 2 ms apart; two threads."""
    steps = {5: (0, 10 * MSEC), 6: (12 * MSEC, 22 * MSEC)}
    first = (
        op(-5, 0, "before"),  # all of it outside the window
        op(1, 4, "next_batch/Gather", "GatherV2", is_input=True),
        op(4, 9),
        op(5, 6, "net/Add", "AddN"),  # inside the one before
        op(13, 21),
        op(21, 30, "after"),  # 1 ms within
    )
    second = (
        op(3, 5, "net/Add", "AddN"),
        Event(14 * MSEC, 20 * MSEC, "region", "ThreadpoolListener::"),
    )
    lines = (
        Line("python", "", ()),
        Line("tf_Compute", "", first),
        Line("tf_Compute 2", "", second),
    )
    return Trace(lines, steps, "python")


def secs(rows, **chosen):
    found = [r for r in rows if all(r[key] == value for key, value in chosen.items())]
    return round(sum(row["secs"] for row in found), 9)


def test_the_wall_time_is_split_as_by_hand():
    summary = summarize(by_hand())
    assert (summary["first_step"], summary["last_step"], summary["num_steps"]) == (5, 6, 2)
    assert summary["window_secs"] == pytest.approx(0.022)
    assert summary["step_secs"] == pytest.approx(0.012)
    assert summary["call_secs"] == pytest.approx(0.010)
    parts = {name: round(part["secs"], 9) for name, part in summary["wall"].items()}
    assert parts == {
        "operations": 0.017,  # 1 to 9 and 13 to 22
        "call_starts": 0.002,
        "gaps_in_calls": 0.001,  # 9 to 10
        "between_calls": 0.002,
    }
    gaps = [(round(g["secs"], 9), g["step"], round(g["after_secs"], 9)) for g in summary["gaps"]]
    assert gaps == [(0.004, 5, 0.009), (0.001, 5, 0.0)]


def test_the_time_of_an_operation_is_its_own():
    summary = summarize(by_hand())
    assert secs(summary["types"], type="MatMul") == 0.013  # 4 + 8, and 1 of "after"
    assert secs(summary["operations"], name="net/MatMul") == 0.012
    assert secs(summary["types"], type="AddN") == 0.003
    (add,) = [row for row in summary["operations"] if row["type"] == "AddN"]
    assert (add["name"], add["count"], add["category"]) == ("net/Add", 2, "compute")
    assert sum(row["share"] for row in summary["operations"]) == pytest.approx(1)
    assert "before" not in [row["name"] for row in summary["operations"]]


def test_input_and_reduce_are_found():
    summary = summarize(by_hand(), num_replicas=2)
    assert summary["input"] == {
        "made_in_graph": True, "work_secs": pytest.approx(0.003), "next_secs": pytest.approx(0.003),
    }  # fmt: skip
    assert summary["reduce"] == {
        "count": 2, "secs": pytest.approx(0.003), "wall_secs": pytest.approx(0.003),
    }  # fmt: skip
    assert secs(summary["categories"], category="reduce") == 0.003
    assert summarize(by_hand(), num_replicas=1)["reduce"]["count"] == 0


def test_threads_are_busy_with_operations_and_with_parts_of_them():
    threads = {row["name"]: row for row in summarize(by_hand())["threads"]}
    assert threads["python"]["busy_secs"] == pytest.approx(0.020)
    assert threads["tf_Compute"]["operations_secs"] == pytest.approx(0.017)
    assert threads["tf_Compute 2"]["operations_secs"] == pytest.approx(0.002)
    assert threads["tf_Compute 2"]["busy_secs"] == pytest.approx(0.008)
    assert threads["tf_Compute 2"]["idle_share"] == pytest.approx(1 - 8 / 22)


def test_waiting_for_data_is_not_work():
    """A stage that waits for 6 ms, while another thread works for 2 ms of them."""
    lines = (
        Line("python", "", ()),
        Line("tf_data_next", "", (
            Event(1 * MSEC, 8 * MSEC, "next", "IteratorGetNextOp::DoCompute", "", True),
            Event(2 * MSEC, 8 * MSEC, "stage", "Iterator::Root::Prefetch", "", True),
        )),
        Line("tf_data_map", "", (
            Event(3 * MSEC, 5 * MSEC, "stage", "Iterator::Root::Prefetch::Map", "", True),
        )),
        Line("tf_Compute", "", (op(8, 9),)),
    )  # fmt: skip
    summary = summarize(Trace(lines, {1: (0, 10 * MSEC)}, "python"))
    assert summary["input"] == {
        "made_in_graph": False, "work_secs": pytest.approx(0.002),
        "next_secs": pytest.approx(0.007),
    }  # fmt: skip
    busy = {row["name"]: round(row["busy_secs"], 9) for row in summary["threads"]}
    assert (busy["tf_data_next"], busy["tf_data_map"]) == (0, 0.002)


def test_with_a_gpu_its_streams_count_and_the_hosts_pipeline_too():
    lines = (
        Line("python", "", ()),
        Line("tf_Compute", "", (op(0, 2),)),
        Line("tf_data_map", "", (op(0, 3, "decode", "DecodePng", is_input=True),)),
        Line("GPU:0 Stream #1", "GPU:0", (op(4, 9), op(9, 12, "x", "ncclDevKernel_AllReduce"))),
    )
    summary = summarize(Trace(lines, {1: (0, 5 * MSEC)}, "python"))
    assert summary["devices"] == ["GPU:0"]
    assert summary["window_secs"] == pytest.approx(0.012)
    assert [row["type"] for row in summary["types"]] == ["MatMul", "ncclDevKernel_AllReduce"]
    assert secs(summary["types"], type="MatMul") == 0.005
    assert summary["wall"]["call_starts"]["secs"] == pytest.approx(0.004)
    assert summary["input"]["work_secs"] == pytest.approx(0.003)
    assert summary["reduce"]["wall_secs"] == pytest.approx(0.003)


@pytest.mark.parametrize(("name", "num_replicas"), [("one_replica", 1), ("two_replicas", 2)])
def test_what_was_recorded_adds_up(name, num_replicas, request):
    trace = request.getfixturevalue(name)
    summary = summarize(trace, num_replicas=num_replicas)
    window = summary["window_secs"]
    assert (summary["first_step"], summary["last_step"], summary["num_steps"]) == (6, 8, 3)
    assert sum(part["share"] for part in summary["wall"].values()) == pytest.approx(1)
    assert all(part["share"] >= 0 for part in summary["wall"].values())
    own = sum(row["secs"] for row in summary["operations"])
    assert own == pytest.approx(sum(row["operations_secs"] for row in summary["threads"]))
    for key in ("types", "categories"):
        assert sum(row["secs"] for row in summary[key]) == pytest.approx(own)
    for row in summary["threads"]:
        assert 0 <= row["operations_secs"] <= row["busy_secs"] + 1e-12 <= window + 2e-12
        assert row["idle_share"] == pytest.approx(1 - row["busy_secs"] / window)
    for line in trace.lines:
        parts = [e.interval for e in innermost(e for e in line.events if e.kind == "op")]
        assert total(parts) == total(union(parts))


def counts(summary, **chosen):
    rows = summary["types"]
    return sum(r["count"] for r in rows if all(r[k] == v for k, v in chosen.items()))


def test_counts_of_one_replica_are_those_of_the_net(one_replica):
    summary = summarize(one_replica)
    # Three steps: two matrix products forward, three backward; four trained variables.
    assert counts(summary, type="_MklNativeFusedMatMul") == 3 * 2
    assert counts(summary, type="_MklMatMul") == 3 * 3
    assert counts(summary, type="AssignSubVariableOp") == 3 * 4
    # Images and labels of two batches: the step's, and the one that the loop makes in the meantime.
    assert counts(summary, type="GatherV2", category="input") == 3 * 2 * 2
    assert summary["input"]["made_in_graph"]
    assert 0 < summary["input"]["next_secs"] <= summary["input"]["work_secs"] * 1.0001
    assert summary["reduce"] == {"count": 0, "secs": 0, "wall_secs": 0}


def test_counts_of_two_replicas_are_those_of_the_net(two_replicas):
    summary = summarize(two_replicas, num_replicas=2)
    assert counts(summary, type="_MklNativeFusedMatMul") == 3 * 2 * 2
    assert counts(summary, type="CollectiveReduceV2", category="reduce") == 3 * 2
    assert counts(summary, type="AddN", category="reduce") == 3 * 4  # the metrics' sums
    assert summary["reduce"]["count"] == 3 * 6
    assert not summary["input"]["made_in_graph"]
    assert 0 < summary["input"]["work_secs"] < summary["window_secs"]
    assert 0 < summary["input"]["next_secs"] < summary["window_secs"]
