"""--mode export: what others load gives the probabilities of engine.predict."""

import dataclasses
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradloop import data, engine
from gradloop.cli import export as export_lib
from gradloop.cli.config import JobConfig
from gradloop.cli.job import Job
from gradloop.cli.log import Log
from gradloop.cli.run_folder import RunFolder
from gradloop.cli.work import objectives
from gradloop.cli.work.parts import Work
from tests.cli import own_nets
from tests.cli.runs import ROOT, contents

NUM_IMAGES = 200  # 4 batches, the last one partial


def make_job(**fields):
    """A job as set_up leaves it, with weights that no initializer makes."""
    config = JobConfig(**{"model": "dense", "dataset": "synthetic"} | fields)
    train, test = data.synthetic.load_data(num_train=NUM_IMAGES, num_test=NUM_IMAGES)
    splits = data.Splits(data.Split(*train, 10), data.Split(*test, 10))
    work = Work(config, splits.input_shape, splits.num_classes)
    job = Job(config, work, splits, engine.make_strategy(config))
    with job.strategy.scope():
        job.state = job.make_state()
    job.state.build(job.make_dataset().element_spec)
    engine.fit(job.state, job.make_dataset(training=True), engine.TrainConfig(epochs=1))
    return job


def run(job, tmp_path):
    folder = RunFolder(tmp_path)
    with Log(tmp_path / "train.log") as log:
        export_lib.export(job, folder, log)
    return tmp_path / "export"


def expected(job):
    return engine.predict(job.state, job.make_dataset(), job.config)


def in_batches(function, images, size):
    return np.concatenate([function(images[i : i + size]) for i in range(0, len(images), size)])


def served(path, job, output="probabilities"):
    signature = tf.saved_model.load(str(path)).signatures["serving_default"]
    assert signature.structured_input_signature[1]["images"].dtype == tf.uint8
    size = job.config.global_batch_size
    return in_batches(
        lambda x: signature(images=tf.constant(x))[output].numpy(), job.splits.test.x, size
    )


@pytest.mark.parametrize(
    ("model", "rescale"), [("dense", True), ("dense", False), ("cnn", None), ("lstm", None)]
)
def test_the_saved_model_goes_from_uint8_images_to_the_bits_of_predict(model, rescale, tmp_path):
    job = make_job(model=model, rescale=rescale)
    path = run(job, tmp_path) / "saved_model"
    np.testing.assert_array_equal(served(path, job), expected(job))


class Own(keras.Model):
    def __init__(self):
        super().__init__()
        self.flatten, self.dense = keras.layers.Flatten(), keras.layers.Dense(10)

    def call(self, x):
        return self.dense(self.flatten(x))


@pytest.mark.parametrize(
    ("make", "output"),
    [
        (Own, "probabilities"),  # for which the loss takes them
        (lambda: keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(10)]), "outputs"),
    ],
    ids=["subclassed", "without an input"],
)
def test_models_that_are_built_by_their_first_batch_are_exported(
    make, output, tmp_path, monkeypatch
):
    with monkeypatch.context() as patch:
        patch.setattr(Work, "build_model", lambda self: make())
        job = make_job()
        path = run(job, tmp_path) / "saved_model"
    np.testing.assert_array_equal(served(path, job, output), expected(job))


@pytest.mark.parametrize(
    ("make", "loss", "are_such"),
    [
        (lambda: own_nets.yes_or_no((3,)), None, True),
        (lambda: own_nets.number((3,)), keras.losses.CategoricalCrossentropy(), False),
        (lambda: own_nets.Subclassed(2), "sparse_categorical_crossentropy", True),
        (lambda: own_nets.Subclassed(2), keras.losses.BinaryCrossentropy(from_logits=True), False),
        (lambda: own_nets.Subclassed(2), "mse", False),
    ],
)
def test_probabilities_are_what_the_last_layer_or_the_loss_says(make, loss, are_such):
    assert objectives.are_probabilities(make(), loss) == are_such


def test_a_model_of_several_outputs_is_refused_in_a_sentence():
    serving = export_lib._Serving(lambda x, training: [x, x], 2, "outputs", rescale=None)
    with pytest.raises(engine.ConfigError, match="models of one output: use format='keras'"):
        serving.predict(tf.zeros((2, 3)))


