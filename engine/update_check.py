"""Does an update have all bits of Keras's operations, on this processor?

A copy of the optimizer updates variables of the same shapes both ways, with numbers of all kinds:
usual ones, of all magnitudes, zeros, denormal and huge ones, infinite ones and NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from .patching import patched

# What Keras does around the update of each variable.
_LEFT_OUT = {
    "clipnorm": None,
    "clipvalue": None,
    "global_clipnorm": None,
    "use_ema": False,
    "loss_scale_factor": None,
    "learning_rate": 0.01,
}
# Before each step: powers of the number of updates are part of some formulas.
_ITERATIONS = (0, 1, 999, 123_456)
_PERIOD = 4_099  # of the numbers: a prime, so that each comes at each place of a vector register

# Updates variables by an optimizer: of it, pairs of a gradient and a variable, and the rate.
RunUpdate = Callable[[Any, Sequence[Any], Any], None]
Shapes = Sequence[tuple[int, ...]]


def has_same_bits(
    optimizer: keras.optimizers.Optimizer, shapes: Shapes, run_update: RunUpdate
) -> bool:
    """Returns whether all variables and slots stay equal over some steps, done both ways.

    Context: eager, without a strategy. Draws no random numbers of Keras's or TensorFlow's.

    Args:
      optimizer: Only read.
      shapes: Of the variables.
      run_update: Updates in the way that is checked.
    """
    plain, other = _Copy(optimizer, shapes), _Copy(optimizer, shapes, run_update)
    rng = np.random.default_rng(0)
    steps = (_usual(rng), _of_all_magnitudes(rng), _special(rng), _usual(rng))
    for iterations, numbers in zip(_ITERATIONS, steps, strict=True):
        gradients = [tf.constant(np.resize(numbers, shape)) for shape in shapes]
        for copy in (plain, other):
            copy.step(iterations, gradients)
        if not _are_equal(plain.variables, other.variables):
            return False
    return True


class _Copy:
    """A copy of an optimizer with variables of its own."""

    def __init__(
        self,
        optimizer: keras.optimizers.Optimizer,
        shapes: Shapes,
        run_update: RunUpdate | None = None,
    ) -> None:
        config = optimizer.get_config()
        changes = {name: value for name, value in _LEFT_OUT.items() if name in config}
        self._optimizer = type(optimizer).from_config(config | changes)
        numbers = _of_all_magnitudes(np.random.default_rng(1))
        numbers[::2] = _usual(np.random.default_rng(2))[::2]
        # Without a name, each would change the names of what Keras makes later.
        self._weights = [
            keras.Variable(np.resize(numbers, shape), name="checked") for shape in shapes
        ]
        self._optimizer.build(self._weights)
        self._apply = tf.function(self._trace, autograph=False)
        self._run_update = run_update
        self.variables = [v.value for v in (*self._weights, *self._optimizer.variables)]

    def _trace(self, gradients: list[tf.Tensor]) -> None:
        run, changes = self._run_update, {}
        if run is not None:
            changes = {
                "_apply_weight_decay": lambda variables: None,
                "_distributed_tf_update_step": lambda strategy, pairs, rate: run(
                    self._optimizer, pairs, rate
                ),
            }
        with patched(self._optimizer, **changes):
            self._optimizer.apply_gradients(zip(gradients, self._weights, strict=True))

    def step(self, iterations: int, gradients: list[tf.Tensor]) -> None:
        self._optimizer.iterations.assign(iterations)
        self._apply(gradients)


def _are_equal(some: Sequence[tf.Variable], others: Sequence[tf.Variable]) -> bool:
    """Returns whether all bits are equal: of NaN and zeros, too."""
    pairs = zip(some, others, strict=True)
    return all(tf.reduce_all(tf.bitcast(a, "uint8") == tf.bitcast(b, "uint8")) for a, b in pairs)


def _usual(rng: np.random.Generator) -> np.ndarray:
    return rng.normal(scale=0.01, size=_PERIOD).astype("float32")


def _of_all_magnitudes(rng: np.random.Generator) -> np.ndarray:
    """Returns numbers from the smallest that is denormal to nearly the largest."""
    numbers = rng.choice([-1.0, 1.0], _PERIOD) * 10.0 ** rng.uniform(-45.0, 38.0, _PERIOD)
    return numbers.astype("float32")


def _special(rng: np.random.Generator) -> np.ndarray:
    some = [0.0, -0.0, 1e-45, -1e-42, 1.2e-38, 3e38, -3e38, 1.0, np.inf, -np.inf, np.nan]
    return rng.choice(some, _PERIOD).astype("float32")
