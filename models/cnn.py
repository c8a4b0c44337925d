"""The convolutional network of the tutorial, with its recipe: 98 % on MNIST in one epoch."""

from __future__ import annotations

import keras

from .recipe import Recipe, categorical_accuracy, optimizer_factory


def build(
    input_shape: tuple[int, ...] = (28, 28, 1),
    num_classes: int = 10,
    *,
    units: int = 128,
    conv_dropout: float = 0.25,
    dense_dropout: float = 0.5,
) -> keras.Model:
    """Returns a new model that outputs class probabilities, float32 `[batch, num_classes]`.

    Args:
      input_shape: `(height, width, channels)` of one example, at least 6 pixels per side.
      num_classes: Size of the output.
      units: Size of the hidden dense layer.
      conv_dropout: Rate of dropout after pooling.
      dense_dropout: Rate of dropout after the hidden dense layer.

    Example:
      >>> from gradloop.models import cnn
      >>> model = cnn.build(num_classes=3)
      >>> model.output_shape
      (None, 3)
    """
    inputs = keras.Input(input_shape, name="image")
    x = keras.layers.Conv2D(32, 3, activation="relu", name="conv1")(inputs)
    x = keras.layers.Conv2D(64, 3, activation="relu", name="conv2")(x)
    x = keras.layers.MaxPooling2D(2, name="pool")(x)
    x = keras.layers.Dropout(conv_dropout, name="conv_dropout")(x)
    x = keras.layers.Flatten(name="flatten")(x)
    x = keras.layers.Dense(units, activation="relu", name="hidden")(x)
    x = keras.layers.Dropout(dense_dropout, name="dense_dropout")(x)
    # Always float32: a softmax in half precision would round small probabilities to zero.
    outputs = keras.layers.Dense(
        num_classes, activation="softmax", dtype="float32", name="probabilities"
    )(x)
    return keras.Model(inputs, outputs, name="cnn")


RECIPE = Recipe(
    build=build,
    # The choice of the tutorial: each output is a yes-or-no question.
    make_loss=keras.losses.BinaryCrossentropy,
    make_optimizer=optimizer_factory(keras.optimizers.RMSprop),
    make_metrics=categorical_accuracy,
    epochs=1,
    global_batch_size=64,
)
