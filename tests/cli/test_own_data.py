"""--dataset: files, folders and functions of one's own, trained on from the command line."""

import dataclasses
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradloop import data, engine
from gradloop.cli import main as train
from gradloop.cli import splits as splits_lib
from gradloop.cli.config import JobConfig
from tests.cli.runs import ROOT, SMALL, contents, read
from tests.data.own import files


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Runs lie in an empty folder; indices are kept there, too."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(folder, *flags, rc=0):
    keras.utils.clear_session(free_memory=False)
    assert train.main([*map(str, flags), "--run_dir", str(folder), "--no_plots"]) == rc
    return read(folder) if rc == 0 else None


SMALL_MODEL = ["--model", "dense", "--batch_size", "8"]


@pytest.mark.slow
def test_a_streamed_folder_of_images_resumes_in_mid_epoch_with_equal_bits(tmp_path):
    flags = ["--dataset", files.write_images(tmp_path), *SMALL_MODEL, "--epochs", 2]
    whole = run(tmp_path / "whole", *flags)  # from memory
    streamed = [*flags, "--in_memory", "false"]
    stopped = run(tmp_path / "parts", *streamed, "--max_steps", 9)  # of 14
    assert stopped["num_steps"] == 9
    resumed = run(tmp_path / "parts", "--resume", "--max_steps", "none")
    assert resumed["num_steps"] == 14
    assert resumed["weights_sha256"] == whole["weights_sha256"] != stopped["weights_sha256"]
    assert resumed["test_accuracy"] == whole["test_accuracy"]
    assert read(tmp_path / "parts", "config.json")["in_memory"] is False


def test_a_table_of_numbers_trains_without_classes_and_without_a_test_set(tmp_path, capsys):
    path = files.write_csv(tmp_path)
    (tmp_path / "own_net.py").write_text(
        "import keras\n"
        "def build(input_shape):\n"
        "    return keras.Sequential([keras.Input(input_shape), keras.layers.Dense(1)])\n"
    )
    flags = ["--dataset", path, "--target", "price", "--features", "age,height"]
    flags += ["--model", "own_net:build", "--validation_split", "0.2", "--epochs", "1"]
    summary = run(tmp_path / "run", *flags)
    assert {"loss", "val_loss"} <= set(summary["history"]) and summary["test_accuracy"] is None
    assert f"{path}, 40 training and 10 validation examples" in capsys.readouterr().out


def test_a_function_of_ones_own_is_called_with_its_arguments(tmp_path):
    (tmp_path / "own_set.py").write_text(
        "import numpy as np\n"
        "def load(side=4, broken=False):\n"
        "    if broken: raise ValueError('my own mistake')\n"
        "    x = np.zeros((40, side, side), np.uint8)\n"
        "    return (x, np.arange(40) % 2), (x, np.arange(40) % 2)\n"
    )
    flags = ["--dataset", "own_set:load", *SMALL_MODEL, "--fast_dev_run"]
    run(tmp_path / "run", *flags, "--set", "dataset.side=6")
    splits = splits_lib.load_splits(JobConfig(dataset="own_set:load", set={"dataset.side": 5}))
    assert splits.input_shape == (5, 5, 1) and splits.num_classes == 2
    with pytest.raises(ValueError, match="my own mistake"):  # with its traceback, as it is a bug
        splits_lib.load_splits(JobConfig(dataset="own_set:load", set={"dataset.broken": True}))


def test_with_a_validation_split_the_test_set_is_used_once(tmp_path, monkeypatch):
    made = []
    make = data.Split.make_dataset

    def count(split, **options):
        made.append(split.num_examples)
        return make(split, **options)

    monkeypatch.setattr(data.Split, "make_dataset", count)
    flags = ["--dataset", files.write_npz(tmp_path), *SMALL_MODEL, "--epochs", "2"]
    summary = run(tmp_path / "run", *flags, "--validation_split", "0.2")
    assert made.count(9) == 1 and set(made) == {40, 10, 9}
    assert len(summary["history"]["val_loss"]) == 2 and summary["test_accuracy"] is not None


