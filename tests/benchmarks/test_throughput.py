"""The benchmark measures what it says, and is void if the bits differ."""

import dataclasses

import pytest

from benchmarks import throughput

SMALL = dataclasses.replace(throughput.WORKLOADS["tiny"], num_hidden=4, num_examples=100)


@pytest.fixture
def few_arms(monkeypatch):
    monkeypatch.setattr(throughput, "STEPS_PER_EXECUTION", (1,))


def test_measures_every_arm_in_every_counted_round(few_arms):
    speeds = throughput.measure(SMALL, num_rounds=2)
    assert set(speeds) == {"engine", "fit_arrays_1", "fit_pipeline_1"}
    assert all(len(values) == 2 and min(values) > 0 for values in speeds.values())


def test_an_arm_with_other_bits_is_void(few_arms, monkeypatch):
    right = throughput.make_arms

    def with_a_fault(workload):
        arms = right(workload)
        kernel = arms["fit_arrays_1"][0].model.variables[0]
        kernel.assign(kernel + 1e-7)
        return arms

    monkeypatch.setattr(throughput, "make_arms", with_a_fault)
    with pytest.raises(RuntimeError, match="void: the weights of fit_arrays_1 differ"):
        throughput.measure(SMALL, num_rounds=1)


def test_ratios_are_medians_of_rounds_not_ratios_of_medians():
    # The machine is ten times slower in the second round; the ratio is 2 in each.
    speeds = {"engine": [20.0, 2.0, 40.0], "fit_arrays_1": [10.0, 1.0, 20.0]}
    summary = throughput.summarize(speeds)
    assert summary["fit_arrays_1"]["engine_over_it"] == 2
    assert summary["engine"]["median"] == 20