@pytest.mark.parametrize("form", ["saved_model", "keras", "weights"])
def test_each_format_from_a_mirrored_state(form, tmp_path):
    job = make_job(strategy="mirrored", num_replicas=2, format=form)
    folder = run(job, tmp_path)
    images = (job.splits.test.x[..., None] / 255).astype("float32")
    if form == "saved_model":
        outputs = served(folder / "saved_model", job)
    elif form == "keras":
        outputs = keras.models.load_model(folder / "model.keras").predict(images, verbose=0)
    else:
        model = job.build_model()
        model.load_weights(folder / "model.weights.h5")
        outputs = model.predict(images, verbose=0)
    np.testing.assert_allclose(outputs, expected(job), rtol=1e-5, atol=1e-7)
    assert [path.name for path in folder.iterdir()] == [export_lib._FORMATS[form][0]]


def test_statistics_of_replicas_are_averaged(monkeypatch):
    def build(input_shape, num_classes):
        return keras.Sequential([keras.Input(input_shape), keras.layers.BatchNormalization()])

    job = make_job()
    monkeypatch.setattr(job.work, "_build", build)
    with engine.make_strategy(engine.TrainConfig(strategy="mirrored", num_replicas=2)).scope():
        job.state = job.make_state()
    first, second = job.state.model.layers[0].moving_mean.value.values
    first.assign([1.0])
    second.assign([4.0])
    mean = export_lib.model_on_one_device(job).layers[0].moving_mean
    np.testing.assert_array_equal(mean.numpy(), [2.5])


def test_what_is_there_is_not_overwritten(tmp_path):
    job = make_job()
    for form in ("saved_model", "keras", "weights"):
        job.config = dataclasses.replace(job.config, format=form)
        folder = run(job, tmp_path)
        before = contents(folder)
        with pytest.raises(engine.ConfigError, match="exists already: move it away"):
            run(job, tmp_path)
        assert contents(folder) == before


def test_an_export_that_fails_leaves_nothing_and_one_that_was_killed_is_cleared(
    tmp_path, monkeypatch
):
    job = make_job()
    monkeypatch.setattr(export_lib.os, "fsync", lambda descriptor: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(job, tmp_path)
    assert list((tmp_path / "export").iterdir()) == []
    monkeypatch.undo()
    torn = tmp_path / "export" / "unfinished" / "saved_model"
    torn.mkdir(parents=True)
    (torn / "saved_model.pb").write_bytes(b"torn")
    assert [path.name for path in run(job, tmp_path).iterdir()] == ["saved_model"]


@pytest.mark.slow
def test_train_py_exports_and_a_fresh_process_loads_it(tmp_path):
    flags = ["--model", "dense", "--dataset", "synthetic", "--run_dir", str(tmp_path / "run")]
    train = [sys.executable, str(ROOT / "train.py")]
    subprocess.run([*train, *flags, "--fast_dev_run"], check=True, capture_output=True)
    subprocess.run([*train, "--mode", "predict", *flags, "--resume"], check=True)
    subprocess.run([*train, "--mode", "export", *flags, "--resume"], check=True)
    code = (
        "import sys, numpy as np, tensorflow as tf\n"
        "from gradloop import data\n"
        "images = data.load('synthetic').test.x\n"
        "function = tf.saved_model.load(sys.argv[1]).signatures['serving_default']\n"
        "batches = [images[i : i + 128] for i in range(0, len(images), 128)]\n"
        "outputs = [function(images=tf.constant(b))['probabilities'] for b in batches]\n"
        "np.save(sys.argv[2], np.concatenate(outputs))\n"
    )
    saved, outputs = tmp_path / "run" / "export" / "saved_model", tmp_path / "outputs.npy"
    subprocess.run([sys.executable, "-c", code, str(saved), str(outputs)], check=True, cwd=ROOT)
    predicted = np.load(tmp_path / "run" / "predictions.npz")["probabilities"]
    np.testing.assert_array_equal(np.load(outputs), predicted)
