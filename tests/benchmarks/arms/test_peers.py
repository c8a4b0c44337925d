"""The arms of other frameworks do the same work as `keras_fit`: the same loss and the same weights.

Runs where those frameworks are, without TensorFlow:

    .venv-peers/bin/python -m pytest --noconftest tests/benchmarks/arms/test_peers.py
"""

import dataclasses
import functools
import importlib
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from benchmarks.race import trials, weights
from benchmarks.race.workloads import WORKLOADS, Task

torch = pytest.importorskip("torch", reason="the peers are not installed: make peers")
pytest.importorskip("lightning", reason="the peers are not installed: make peers")
pytest.importorskip("optax", reason="the peers are not installed: make peers")

# keras_jax_fit wants it, and Keras reads it once.
os.environ["KERAS_BACKEND"] = "jax"
keras = pytest.importorskip("keras")
if keras.backend.backend() != "jax":
    pytest.skip("Keras has another backend in this process", allow_module_level=True)

pytestmark = [
    # Of the frameworks themselves.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

COMPILER = pytest.param(
    "torch_compile",
    marks=pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs g++"),
)
ARMS = ["torch_eager", COMPILER, "lightning", "jax_step", "jax_scan", "keras_jax_fit"]
NUM_STEPS = 4


@pytest.fixture(autouse=True)
def fresh_keras():
    """Replaces conftest's, which is TensorFlow's; a policy of one test is not the next one's."""
    yield
    keras.config.set_dtype_policy("float32")


@functools.cache
def initial_weights(workload):
    from benchmarks.race import keras_models

    keras.utils.set_random_seed(0)
    return keras_models.build(workload).get_weights()


@pytest.fixture
def make_task(tmp_path):
    def make(name, precision="float32", dropout=True, **changes):
        changes = {"global_batch_size": 8, "num_examples": 8 * NUM_STEPS, **changes}
        workload = dataclasses.replace(WORKLOADS[name], **changes)
        generator = np.random.default_rng(0)
        num = workload.num_examples
        dtype = np.int32 if len(workload.input_shape) == 1 else np.uint8
        x = generator.integers(0, 256, (num, *workload.input_shape)).astype(dtype)
        np.save(tmp_path / "x_train.npy", x)
        np.save(tmp_path / "y_train.npy", generator.integers(0, workload.num_classes, num))
        np.save(tmp_path / "order.npy", generator.permutation(num))
        weights.save(tmp_path / "initial.npz", initial_weights(workload))
        return Task(workload=workload, directory=tmp_path, precision=precision, dropout=dropout)

    return make


def make_arm(name, task):
    return importlib.import_module(f"benchmarks.arms.{name}").Arm(task)


def load(task):
    names = ("x_train", "y_train", "order")
    x, y, order = (np.load(task.directory / f"{name}.npy") for name in names)
    return x[order], y[order], weights.load(task.directory / "initial.npz")


class NumpyDense:
    """The dense net with RMSprop, worked out by hand in float64."""

    def __init__(self, task):
        self.task = task
        self.x, self.y, initial = load(task)
        self.weights = [weight.astype(np.float64) for weight in initial]
        self.mean_squares = [np.zeros_like(weight) for weight in self.weights]

    def step(self, rows):
        x, y = self.x[rows].reshape(len(self.y[rows]), -1) / 255, np.eye(10)[self.y[rows]]
        kernel1, bias1, kernel2, bias2 = self.weights
        hidden = np.maximum(x @ kernel1 + bias1, 0)
        exps = np.exp(hidden @ kernel2 + bias2)
        yes = exps / exps.sum(1, keepdims=True)
        of_logits = (yes - y) / len(y)
        of_hidden = of_logits @ kernel2.T * (hidden > 0)
        gradients = [x.T @ of_hidden, of_hidden.sum(0), hidden.T @ of_logits, of_logits.sum(0)]
        for i, gradient in enumerate(gradients):
            square = self.mean_squares[i] = 0.9 * self.mean_squares[i] + 0.1 * gradient**2
            rate = self.task.workload.learning_rate
            self.weights[i] = self.weights[i] - rate * gradient / np.sqrt(square + 1e-7)
        self.num_right += int((yes.argmax(1) == self.y[rows]).sum())
        return -np.log(yes[y == 1]).mean()

    def run(self, num_epochs):
        size = self.task.workload.global_batch_size
        self.num_right = 0
        starts = [*range(0, self.task.workload.num_examples, size)] * num_epochs
        return np.mean([self.step(slice(start, start + size)) for start in starts])


@pytest.mark.parametrize("name", ARMS)
def test_dense_nets_are_those_of_numpy_over_several_runs(name, make_task):
    task = make_task("tiny")
    arm, reference = make_arm(name, task), NumpyDense(task)
    for num_epochs in (1, 2):
        assert arm.run(num_epochs) == pytest.approx(reference.run(num_epochs), rel=1e-3)
    for ours, theirs in zip(arm.weights(), reference.weights, strict=True):
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, atol=1e-4)
    if name != "keras_jax_fit":  # Keras's own metrics count there
        assert int(getattr(arm, "metrics", arm).num_right) == reference.num_right
    assert arm.bits_of is None
    assert arm.settings


