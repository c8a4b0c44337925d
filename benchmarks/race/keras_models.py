"""The Keras models of the workloads, with their losses, optimizers and metrics."""

from __future__ import annotations

from typing import Any

import keras

from benchmarks.race.workloads import (
    FEED_FORWARD_FACTOR,
    LAYER_NORM_EPSILON,
    NUM_BLOCKS,
    NUM_HEADS,
    VOCABULARY_SIZE,
    Workload,
)
from gradloop.models import cnn, dense, lstm


class PositionEmbedding(keras.layers.Layer):
    """Adds a learned vector per position to `[batch, num_positions, width]`."""

    def build(self, input_shape: tuple[int, ...]) -> None:
        """Creates the vectors."""
        self.embeddings = self.add_weight(
            shape=input_shape[1:], initializer="uniform", name="embeddings"
        )

    def call(self, inputs: Any) -> Any:
        """Returns the sum, of the same shape."""
        return inputs + self.embeddings


def build(workload: Workload, *, dropout: bool = True) -> keras.Model:
    """Returns the workload's model with new weights; its output is float32 probabilities.

    Args:
      workload: Names the model.
      dropout: Whether its layers of dropout drop anything.

    Raises:
      NotImplementedError: If there is no such model.
    """
    model = _build(workload)
    for layer in model.layers:
        if isinstance(layer, keras.layers.Dropout) and not dropout:
            layer.rate = 0.0
    return model


def _build(workload: Workload) -> keras.Model:
    match workload.model:
        case "dense" if workload.num_hidden > 1:
            return build_deep(workload)
        case "dense":
            return dense.build(workload.input_shape, workload.num_classes, units=workload.units)
        case "cnn":
            return cnn.build(workload.input_shape, workload.num_classes, units=workload.units)
        case "lstm":
            return lstm.build(workload.input_shape, workload.num_classes, units=workload.units)
        case "resnet50":
            return build_resnet50(workload)
        case "transformer":
            return build_transformer(workload)
    raise NotImplementedError(f"no Keras model {workload.model!r}")


def build_deep(workload: Workload) -> keras.Model:
    """Returns a net of several dense layers on flattened pixels."""
    inputs = keras.Input(workload.input_shape, name="image")
    x = keras.layers.Flatten(name="flatten")(inputs)
    for index in range(workload.num_hidden):
        x = keras.layers.Dense(workload.units, activation="relu", name=f"hidden{index}")(x)
    return keras.Model(inputs, _classify(x, workload), name="deep")


def build_resnet50(workload: Workload) -> keras.Model:
    """Returns ResNet50 of Keras Applications, with an output layer in float32."""
    body = keras.applications.ResNet50(
        include_top=False, weights=None, input_shape=workload.input_shape, pooling="avg"
    )
    return keras.Model(body.inputs, _classify(body.outputs[0], workload), name="resnet50")


def build_transformer(workload: Workload) -> keras.Model:
    """Returns a classifier of token ids: pre-norm blocks, the mean over positions, a dense layer.

    Its width is the workload's `units`.
    """
    tokens = keras.Input(workload.input_shape, dtype="int32", name="tokens")
    x = keras.layers.Embedding(VOCABULARY_SIZE, workload.units, name="embedding")(tokens)
    x = PositionEmbedding(name="positions")(x)
    for index in range(NUM_BLOCKS):
        x = _block(x, workload.units, name=f"block{index}")
    x = _layer_norm(x, name="norm")
    x = keras.layers.GlobalAveragePooling1D(name="mean")(x)
    return keras.Model(tokens, _classify(x, workload), name="transformer")


def _block(x: Any, width: int, name: str) -> Any:
    attention = keras.layers.MultiHeadAttention(
        NUM_HEADS, width // NUM_HEADS, name=f"{name}_attention"
    )
    normal = _layer_norm(x, name=f"{name}_norm1")
    x = keras.layers.Add(name=f"{name}_add1")([x, attention(normal, normal)])
    normal = _layer_norm(x, name=f"{name}_norm2")
    hidden = keras.layers.Dense(
        FEED_FORWARD_FACTOR * width, activation="gelu", name=f"{name}_hidden"
    )(normal)
    return keras.layers.Add(name=f"{name}_add2")(
        [x, keras.layers.Dense(width, name=f"{name}_output")(hidden)]
    )


def _layer_norm(x: Any, name: str) -> Any:
    return keras.layers.LayerNormalization(epsilon=LAYER_NORM_EPSILON, name=name)(x)


def _classify(x: Any, workload: Workload) -> Any:
    # float32 under every policy: a softmax in half precision rounds probabilities to zero.
    return keras.layers.Dense(
        workload.num_classes, activation="softmax", dtype="float32", name="probabilities"
    )(x)


def make_loss(workload: Workload) -> keras.losses.Loss:
    """Returns the loss, for one-hot labels."""
    losses = {
        "categorical_crossentropy": keras.losses.CategoricalCrossentropy,
        "binary_crossentropy": keras.losses.BinaryCrossentropy,
    }
    return losses[workload.loss]()


def make_optimizer(workload: Workload) -> keras.optimizers.Optimizer:
    """Returns the optimizer, with Keras's defaults except for the learning rate."""
    optimizers = {
        "rmsprop": keras.optimizers.RMSprop,
        "adam": keras.optimizers.Adam,
        "adamw": keras.optimizers.AdamW,
    }
    return optimizers[workload.optimizer](learning_rate=workload.learning_rate)


def make_metrics() -> list[keras.metrics.Metric]:
    """Returns the metrics besides the loss."""
    return [keras.metrics.CategoricalAccuracy(name="accuracy")]
