"""What is trained in a benchmark. Imports no framework: the process of each arm reads this.

A workload is a model, its data and its optimizer. The harness writes what all arms share into one
directory (`Task.directory`), so that each trains from the same weights on the same batches:

    x_train.npy     [num_examples, *input_shape], uint8 pixels 0..255 (token ids: int32)
    y_train.npy     [num_examples], int64 labels
    x_test.npy, y_test.npy
    order.npy       [num_examples], int64: the order of the examples, the same in each epoch, in
                    which a seeded `keras.Model.fit` takes arrays
    initial.npz     w000, w001, ...: the model's weights in Keras's order and layout
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# The transformer, whose width is the workload's `units`.
NUM_BLOCKS = 4
NUM_HEADS = 4
VOCABULARY_SIZE = 256
FEED_FORWARD_FACTOR = 4
LAYER_NORM_EPSILON = 1e-5
# Keras's default of AdamW.
WEIGHT_DECAY = 0.004


@dataclasses.dataclass(frozen=True, kw_only=True)
class Workload:
    """A model, its data and its optimizer.

    Attributes:
      name: Name of the workload.
      model: Name of the model, which the arms know.
      dataset: "mnist", or "synthetic": learnable, generated from a seed.
      input_shape: Shape of one example.
      num_classes: Size of the output.
      num_examples: Examples per epoch; a multiple of the batch size, because some frameworks cannot
        compile a partial batch.
      global_batch_size: Examples per step.
      optimizer: "rmsprop" (rho 0.9, epsilon 1e-7 inside the root), "adam" (0.9, 0.999, 1e-7) or
        "adamw" (the same, and a decay of 0.004), all with Keras's formula.
      learning_rate: Constant.
      loss: "categorical_crossentropy", or "binary_crossentropy" over all outputs, as in the
        tutorial's convolutional net. For the latter, Keras with TensorFlow takes the logits that
        the softmax gets: the loss is the mean of their sigmoid cross-entropies, 0.69 at the start.
      units: Size of a hidden layer.
      num_hidden: Number of hidden layers of the model "dense".
      has_steady_bits: Whether training twice in TensorFlow gives the same bits. Those of ResNet50's
        large convolutions change from run to run on a CPU, with op determinism too.
      has_dropout: Whether the model drops values, of which each framework draws others.
      secs_per_arm: Time for the rounds of a race, for each of its arms.
    """

    name: str
    model: str
    dataset: str
    input_shape: tuple[int, ...]
    num_classes: int
    num_examples: int
    global_batch_size: int
    optimizer: str
    learning_rate: float = 1e-3
    loss: str = "categorical_crossentropy"
    units: int = 128
    num_hidden: int = 1
    has_steady_bits: bool = True
    has_dropout: bool = False
    secs_per_arm: float = 24.0

    @property
    def steps_per_epoch(self) -> int:
        """The number of steps in one pass over the examples."""
        return self.num_examples // self.global_batch_size


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """What an arm does.

    Attributes:
      workload: What it trains.
      directory: Directory of the arrays; see the module's docstring.
      device: "cpu" or "gpu".
      precision: "float32", "tf32" (float32 with TensorFloat-32 products, on a GPU),
        "mixed_bfloat16" or "mixed_float16".
      jit_compile: Whether all TensorFlow arms use XLA; None: each arm decides.
      num_devices: GPUs, or logical CPU devices, to spread over.
      deterministic: Whether operations are deterministic.
      mirrors: Whether the TensorFlow arms use MirroredStrategy on one device, too.
      seed: Of dropout, and of everything else that an arm draws.
      dropout: Whether a model with dropout drops values. Without, the losses of all frameworks are
        near one another.
    """

    workload: Workload
    directory: Path
    device: str = "cpu"
    precision: str = "float32"
    jit_compile: bool | None = False
    num_devices: int = 1
    deterministic: bool = False
    mirrors: bool = False
    seed: int = 0
    dropout: bool = True

    @property
    def has_replicas(self) -> bool:
        """Whether the TensorFlow arms use MirroredStrategy."""
        return self.num_devices > 1 or self.mirrors

    def to_dict(self) -> dict[str, Any]:
        """Returns the task as JSON has it; see `from_dict`."""
        return dataclasses.asdict(self) | {"directory": str(self.directory)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Task:
        """Returns the task that `to_dict` described.

        Args:
          values: As `to_dict` returns them, or read back from JSON.
        """
        workload = dict(values["workload"])
        workload["input_shape"] = tuple(workload["input_shape"])
        directory = Path(values["directory"])
        return cls(**(dict(values) | {"workload": Workload(**workload), "directory": directory}))


def _mnist(name: str, model: str, **values: object) -> Workload:
    defaults: dict[str, object] = {
        "dataset": "mnist", "input_shape": (28, 28, 1), "num_classes": 10, "optimizer": "rmsprop"
    }  # fmt: skip
    return Workload(name=name, model=model, **(defaults | values))  # type: ignore[arg-type]


# Most arms train the examples of an epoch in 0.1 to 2 seconds: a round of all arms is short.
# 59,904 is the largest multiple of 128 in MNIST's 60,000.
WORKLOADS = {
    workload.name: workload
    for workload in (
        _mnist("tiny", "dense", units=32, global_batch_size=32, num_examples=60_000),
        _mnist("dense", "dense", units=512, global_batch_size=128, num_examples=59_904),
        _mnist(
            "wide", "dense", units=2048, num_hidden=2, global_batch_size=128, num_examples=2_048,
            optimizer="adamw",
        ),
        _mnist(
            "cnn", "cnn", global_batch_size=64, num_examples=5_120, loss="binary_crossentropy",
            has_dropout=True,
        ),
        _mnist(
            "lstm", "lstm", global_batch_size=128, num_examples=6_400,
            optimizer="adam", learning_rate=2e-3,
        ),
        Workload(
            name="resnet50", model="resnet50", dataset="synthetic", input_shape=(224, 224, 3),
            num_classes=10, num_examples=16, global_batch_size=8, optimizer="rmsprop",
            # Small, so that runs with other bits still have about the same loss.
            learning_rate=1e-5, has_steady_bits=False, secs_per_arm=60.0,
        ),
        Workload(
            name="transformer", model="transformer", dataset="synthetic", input_shape=(128,),
            num_classes=10, num_examples=160, global_batch_size=32, optimizer="adam", units=256,
        ),
    )
}  # fmt: skip