# The reference is keras_jax_fit: its model, loss and optimizer are Keras's own.
PEERS = [arm for arm in ARMS if arm != "keras_jax_fit"]


@pytest.mark.parametrize("name", PEERS)
@pytest.mark.parametrize("workload", ["cnn", "lstm", "transformer", "wide"])
def test_nets_are_those_of_keras(name, workload, make_task):
    # Narrow, so that it is quick.
    task = make_task(workload, units=16, dropout=False)
    arm, reference = make_arm(name, task), make_arm("keras_jax_fit", task)
    assert arm.run(1) == pytest.approx(reference.run(1), rel=1e-3)
    initial = weights.load(task.directory / "initial.npz")
    for ours, theirs, before in zip(arm.weights(), reference.weights(), initial, strict=True):
        assert ours.shape == theirs.shape
        assert np.any(ours != before)
        # Where a gradient is almost nothing, rounding decides which way the optimizer goes.
        assert np.mean(np.abs(ours - theirs) > 2e-4) < 0.01


def test_resnet50_is_that_of_keras(make_task):
    task = make_task("resnet50", input_shape=(32, 32, 3), global_batch_size=4, num_examples=4)
    arm, reference = make_arm("torch_eager", task), make_arm("keras_jax_fit", task)
    assert arm.run(1) == pytest.approx(reference.run(1), rel=1e-3)
    names = [weight.path.rpartition("/")[2] for weight in reference._model.weights]
    for name, ours, theirs in zip(names, arm.weights(), reference.weights(), strict=True):
        assert ours.shape == theirs.shape
        # PyTorch's variance is that of the sample, with one example less in the divisor.
        if name == "moving_mean":
            np.testing.assert_allclose(ours, theirs, atol=1e-4)


@pytest.mark.parametrize("name", ARMS)
def test_dropout_costs_on_average_what_it_costs_in_keras(name, make_task):
    task = make_task("cnn", units=16, num_examples=400, learning_rate=0.0)
    # Large weights, so that what is dropped is missed.
    initial = weights.load(task.directory / "initial.npz")
    weights.save(task.directory / "initial.npz", [3 * weight for weight in initial])
    arm, reference = make_arm(name, task), make_arm("keras_jax_fit", task)
    losses = [arm.run(1), arm.run(1)]
    assert losses[0] != losses[1]
    expected = reference.run(4)
    assert np.mean(losses) == pytest.approx(expected, rel=0.05)
    without = dataclasses.replace(task, dropout=False)
    assert make_arm(name, without).run(1) < 0.8 * expected


@pytest.mark.parametrize("name", ARMS)
def test_bfloat16_reaches_the_same_loss(name, make_task):
    losses = [
        make_arm(name, make_task("cnn", precision, units=16, dropout=False)).run(2)
        for precision in ("float32", "mixed_bfloat16")
    ]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)
    assert losses[0] != losses[1]