@pytest.mark.parametrize(
    "options",
    [
        {"resume": True, "run_dir": "run"}, {"resume": "auto", "run_dir": "run"},
        {"resume": True, "run_dir": "run", "mode": "replay", "step": 2},
        {"mode": "predict", "checkpoint": "elsewhere"},
    ],
)  # fmt: skip
def test_a_split_beside_validation_examples_is_refused_only_where_a_run_begins(tmp_path, options):
    x, y = np.zeros((40, 4, 4), np.uint8), np.arange(40) % 2
    np.savez(tmp_path / "set.npz", x_train=x, y_train=y, x_val=x[:3], y_val=y[:3])
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text('{"validation_split": 0.2}')
    asked = JobConfig(dataset="set.npz", validation_split=0.2, **options)
    assert splits_lib.load_splits(asked).validation.num_examples == 8
    new = JobConfig(dataset="set.npz", validation_split=0.2, resume="auto", run_dir="new")
    with pytest.raises(engine.ConfigError, match="validation examples of its own"):
        splits_lib.load_splits(new)


@pytest.mark.slow
def test_a_run_of_an_earlier_version_keeps_its_validation_split(tmp_path):
    """It was taken in place of the dataset's own validation examples, without a word."""
    x, y = np.random.default_rng(0).integers(0, 255, (40, 4, 4), np.uint8), np.arange(40) % 2
    parts = {"x_train": x, "y_train": y, "x_test": x[:9], "y_test": y[:9]}
    np.savez(tmp_path / "set.npz", **parts)
    flags = ["--dataset", "set.npz", *SMALL_MODEL, "--validation_split", "0.2"]
    whole = run(tmp_path / "whole", *flags, "--epochs", "2")
    run(tmp_path / "run", *flags, "--epochs", "1")
    np.savez(tmp_path / "set.npz", **parts, x_val=x[:8], y_val=y[:8])
    assert run(tmp_path / "run", "--resume", "--epochs", "2")["history"] == whole["history"]


