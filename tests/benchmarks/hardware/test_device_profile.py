"""The shares of the devices, from a trace that is made up."""

import pytest

from benchmarks.hardware.device_profile import device_shares
from gradloop.engine.profiling.xplane import Event, Line, Trace

MSEC = 10**9


@pytest.fixture(autouse=True)
def fresh_keras():
    """Replaces conftest's: nothing here runs Keras."""


def op(start, end, type_="MatMul"):
    return Event(start * MSEC, end * MSEC, "op", "x", type_)


def make_trace(*lines):
    return Trace((Line("python", "", (op(0, 10),)), *lines), {1: (0, 10 * MSEC)}, "python")


def test_each_gpu_has_its_idle_time_and_its_reduce():
    reduce = "ncclDevKernel_AllReduce_Sum_f32_RING_LL"
    trace = make_trace(
        Line("GPU:0 Stream #1", "GPU:0", (op(1, 5), op(8, 10))),
        Line("GPU:0 Stream #2", "GPU:0", (op(4, 6, reduce),)),
        Line("GPU:1 Stream #1", "GPU:1", (op(2, 4), op(4, 6, "CollectiveReduceV2"))),
    )
    shares = device_shares(trace)
    # Two streams count once, and the host's operations not at all.
    assert shares["GPU:0"] == pytest.approx({"idle_share": 0.3, "reduce_share": 0.2})
    assert shares["GPU:1"] == pytest.approx({"idle_share": 0.6, "reduce_share": 0.2})


def test_sums_of_tensors_are_the_reduce_of_several_gpus_alone():
    one = Line("GPU:0 Stream #1", "GPU:0", (op(0, 5, "AddN"), op(5, 10)))
    other = Line("GPU:1 Stream #1", "GPU:1", (op(0, 10),))
    assert device_shares(make_trace(one))["GPU:0"]["reduce_share"] == 0
    assert device_shares(make_trace(one, other))["GPU:0"]["reduce_share"] == pytest.approx(0.5)


def test_a_trace_without_a_gpu_has_no_shares():
    with pytest.raises(RuntimeError, match="nothing of a GPU"):
        device_shares(make_trace())
