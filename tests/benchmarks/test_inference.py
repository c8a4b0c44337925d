"""The benchmark of predict and evaluate: its parts on made-up calls, and a quick run of it all."""

import json
import time

import numpy as np
import pytest

from benchmarks import inference
from benchmarks.reporting import records


def sleeper(secs, result):
    def call():
        time.sleep(secs)
        return result

    return call


def test_other_results_are_an_error():
    calls = {"engine": lambda: {"loss": 1.0, "accuracy": 0.5}, "keras": lambda: {"accuracy": 0.5}}
    with pytest.raises(RuntimeError, match="evaluate: engine has not the results"):
        inference.check_equal(calls, "evaluate")
    calls["keras"] = lambda: {"accuracy": 0.5, "loss": 1.0}
    assert inference.check_equal(calls, "evaluate").keys() == {"engine", "keras"}
    calls = {"engine": lambda: np.float32([0.1]), "keras": lambda: np.float32([0.1000001])}
    with pytest.raises(RuntimeError, match="predict: engine"):
        inference.check_equal(calls, "predict")


def test_the_fastest_settings_of_keras_race():
    calls = {
        "engine": sleeper(0.001, 0), "keras": sleeper(0.02, 0), "keras_8": sleeper(0.004, 0)
    }  # fmt: skip
    assert inference.choose_tuned(calls) == "keras_8"
    secs = inference.race(calls, "keras_8", max_secs=0.3)
    assert len({len(values) for values in secs.values()}) == 1
    assert max(secs["engine"]) < min(secs["keras"])
    assert min(secs["keras_tuned"]) < min(secs["keras"])


def test_fewer_examples_than_a_batch_are_refused(capsys):
    assert inference.main(["--workload", "dense", "--num_examples", "5"]) == 2
    assert "--num_examples 5 is less than a batch of 128" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_writes_its_record(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(inference.records, "default_path", lambda record: tmp_path / "one.json")
    monkeypatch.setattr(inference, "STEPS_PER_EXECUTION", (2,))
    flags = ["--workload", "tiny", "--num_examples", "128", "--max_secs", "0.5", "--record"]
    assert inference.main(flags) == 0
    record = json.loads((tmp_path / "one.json").read_text())
    assert records.name_of(record) == "inference-tiny"
    for measure in ("predict", "evaluate"):
        found = record["inference"][measure]
        for arm in ("engine", "keras", "keras_tuned"):
            assert found[arm]["quartile_1"] <= found[arm]["median"] <= found[arm]["quartile_3"]
        for ratio in ("ratio", "ratio_tuned"):
            assert found[ratio]["low"] <= found[ratio]["median"] <= found[ratio]["high"]
    assert "engine over keras" in capsys.readouterr().out
