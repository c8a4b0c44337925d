"""The command: its flags, and one real run."""

import json

import pytest

from benchmarks import throughput
from benchmarks.hardware import devices
from benchmarks.race import flags as flags_lib
from benchmarks.race.workloads import WORKLOADS


def arguments(*flags):
    return flags_lib.make_parser().parse_args(flags)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--workload", "tinny"], ["'tinny'", "legal: tiny, dense, wide, cnn"]),
        (["--arms", "torch"], ["'torch'", "torch_eager"]),
        (["--num_repeats", "0"], ["num_repeats=0", "1 or more"]),
        (["--num_warmups", "-1"], ["num_warmups=-1", "0 or more"]),
        (["--num_devices", "0"], ["num_devices=0", "1 or more"]),
        (["--num_devices", "2", "--arms", "tf_loop"], ["'tf_loop'", "engine, keras_fit"]),
        (["--max_width", "-1"], ["max_width=-1.0", "0 or more"]),
        (["--max_secs", "nan"], ["max_secs=nan", "0 or more"]),
        (["--num_examples", "20"], ["num_examples=20", "batch of 32"]),
        (["--workload", "tiny", "cnn", "--output", "x.json"], ["--record"]),
        (["--workload", "all", "--output", "x.json"], ["--record"]),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(flags, words, capsys):
    assert throughput.main(flags) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert all(word in error for word in words)


def test_without_a_gpu_it_says_so(capsys, monkeypatch):
    monkeypatch.setattr(devices, "find_gpus", list)
    assert throughput.main(["--device", "gpu"]) == 0
    assert "No GPU" in capsys.readouterr().out


def test_fit_is_always_among_the_arms():
    (_, arms), *_ = flags_lib.expand(arguments("--arms", "tf_loop", "engine", "some.other_arm"))
    assert arms == ["engine", "keras_fit", "tf_loop", "some.other_arm"]


def test_the_reference_of_xlas_bits_is_among_the_arms():
    (_, arms), *_ = flags_lib.expand(arguments("--arms", "engine_xla"))
    assert arms == ["engine_xla", "keras_fit", "keras_fit_xla"]


def test_the_headline_is_both_kinds_of_bits():
    (_, arms), *_ = flags_lib.expand(arguments("--arms", "headline"))
    assert arms == ["engine", "engine_xla", "keras_fit", "keras_fit_tuned", "keras_fit_xla"]


def test_a_race_has_time_for_each_arm():
    arms = ["engine", "engine_xla", "keras_fit", "keras_fit_tuned", "tf_loop"]
    plan = throughput.make_plan(arguments(), WORKLOADS["tiny"], arms)
    assert (plan.max_secs, plan.num_kept) == (120, 5)
    assert plan.tries_threads == {"keras_fit_tuned", "tf_loop"}
    plan = throughput.make_plan(arguments("--max_secs", "9"), WORKLOADS["transformer"], arms)
    assert (plan.max_secs, plan.num_kept) == (9, 0)
    assert not throughput.make_plan(
        arguments("--device", "gpu"), WORKLOADS["tiny"], arms
    ).tries_threads


def test_all_is_every_workload():
    found = [workload.name for workload, _ in flags_lib.expand(arguments("--workload", "all"))]
    assert found == list(WORKLOADS)


def test_input_compares_the_pipeline_with_a_resident_batch():
    found = [(w.name, arms) for w, arms in flags_lib.expand(arguments("--workload", "input"))]
    assert [name for name, _ in found] == ["input-tiny", "input-dense", "input-cnn", "input-lstm"]
    assert found[0][1] == ["engine", "engine_resident", "keras_fit"]


def test_a_lower_precision_is_also_compared_with_fit_in_float32():
    (_, arms), *_ = flags_lib.expand(arguments("--precision", "mixed_bfloat16"))
    assert "keras_fit_float32" in arms
    (_, arms), *_ = flags_lib.expand(arguments())
    assert "keras_fit_float32" not in arms


def test_replicas_are_for_arms_that_can_have_them():
    (_, arms), *_ = flags_lib.expand(arguments("--num_devices", "2"))
    assert arms == ["engine", "keras_fit"]
    assert flags_lib.make_task(arguments("--num_devices", "2"), WORKLOADS["tiny"]).has_replicas


def test_examples_are_whole_batches():
    workload = flags_lib.resize(WORKLOADS["tiny"], arguments("--num_examples", "100"))
    assert workload.num_examples == 96


def test_peers_have_an_interpreter_of_their_own(tmp_path):
    python = tmp_path / "python"
    python.touch()
    found = throughput.pythons_of(["engine", "jax_scan"], str(python))
    assert found["jax_scan"] == str(python) != found["engine"]
    found = throughput.pythons_of(["engine", "jax_scan"], str(tmp_path / "none"))
    assert found["jax_scan"] == found["engine"]


def test_the_roof_is_measured_in_a_process_of_its_own():
    task = flags_lib.make_task(arguments(), WORKLOADS["tiny"])
    found = throughput.measure_roof(task, secs=0.1)
    assert set(found["matmul_flops_per_sec"]) == {"float32", "float32_xla", "bfloat16"}
    assert min(found["matmul_flops_per_sec"].values()) > 1e7


@pytest.mark.slow
@pytest.mark.parametrize(
    "workload", ["tiny", *(pytest.param(n, marks=pytest.mark.exhaustive) for n in ("cnn", "lstm"))]
)
def test_a_real_run(workload, tmp_path, capsys):
    output = tmp_path / "record.json"
    num = str(6 * WORKLOADS[workload].global_batch_size)
    arms = ["engine", "engine_resident", "keras_fit", "tf_loop"]
    if workload == "tiny":
        arms[1:1], arms[4:4] = ["engine_xla"], ["keras_fit_xla"]
    flags = ["--workload", workload, "--arms", *arms, "--num_repeats", "2", "--num_examples", num]
    assert throughput.main([*flags, "--output", str(output)]) == 0
    record = json.loads(output.read_text("utf-8"))
    found = {name: (arm["status"], arm["reason"]) for name, arm in record["arms"].items()}
    assert found == dict.fromkeys(arms, ("ok", None))
    # Not only are the weights equal: so is what is made of them.
    engine, fit = record["arms"]["engine"], record["arms"]["keras_fit"]
    assert (engine["bits_of"], fit["bits_of"]) == ("keras_fit", "keras_fit")
    assert engine["test_accuracies"] == fit["test_accuracies"]
    assert engine["losses"] == fit["losses"]
    assert record["flops_per_step"] > 0
    assert record["stopped_by"] == "num_repeats"
    assert (engine["plain_loss"] is None, fit["plain_loss"] is None) == (True, workload != "cnn")
    assert "engine over keras_fit" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.exhaustive
def test_a_real_run_of_two_replicas(tmp_path):
    output = tmp_path / "record.json"
    flags = ["--num_devices", "2", "--num_repeats", "1", "--num_warmups", "0"]
    assert throughput.main([*flags, "--num_examples", "192", "--output", str(output)]) == 0
    record = json.loads(output.read_text("utf-8"))
    engine, fit = record["arms"]["engine"], record["arms"]["keras_fit"]
    assert (engine["bits_of"], fit["bits_of"]) == ("keras_fit", "keras_fit")
    assert (engine["status"], fit["status"]) == ("ok", "ok")
    assert engine["losses"] == fit["losses"]
