"""--diagnose_input and --tune: what they measure, and what later runs take from it."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest

from gradloop.cli import main as train
from gradloop.cli import trial_process
from gradloop.cli.config import JobConfig
from gradloop.data import Split
from gradloop.engine.tuning import bench, search
from gradloop.engine.tuning.choice import Bits, Tuning
from tests.cli.runs import QUICK, ROOT, SMALL, contents, read


def test_diagnosis_of_the_input_trains_and_saves_nothing(tmp_path, monkeypatch, trained):
    monkeypatch.setattr("gradloop.engine.tuning.trial.WARM_UP_SECS", 0.2)
    monkeypatch.setattr("gradloop.engine.tuning.trial.WINDOW_SECS", 0.05)
    folder = tmp_path / "run"
    assert train.main([*QUICK, "--diagnose_input", "--run_dir", str(folder)]) == 0
    summary = read(folder)
    assert summary["input"]["share"] > 0
    assert summary["input"]["is_resident"]
    assert summary["num_steps"] == 0
    assert not (folder / "checkpoints").exists()
    assert "of the ceiling" in (folder / "train.log").read_text()
    resume = ["--run_dir", str(trained), "--resume", "--diagnose_input"]
    before = contents(trained)
    assert train.main(resume) == 2
    assert contents(trained) == before


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    """A cache of choices that no run of this machine's user sees."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.usefixtures("own_cache")
def test_tune_keeps_a_choice_that_later_runs_take(tmp_path, monkeypatch, capsys, trained):
    def choose(make_state, make_dataset, config, *, train_step, trial_in_process, show):
        assert callable(trial_in_process)
        state = make_state()
        state.build(make_dataset(prefetch=16).element_spec)
        fast = {"jit_compile": True, "jit_scope": "loop"}
        return Tuning(exact={"steps_per_execution": 2}, fast=fast)

    monkeypatch.setattr("gradloop.engine.tuning.search.tune", choose)
    assert train.main([*QUICK, "--tune", "--run_dir", str(tmp_path / "tune")]) == 0
    assert read(tmp_path / "tune")["tuning"]["exact"] == {"steps_per_execution": 2}
    assert not (tmp_path / "tune" / "checkpoints").exists()

    capsys.readouterr()
    assert train.main([*QUICK, "--run_dir", str(tmp_path / "exact")]) == 0
    assert "tuned" in capsys.readouterr().out
    config = json.loads((tmp_path / "exact" / "config.json").read_text())
    assert (config["steps_per_execution"], config["jit_compile"]) == (2, None)
    assert read(tmp_path / "exact")["weights_sha256"] == read(trained)["weights_sha256"]

    fast = [*QUICK, "--numerics", "fast", "--run_dir", str(tmp_path / "fast")]
    assert train.main(fast) == 0
    config = json.loads((tmp_path / "fast" / "config.json").read_text())
    assert (config["jit_compile"], config["jit_scope"]) == (True, "loop")
    assert config["steps_per_execution"] is None


@pytest.mark.usefixtures("own_cache")
def test_a_choice_that_cannot_be_kept_is_shown_all_the_same(tmp_path, monkeypatch, capsys):
    found = Tuning(exact={"steps_per_execution": 2})
    monkeypatch.setattr("gradloop.engine.tuning.search.tune", lambda *args, **options: found)
    (tmp_path / "cache").write_text("no folder")
    assert train.main([*QUICK, "--tune", "--run_dir", str(tmp_path / "tune")]) == 1
    shown = capsys.readouterr()
    assert "bits fit: steps_per_execution=2" in shown.out
    assert str(tmp_path / "cache") in shown.err
    assert "Traceback" not in shown.err
    assert read(tmp_path / "tune")["tuning"]["exact"] == {"steps_per_execution": 2}


@pytest.fixture
def short_search(monkeypatch):
    """A search of few candidates, one of which needs a process, in short windows."""
    monkeypatch.setattr("gradloop.engine.tuning.trial.WARM_UP_SECS", 0.05)
    shorter = {"WARM_UP_SECS": 0.05, "BURST_SECS": 0.02, "NUM_ROUNDS": 2}
    for name, value in {**shorter, "HOPELESS": float("inf")}.items():
        monkeypatch.setattr(bench, name, value)
    of_fit = ({"steps_per_execution": 32},), ({"input": "streamed", "prefetch": 16},)
    few = {
        Bits.FIT: ({}, (*of_fit, ({"inter_op_threads": 1}, {"intra_op_threads": 1}))),
        Bits.XLA: (
            {"jit_compile": True},
            (({"jit_scope": "loop"},), ({"narrow_products": True},)),
        ),
        Bits.FREE: ({"numerics": "fast"}, (({},),)),
    }
    monkeypatch.setattr(search, "CLASSES", few)


@pytest.mark.slow
@pytest.mark.usefixtures("own_cache", "short_search")
def test_tune_measures_and_prints_a_table(tmp_path, capsys):
    flags = [*SMALL, "--set", "model.units=16"]
    assert train.main([*flags, "--tune", "--run_dir", str(tmp_path / "tune")]) == 0
    table = capsys.readouterr().out
    xla = "jit_compile=true, jit_scope=loop"
    for trial in ("steps_per_execution=32", "input=streamed, prefetch=16", xla, "numerics=fast"):
        assert trial in table
    assert "trial 1 of about 9: steps_per_execution=32: " in table
    assert "inter_op_threads=1" in table
    assert "intra_op_threads=1" in table
    assert f"{xla}, narrow_products=true" in table
    assert "failed" not in table

    # What was kept is what later runs take, each in its class.
    kept = read(tmp_path / "tune")["tuning"]
    # In a process of its own: this one has its threads for good.
    command = [sys.executable, "train.py", *flags, *QUICK, "--run_dir", str(tmp_path / "run")]
    subprocess.run(command, cwd=ROOT, check=True)
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert kept["exact"].items() <= config.items()


@pytest.mark.slow
def test_processes_tell_their_bits_of_batches_as_the_run_has_them():
    config = JobConfig(
        model="dense", dataset="synthetic", seed=3, validation_split=0.1, on_nonfinite="rollback",
        schedule="cosine", warmup_steps=20, validation_freq=5, validation_steps=1,
    )  # fmt: skip

    def ask(changes, *windows):
        with trial_process.started(config, changes) as trial:
            for secs in windows:
                trial.measure(secs)
            return trial.bits()

    bits = ask({})
    assert re.fullmatch("[0-9a-f]{64}", bits)
    assert ask({"steps_per_execution": 2, "input": "streamed"}, 0.1) == bits
    assert ask({"numerics": "fast", "precision": "mixed_bfloat16"}) != bits


@pytest.mark.slow
def test_a_process_that_fails_says_why():
    config = JobConfig(model="tests.cli.own_nets:broken", dataset="synthetic")
    with (
        trial_process.started(config, {}) as trial,
        pytest.raises(OSError, match="a bug of mine"),
    ):
        trial.measure(0.1)


@pytest.mark.parametrize(
    ("num_examples", "expected"), [(1000, 136), (100, 100), (20, 20), (64, 64)]
)
def test_a_short_training_has_a_last_batch_of_the_same_size(num_examples, expected):
    split = Split(np.zeros((num_examples, 2)), np.zeros(num_examples))
    assert trial_process.shortened(split, 32).num_examples == expected
