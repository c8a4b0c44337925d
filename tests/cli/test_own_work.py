"""A person's own model, step, hooks and loss from the command line, in each mode."""

import json
import types

import keras
import numpy as np
import pytest

from gradloop import engine
from gradloop.cli import main as train
from gradloop.cli.config import JobConfig
from gradloop.cli.job import Job
from gradloop.cli.work import objectives
from tests.cli import own_nets
from tests.cli.runs import read

NETS = "tests.cli.own_nets"
QUICK = [
    "--dataset", "synthetic", "--limit_train_batches", "3", "--validation_steps", "2",
    "--no_tensorboard", "--no_plots",
]  # fmt: skip


def start(folder, *flags, model=f"{NETS}:build"):
    keras.utils.clear_session(free_memory=False)
    return train.main([*QUICK, "--model", model, "--run_dir", str(folder), *flags])


def test_a_loss_that_nobody_named_is_shown(tmp_path, capsys):
    flags = ["--mode", "compare", "--model", f"{NETS}:build", "--dataset", "synthetic"]
    flags += ["--limit_train_batches", "3", "--validation_steps", "2", "--optimizer", "lamb"]
    keras.utils.clear_session(free_memory=False)
    assert train.main([*flags, "--schedule", "cosine", "--run_dir", str(tmp_path / "run")]) == 0
    out = capsys.readouterr().out
    assert "loss       categorical_crossentropy of logits, by the data: the model has none" in out
    assert "equal to fit: all bits of" in out


def history(folder):
    return read(folder)["history"]


def refused(capsys, folder, *flags, **options):
    """Returns the one line that refuses flags."""
    assert start(folder, *flags, **options) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and not folder.exists(), err
    return err


