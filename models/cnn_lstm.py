"""Convolution and recurrence: an LSTM reads the rows of a feature map. MNIST: 98 % in 2 epochs."""

from __future__ import annotations

import keras

from .recipe import Recipe, categorical_accuracy, optimizer_factory


def build(
    input_shape: tuple[int, ...] = (28, 28, 1),
    num_classes: int = 10,
    *,
    filters: int = 32,
    units: int = 128,
) -> keras.Model:
    """Returns a model of `[batch, *input_shape]` to float32 probabilities `[batch, num_classes]`.

    Args:
      input_shape: `(height, width, channels)` of one example, 4 pixels or more a side.
      num_classes: Size of the output.
      filters: Channels of the feature map.
      units: Size of the recurrent layer.
    """
    inputs = keras.Input(input_shape, name="image")
    x = keras.layers.Conv2D(filters, 3, activation="relu", name="conv")(inputs)
    x = keras.layers.MaxPooling2D(2, name="pool")(x)
    _, num_rows, num_columns, _ = x.shape
    x = keras.layers.Reshape((num_rows, num_columns * filters), name="rows")(x)
    x = keras.layers.LSTM(units, name="lstm")(x)
    # float32 whatever the policy: a softmax in half precision rounds probabilities to zero.
    outputs = keras.layers.Dense(
        num_classes, activation="softmax", dtype="float32", name="probabilities"
    )(x)
    return keras.Model(inputs, outputs, name="cnn_lstm")


RECIPE = Recipe(
    build=build,
    make_loss=keras.losses.CategoricalCrossentropy,
    # Measured after two epochs: 97.0 % with 64 units, batch 128 and Keras's 1e-3; 98.6 to 98.9 %
    # so, with three seeds.
    make_optimizer=optimizer_factory(keras.optimizers.Adam, learning_rate=2e-3),
    make_metrics=categorical_accuracy,
    epochs=2,
    global_batch_size=64,
)