@pytest.mark.parametrize("name", PEERS)
def test_what_an_arm_cannot_do_is_said_in_one_line(name, make_task):
    with pytest.raises(NotImplementedError, match="mixed_float16"):
        make_arm(name, make_task("tiny", "mixed_float16"))


@pytest.mark.parametrize("name", ARMS)
def test_without_a_gpu_an_arm_for_one_says_so_in_one_line(name, make_task, monkeypatch):
    import jax

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    task = dataclasses.replace(make_task("tiny"), device="gpu")
    with pytest.raises(NotImplementedError, match=r"sees no GPU|on the CPU only"):
        make_arm(name, task)


def test_float32_on_a_gpu_is_not_tensorfloat32_unless_asked(make_task, monkeypatch):
    import jax

    from benchmarks.arms import jax_device, torch_device

    updated, backends = {}, torch.backends
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(type(jax.config), "update", lambda self, *pair: updated.update([pair]))
    for precision, products in (("tf32", "tensorfloat32"), ("float32", "float32")):
        task = dataclasses.replace(make_task("tiny"), device="gpu", precision=precision)
        assert torch_device.find(task).type == "cuda"
        jax_device.configure(task)
        assert updated == {"jax_default_matmul_precision": products}
        allowed = (backends.cuda.matmul.allow_tf32, backends.cudnn.allow_tf32)
        assert allowed == (precision == "tf32",) * 2


def test_both_ways_to_convolve_give_the_same():
    from benchmarks.arms import jax_models

    random = np.random.default_rng(0)
    x, kernel = (random.normal(size=s).astype("float32") for s in ((2, 7, 6, 3), (3, 3, 3, 4)))
    by_patches = jax_models.multiply_patches(x, kernel)
    np.testing.assert_allclose(jax_models.convolve(x, kernel), by_patches, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["jax_step", "jax_scan"])
def test_the_faster_way_to_convolve_is_found_in_the_run(name, make_task, monkeypatch):
    import jax.numpy as jnp

    from benchmarks.arms import jax_models, jax_training

    def slow(x, kernel):
        for _ in range(50):
            x = jnp.sin(x)
        return jax_models.convolve(x, kernel)

    for slowed in jax_models.CONVOLUTIONS:
        ways = {"lax.conv": jax_models.convolve, "patches": jax_models.multiply_patches}
        monkeypatch.setattr(jax_models, "CONVOLUTIONS", ways | {slowed: slow})
        task = make_task("cnn", units=16)
        arm = make_arm(name, task)
        assert arm.settings["convolution"] != slowed
        assert arm.settings["convolution_secs"].keys() == ways.keys()
        # Another one takes what this one found.
        monkeypatch.setattr(jax_training, "find_settings", None)
        again = importlib.import_module(f"benchmarks.arms.{name}").Arm(task, arm.found)
        assert again.settings == arm.settings
        monkeypatch.undo()


@pytest.mark.parametrize("name", ["torch_eager", "jax_scan", "keras_jax_fit"])
def test_threads_are_tried_in_processes(name, make_task):
    task = make_task("tiny")
    found = trials.find_threads(f"benchmarks.arms.{name}", sys.executable, task)
    assert min(found.tried["default"] + found.tried["one"]) > 0


def test_a_process_of_one_thread_has_one():
    code = "import torch; print(torch.get_num_threads())"
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | trials.ONE_THREAD, capture_output=True,
        text=True, check=True,
    )  # fmt: skip
    assert int(done.stdout) == 1


def test_a_missing_compiler_is_named(make_task, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(RuntimeError, match="needs no-such-compiler"):
        make_arm("torch_compile", make_task("tiny"))


def test_no_arm_imports_tensorflow(make_task):
    make_arm("keras_jax_fit", make_task("tiny")).run(1)
    assert "tensorflow" not in sys.modules