@pytest.fixture(scope="module")
def two_classes(tmp_path_factory):
    """A file of two classes that a line tells apart."""
    path = tmp_path_factory.mktemp("data") / "two.npz"
    x = np.random.default_rng(0).normal(size=(256, 3)).astype("float32")
    y = (x.sum(axis=1) > 0).astype("int64")
    np.savez(path, x_train=x[:192], y_train=y[:192], x_test=x[192:], y_test=y[192:])
    return path


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A run of an own model with an argument."""
    folder = tmp_path_factory.mktemp("runs") / "begun"
    assert start(folder, "--set", "model.units=5") == 0
    return folder


@pytest.mark.slow  # 5 s
def test_a_net_with_statistics_trains_on_several_replicas(tmp_path):
    flags = ["--strategy", "mirrored", "--num_replicas", "2", "--epochs", "2"]
    assert start(tmp_path / "run", *flags, model=f"{NETS}:normalized") == 0
    assert read(tmp_path / "run")["num_traces"] >= 1


def test_the_run_records_the_model_and_its_arguments(begun):
    config = read(begun, "config.json")
    assert (config["model"], config["set"]) == (f"{NETS}:build", {"model.units": 5})
    assert read(begun)["status"] == "completed" and 0 < read(begun)["test_accuracy"] < 1


@pytest.mark.parametrize("mode", ["evaluate", "predict", "export"])
def test_a_checkpoint_is_used_with_the_settings_of_its_run(begun, tmp_path, mode, capsys):
    keras.utils.clear_session(free_memory=False)
    flags = ["--mode", mode, "--checkpoint", str(begun), "--run_dir", str(tmp_path / mode)]
    assert train.main([*flags, *(["--format", "keras"] if mode == "export" else [])]) == 0
    config = read(tmp_path / mode, "config.json")
    assert (config["model"], config["set"]) == (f"{NETS}:build", {"model.units": 5})
    assert (config["dataset"], config["validation_steps"]) == ("synthetic", None)
    if mode == "evaluate":
        assert read(tmp_path / mode)["test_accuracy"] == read(begun)["test_accuracy"]


@pytest.mark.parametrize("place", ["checkpoints", "checkpoints/ckpt-3.npz"])
def test_the_run_is_found_beside_folders_and_files(begun, tmp_path, place):
    keras.utils.clear_session(free_memory=False)
    flags = ["--checkpoint", str(begun / place), "--run_dir", str(tmp_path / "run")]
    assert train.main(["--mode", "evaluate", *flags]) == 0
    assert read(tmp_path / "run")["test_accuracy"] == read(begun)["test_accuracy"]


@pytest.mark.parametrize("flags", [["--model", "dense"], ["--set", "model.units=6"]])
def test_another_model_than_the_checkpoints_is_refused(begun, tmp_path, capsys, flags):
    checkpoint = ["--mode", "evaluate", "--checkpoint", str(begun / "checkpoints")]
    assert train.main([*checkpoint, *flags, "--run_dir", str(tmp_path / "run")]) == 2
    assert f"but the run in {begun} has" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_checkpoint_that_lies_alone_takes_the_flags(begun, tmp_path):
    file = tmp_path / "alone.npz"
    file.write_bytes((begun / "checkpoints" / "ckpt-3.npz").read_bytes())
    flags = ["--mode", "evaluate", "--checkpoint", str(file), "--run_dir", str(tmp_path / "run")]
    own = ["--model", f"{NETS}:build", "--set", "model.units=5", "--dataset", "synthetic"]
    keras.utils.clear_session(free_memory=False)
    assert train.main([*flags, *own]) == 0
    assert read(tmp_path / "run")["test_logs"]["accuracy"] > 0


def test_a_run_goes_on_with_its_arguments(begun, tmp_path, capsys):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert start(whole, "--set", "model.units=5", "--epochs", "2") == 0
    assert start(parts, "--set", "model.units=5") == 0
    keras.utils.clear_session(free_memory=False)
    assert train.main(["--resume", "--run_dir", str(parts), "--epochs", "2"]) == 0
    assert read(parts)["weights_sha256"] == read(whole)["weights_sha256"]
    other = ["--resume", "--run_dir", str(parts), "--epochs", "3", "--set", "model.units=6"]
    assert train.main(other) == 2
    assert "its checkpoints are of a model, a step and data with" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["compiled", "Subclassed"])
def test_models_that_are_compiled_or_subclassed(tmp_path, name):
    assert start(tmp_path / "run", model=f"{NETS}:{name}") == 0
    assert set(history(tmp_path / "run")) >= {"accuracy", "loss", "val_accuracy", "val_loss"}
    rate = np.float32(0.25 if name == "compiled" else 0.001)
    assert history(tmp_path / "run")["learning_rate"] == [rate]


def test_a_model_by_name_takes_arguments(tmp_path, capsys):
    assert start(tmp_path / "run", "--set", "model.units=3", model="dense") == 0
    assert "2,395 parameters" in capsys.readouterr().out
    line = refused(capsys, tmp_path / "no", "--set", "model.unit=3", model="dense")
    assert "has no argument 'unit'. It takes input_shape, num_classes, units. Did you" in line
    line = refused(capsys, tmp_path / "no", "--set", "model.units=abc", model="dense")
    assert "model='dense' cannot be built with" in line and "units=abc" in line


def test_one_output_learns_two_classes(two_classes, tmp_path):
    flags = ["--dataset", str(two_classes), "--epochs", "10", "--learning_rate", "0.1"]
    flags += ["--limit_train_batches", "none", "--validation_steps", "none"]
    assert start(tmp_path / "run", *flags, model=f"{NETS}:yes_or_no") == 0
    assert read(tmp_path / "run")["test_accuracy"] > 0.9


def test_an_output_that_is_trained_as_a_number_is_no_logit(two_classes, tmp_path):
    run, flags = tmp_path / "run", ["--dataset", str(two_classes), "--validation_steps", "none"]
    assert start(run, *flags, "--loss", "mse", model=f"{NETS}:number") == 0
    keras.utils.clear_session(free_memory=False)
    flags = ["--mode", "predict", "--checkpoint", str(run), "--run_dir", str(tmp_path / "predict")]
    assert train.main([*flags, "--no_plots"]) == 0
    with np.load(tmp_path / "predict" / "predictions.npz") as file:
        right = (file["predictions"][:, 0] > 0.5) == file["targets"][:, 0]
    assert read(run)["test_accuracy"] == pytest.approx(right.mean())


@pytest.mark.parametrize(
    ("loss", "is_of_logits"),
    [
        ("mae", False), (keras.losses.Huber(), False), ("binary_crossentropy", False),
        (keras.losses.BinaryCrossentropy(), False), ("hinge", True), (None, True),
        (keras.losses.BinaryCrossentropy(from_logits=True), True),
        ([keras.losses.BinaryFocalCrossentropy(from_logits=True)], True),
        (own_nets.my_loss, True),  # it does not tell, and the last layer is linear
    ],
)  # fmt: skip
def test_the_loss_says_whether_one_output_is_a_logit(loss, is_of_logits):
    model = own_nets.number((3,))
    assert objectives.are_logits(model, loss) == is_of_logits
    assert not objectives.are_logits(own_nets.yes_or_no((3,)), loss)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--model", f"{NETS}:bild"], "has no 'bild'"),
        (["--model", f"{NETS}:no_model"], "returned a str, and must return a keras.Model"),
        (["--model", f"{NETS}:yes_or_no"], "has outputs of size 1 and no loss, and dataset="),
        (["--model", f"{NETS}:too_narrow"], "with dataset='synthetic': "),
        (["--model", f"{NETS}:other_input"], "with dataset='synthetic': "),
        (["--loss", "sparse_categorical_crossentropy", "--metrics", "auc"], "are class numbers"),
        (["--model", "dens"], "Or pkg.module:build of your own."),
        (["--set", "model.depth=3"], "has no argument 'depth'. It takes input_shape, num_classes"),
        (["--set", "modle.units=3"], "with a prefix of: model, dataset, step"),
        (["--set", "step.scale=3"], "without train_step"),
        (["--set", "dataset.n=3"], "it is an argument of a function of your own"),
        (["--step", f"{NETS}:train"], "step='tests.cli.own_nets:train': the module"),
        (["--step", f"{NETS}:train_step", "--set", "step.x=1"], "It takes state, batch, scale."),
        (["--step", f"{NETS}:train_step", "--mode", "compare"], "is for mode"),
        (["--hook", f"{NETS}:Nothing"], "has no 'Nothing'"),
        (["--hook", f"{NETS}:Note", "--set", "hook.x=1"], "It takes run_dir, text."),
        (["--loss", "categorical_crosentropy"], "Did you mean 'categorical_crossentropy'?"),
        (["--metrics", "acuracy"], "Did you mean 'accuracy'?"),
        (["--metrics", "sparse_categorical_accuracy"], "they are one-hot rows: use 'accuracy'"),
        (["--set", "loss.smoothing=0.1", "--loss", "mse"], "has no argument 'smoothing'"),
        (["--set", "loss.reduction=all", "--loss", "mse"], "cannot be made with reduction='all'"),
        (["--set", "optimizer.beta_9=1", "--optimizer", "adam"], "has no argument 'beta_9'"),
        (["--keep_best", "val_auc"], "keep_best='val_auc' is not one of: accuracy, loss"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(tmp_path, capsys, flags, message):
    assert message in refused(capsys, tmp_path / "run", *flags)


def test_a_bug_of_the_person_keeps_its_traceback(tmp_path):
    with pytest.raises(KeyError, match="a bug of mine"):
        start(tmp_path / "run", model=f"{NETS}:broken")
    with pytest.raises(ValueError, match="a bug in my metric") as error:
        start(tmp_path / "run", "--metrics", f"{NETS}:broken_metric")
    assert not isinstance(error.value, engine.ConfigError)
    assert not (tmp_path / "run").exists()


def test_a_step_of_ones_own(tmp_path):
    """With the arithmetic of the default step, it gives the same bits; with a factor, others."""
    step, default, scaled = (tmp_path / name for name in ("step", "default", "scaled"))
    assert start(step, "--step", f"{NETS}:train_step") == 0
    assert start(default) == 0
    assert start(scaled, "--step", f"{NETS}:train_step", "--set", "step.scale=0.5") == 0
    assert read(step)["weights_sha256"] == read(default)["weights_sha256"]
    assert history(step)["loss"] == history(default)["loss"]
    assert read(scaled)["weights_sha256"] != read(default)["weights_sha256"]
    config = read(scaled, "config.json")
    assert (config["train_step"], config["step"]) == (f"{NETS}:train_step", None)
    keras.utils.clear_session(free_memory=False)  # its arguments are none of an evaluation
    flags = ["--mode", "evaluate", "--checkpoint", str(scaled), "--run_dir", str(tmp_path / "e")]
    assert train.main(flags) == 0
    assert read(tmp_path / "e")["test_accuracy"] == read(scaled)["test_accuracy"]


def test_a_number_of_step_is_replays(tmp_path):
    folder = tmp_path / "run"
    assert start(folder, "--step", f"{NETS}:train_step", "--set", "step.scale=0.5") == 0
    keras.utils.clear_session(free_memory=False)
    assert train.main(["--mode", "replay", "--run_dir", str(folder), "--step", "2"]) == 0
    assert json.loads((folder / "replay.json").read_text())["step"] == 2


def test_hooks_of_ones_own(tmp_path):
    folder = tmp_path / "run"
    flags = ["--hook", f"{NETS}:Note", "--hook", f"{NETS}:callbacks", "--epochs", "2"]
    assert start(folder, *flags, "--set", "hook.text=done", "--set", "hook.factor=0.25") == 0
    assert (folder / "note.txt").read_text() == "done 6"
    rates = history(folder)["learning_rate"]
    np.testing.assert_allclose(rates, [0.001 / 4, 0.001 / 16], rtol=1e-6)
    keras.utils.clear_session(free_memory=False)
    assert train.main(["--resume", "--run_dir", str(folder), "--epochs", "3"]) == 0
    np.testing.assert_allclose(history(folder)["learning_rate"][2], 0.001 / 64, rtol=1e-6)


@pytest.mark.parametrize(
    "flags",
    [
        ["--loss", "sparse_categorical_crossentropy", "--set", "loss.from_logits=true",
         "--metrics", "accuracy,top_2_accuracy"],
        ["--loss", "CategoricalCrossentropy", "--metrics", "accuracy,top_2_accuracy"],
        ["--loss", f"{NETS}:my_loss", "--metrics", "mae", "--metrics", f"{NETS}:my_loss"],
    ],
)  # fmt: skip
def test_losses_and_metrics_by_name(tmp_path, flags):
    assert start(tmp_path / "run", *flags) == 0
    names = set(history(tmp_path / "run"))
    expected = {"accuracy", "top_2_accuracy"} if "CrossEntropy".lower() in str(flags).lower() else {
        "mae", "my_loss"}  # fmt: skip
    assert names >= {*expected, *(f"val_{name}" for name in expected), "loss"}


def test_class_numbers_and_one_hot_rows_learn_alike(tmp_path):
    sparse, dense = tmp_path / "sparse", tmp_path / "dense"
    logits = ["--set", "loss.from_logits=true"]
    assert start(sparse, "--loss", "sparse_categorical_crossentropy", *logits) == 0
    assert start(dense, "--loss", "categorical_crossentropy", *logits) == 0
    np.testing.assert_allclose(history(sparse)["loss"], history(dense)["loss"], rtol=1e-5)
    assert history(sparse)["accuracy"] == history(dense)["accuracy"]


def test_arguments_of_a_compiled_loss_are_changed_and_the_others_stay():
    y, logits = np.eye(3, dtype="float32"), np.float32([[1, 2, 0]] * 3)
    compiled = keras.losses.CategoricalCrossentropy(from_logits=True, reduction="sum")
    changed = objectives.change_loss(compiled, {"label_smoothing": 0.1})
    expected = keras.losses.CategoricalCrossentropy(
        from_logits=True, reduction="sum", label_smoothing=0.1
    )
    assert float(changed(y, logits)) == float(expected(y, logits))
    huber = objectives.change_loss(keras.losses.Huber(delta=0.1), {"reduction": "sum"})
    expected = keras.losses.Huber(delta=0.1, reduction="sum")
    assert float(huber(y, logits)) == float(expected(y, logits))
    kinds = objectives._classes(keras.losses, keras.losses.Loss)
    assert all(objectives.change_loss(kind(), {"name": "other"}).name == "other" for kind in kinds)
    sums = objectives.change_loss("mse", {"reduction": "sum"})
    assert isinstance(sums, keras.losses.MeanSquaredError)


def test_a_loss_of_one_model_object_counts():
    job = Job(JobConfig(), None, None, None)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    job.state = engine.TrainState(model, "sgd")
    assert not job.has_loss
    model.compute_loss = types.MethodType(lambda self, x, *more: keras.ops.mean(self(x)), model)
    assert job.has_loss
