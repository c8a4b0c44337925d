"""What is asked for at a resumption is applied, refused with the reason, or warned about."""

import dataclasses
import shutil

import keras
import numpy as np
import pytest

from gradloop.cli import main as train
from gradloop.cli.config import JobConfig
from gradloop.cli.flags import NOT_RESUMED
from tests.cli.runs import SMALL, contents, read

REFUSED = {
    "model": "lstm",
    "dataset": "fashion_mnist",
    "initial_epoch": "1",
    "global_batch_size": "64",
    "steps_per_epoch": "4",
    "gradient_accumulation_steps": "2",
    "seed": "1",
    "rescale": "false",
    "validation_split": "0.1",
    "overfit_batches": "2",
    "target": "y",
    "target_type": "numbers",
    "features": "a,b",
    "image_size": "8,9",
    "color_mode": "rgb",
    "set": "model.units=8",
    "train_step": "own:train_step",
    "optimizer": "adamw",
    "momentum": "0.9",
    "schedule": "cosine",
    "warmup_steps": "2",
    "ema": "0.9",
    "init_from": "other.npz",
}
WARNED = {
    "strategy", "num_replicas", "precision", "numerics", "jit_compile", "jit_scope", "run_eagerly",
    "deterministic", "intra_op_threads", "inter_op_threads", "uneven", "clip", "replica_rng",
    "sync_statistics", "parity", "tf32", "all_reduce", "all_reduce_pack_mib", "loss", "metrics",
    "weight_decay", "clipnorm", "clipvalue", "global_clipnorm", "compile_update",
    "narrow_products",
}  # fmt: skip
APPLIED = {
    "epochs", "validation_freq", "validate_every_steps", "validation_steps", "learning_rate",
    "on_nonfinite", "steps_per_execution", "max_retraces", "input", "prefetch",
    "data_dir", "in_memory",
    "checkpoint_every_steps", "checkpoint_every_epochs", "checkpoint_every_secs",
    "checkpoint_async", "keep", "keep_best", "on_save_error", "max_time", "grace_secs", "hang_secs",
    "state_digest", "max_skipped_steps", "max_steps", "early_stopping", "patience", "min_delta",
    "restore_best", "direction", "run_name", "tags", "log_every_steps", "tensorboard", "plots",
    "quiet", "logger", "hook",
}  # fmt: skip


def resume(folder, *flags):
    keras.utils.clear_session(free_memory=False)
    return train.main(["--resume", "--run_dir", str(folder), *flags])


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A run of one epoch, with a fixed learning rate."""
    folder = tmp_path_factory.mktemp("runs") / "begun"
    keras.utils.clear_session(free_memory=False)
    flags = ["--limit_train_batches", "3", "--validation_steps", "2", "--epochs", "1"]
    assert train.main([*SMALL, *flags, "--run_dir", str(folder)]) == 0
    return folder


@pytest.fixture
def run(begun, tmp_path):
    shutil.copytree(begun, tmp_path / "run")
    return tmp_path / "run"


def test_every_field_has_a_decision():
    decisions = {f.name: f.metadata["on_resume"] for f in dataclasses.fields(JobConfig)}
    expected = dict.fromkeys([*REFUSED, "exclude"], "refused") | dict.fromkeys(WARNED, "warned")
    expected |= dict.fromkeys(APPLIED | set(NOT_RESUMED), "applied")
    assert decisions == expected


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_change_is_refused_with_the_reason(begun, capsys, name):
    before = contents(begun)
    assert resume(begun, f"--{name}", REFUSED[name], "--epochs", "3") == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and f"error: {name}=" in err, err
    assert f"but the run in {begun} has " in err and "name another folder" in err
    assert contents(begun) == before


def test_a_learning_rate_is_applied_to_the_restored_optimizer(run):
    assert resume(run, "--learning_rate", "0.5", "--epochs", "2") == 0
    first, second = read(run)["history"]["learning_rate"]
    assert (first, second) == (np.float32(0.001), 0.5)
    assert "learning_rate=0.5 from here on, none before" in (run / "train.log").read_text()
    assert resume(run, "--epochs", "3") == 0
    assert read(run)["history"]["learning_rate"][2] == 0.5


def test_a_learning_rate_is_refused_where_it_follows_a_schedule(tmp_path, capsys):
    flags = ["--dataset", "synthetic", "--model", "lstm", "--limit_train_batches", "1"]
    flags += ["--validation_steps", "1", "--epochs", "1", "--run_dir", str(tmp_path / "run")]
    assert train.main(flags) == 0
    assert resume(tmp_path / "run", "--learning_rate", "0.5", "--epochs", "2") == 2
    err = capsys.readouterr().err
    assert "learning_rate=0.5" in err and "its optimizer follows a schedule" in err


@pytest.mark.filterwarnings("default")
def test_what_changes_bits_is_warned_about_and_the_rest_is_applied(run, capsys):
    assert resume(run, "--numerics", "fast", "--keep", "1", "--epochs", "2") == 0
    log = (run / "train.log").read_text()
    assert "numerics=fast from here on, exact before: the numbers are no longer equal" in log
    assert "keep=1 from here on, 3 before\n" in log
    assert "warning: The run was saved with numerics=exact (now fast)" in capsys.readouterr().err
    assert [path.name for path in (run / "checkpoints").glob("ckpt-*")] == ["ckpt-6.npz"]
    assert read(run, "config.json")["keep"] == 1


def test_another_precision_with_other_variables_is_refused(run, capsys):
    assert resume(run, "--precision", "mixed_float16", "--epochs", "2") == 2
    assert "belongs to another model or optimizer" in capsys.readouterr().err