@pytest.mark.slow
def test_overfit_batches_trains_and_validates_on_the_same_batches_in_one_order(tmp_path):
    config = JobConfig(dataset=str(files.write_npz(tmp_path)), overfit_batches=2,
                       global_batch_size=8)  # fmt: skip
    splits = splits_lib.load_splits(config)
    x = files.images(1)[np.arange(16) * files.N // 16, ..., 0]
    np.testing.assert_array_equal(splits.train.x, x)
    np.testing.assert_array_equal(splits.validation.x, x)
    flags = ["--dataset", config.dataset, *SMALL_MODEL, "--overfit_batches", "2"]
    summary = run(tmp_path / "run", *flags, "--epochs", "30")
    assert summary["num_steps"] == 60
    assert summary["history"]["val_accuracy"][-1] > 0.9


@pytest.mark.slow
def test_evaluate_and_predict_read_files_again(tmp_path):
    flags = ["--dataset", files.write_images(tmp_path), "--in_memory", "false", *SMALL_MODEL]
    trained = run(tmp_path / "run", *flags, "--epochs", "1")
    folder = tmp_path / "run"
    for mode in ("evaluate", "predict"):
        keras.utils.clear_session(free_memory=False)
        flags = ["--mode", mode, "--run_dir", str(folder), "--resume"]
        assert train.main(flags) == 0
        found = read(folder, f"summary.{mode}.json")
        assert found["test_accuracy"] == pytest.approx(trained["test_accuracy"])
    lines = (folder / "predictions.csv").read_text().splitlines()
    assert len(lines) == files.N + 1


def test_a_served_model_takes_the_numbers_of_a_table(tmp_path):
    flags = ["--dataset", files.write_csv(tmp_path), "--target", "kind", *SMALL_MODEL]
    run(tmp_path / "run", *flags, "--epochs", "1")
    assert train.main(["--mode", "export", "--run_dir", str(tmp_path / "run"), "--resume"]) == 0
    served = tf.saved_model.load(str(tmp_path / "run" / "export" / "saved_model"))
    (spec,) = served.signatures["serving_default"].structured_input_signature[1].values()
    assert (spec.shape[1:], spec.dtype) == ((5,), tf.float32)


@pytest.mark.slow
def test_replicas_train_on_a_streamed_folder_as_on_one_in_memory(tmp_path):
    flags = ["--dataset", files.write_images(tmp_path), *SMALL_MODEL, "--epochs", "1"]
    flags += ["--strategy", "mirrored", "--num_replicas", "2"]
    found = [
        run(tmp_path / word, *flags, "--in_memory", word)["weights_sha256"]
        for word in ("true", "false")
    ]
    assert found[0] == found[1]


DOCUMENTED = [
    line.partition("#")[0].split()[2:]
    for line in (ROOT / "docs" / "command_line.md").read_text("utf-8").splitlines()
    if line.startswith("python train.py --dataset ")
]


@pytest.mark.slow
@pytest.mark.parametrize("number", range(6))
def test_the_commands_of_the_page_run(number, tmp_path):
    for write in (files.write_csv, files.write_images, files.write_npz, files.write_records):
        write(tmp_path)
    (tmp_path / "own_set.py").write_text(
        "import numpy as np\n"
        "def load(side):\n"
        "    return {'x': np.zeros((40, side, side), np.uint8), 'y': np.arange(40) % 2}\n"
    )
    assert len(DOCUMENTED) == 6
    flags = DOCUMENTED[number]
    model = [] if "pictures" in flags or "own_set:load" in flags else ["--model", "dense"]
    more = [*model, "--epochs", "1", "--batch_size", "8"]
    assert run(tmp_path / "run", *flags, *more)["status"] == "completed"


BAD = {
    "nowhere.npz": [["--dataset", "nowhere.npz"], "does not exist: name one of mnist"],
    "mistyped": [["--dataset", "fashion_mnits"], "Did you mean 'fashion_mnist'?"],
    "extension": [["--dataset", "own_set.py"], "'.py' is none of a dataset"],
    "module": [["--dataset", "own_sets:load"], "there is no module 'own_sets'"],
    "no target": [["--dataset", "table.csv"], "Pass --target NAME"],
    "near": [["--dataset", "table.csv", "--target", "knid"], "Did you mean 'kind'?"],
    "target of images": [["--dataset", "mnist", "--target", "y"], "target='y' is not for"],
    "image_size": [["--dataset", "pictures", "--image_size", "4,4,4"], "image_size=[4, 4, 4]"],
    "resident": [["--dataset", "pictures", "--in_memory", "false", "--input", "resident"],
                 "input='resident' is for examples in memory"],
    "split": [["--validation_split", "1.5", *SMALL], "validation_split=1.5"],
    "small split": [["--validation_split", "1e-9", *SMALL], "leaves one part empty"],
    "overfit": [["--overfit_batches", "9999", *SMALL], "full batches of"],
    "two validation sets": [["--dataset", "with_val.npz", "--validation_split", "0.1"],
                            "has validation examples of its own"],
    "no bytes": [["--dataset", "table.csv", "--target", "kind", "--rescale"],
                 "rescale=true divides bytes (uint8) by 255, and dataset='table.csv' has float32"],
    "both": [["--overfit_batches", "2", "--validation_split", "0.1", *SMALL], "leave one of"],
    "no test set": [["--mode", "evaluate", "--dataset", "table.csv", "--target", "kind",
                     "--checkpoint", "none.npz"], ""],
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_one_line_and_leaves_nothing_behind(name, tmp_path, capsys):
    files.write_csv(tmp_path)
    files.write_images(tmp_path, n=6)
    x, y = np.zeros((8, 4, 4), np.uint8), np.arange(8) % 2
    parts = {"x_train": x, "y_train": y, "x_val": x, "y_val": y}
    np.savez(tmp_path / "with_val.npz", **parts)
    (tmp_path / "own_set.py").write_text("def load(): return 1")
    before = contents(tmp_path)
    flags, expected = BAD[name]
    assert train.main(["--model", "dense", *flags]) == 2
    err = capsys.readouterr().err
    assert expected in err and err.count("\n") == 1 and "Traceback" not in err
    left = {path for path in contents(tmp_path) if "cache" not in path.parts}
    assert left - {tmp_path / "__pycache__"} == set(before)


def test_job_config_has_a_field_for_each_option_of_files():
    names = {field.name for field in dataclasses.fields(splits_lib.FileOptions)}
    assert names <= {field.name for field in dataclasses.fields(JobConfig)}
