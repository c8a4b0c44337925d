"""LSTM layers with fewer and larger operations: the same formula, other bits.

Keras's loop over the time steps multiplies each step's inputs by itself, and TensorFlow's gradient
of the loop sums the weights' gradients step by step. Here one product does all inputs, another one
each weight's gradient, and the gradient of a cell is written out. A product of some hundred rows
runs on one thread; so two halves of a batch are two loops, which TensorFlow runs side by side.
The layer, its variables and whatever surrounds the loop stay Keras's.

Words: `x` is `[batch, time steps, features]`; gates lie side by side as in Keras's kernels, in the
order input, forget, candidate, output. See https://arxiv.org/abs/1909.09586 for the gradients.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
import tensorflow as tf

from .patching import patched

# Sequences up to this length need no loop in the graph; longer ones do some steps in each round of
# one. More would make a larger graph, which takes longer to trace.
_MAX_UNROLLED = 32
_MAX_STEPS_PER_ROUND = 7
# Products of wider layers run on all cores by themselves.
_MAX_UNITS_IN_PARTS = 192
_NUM_PARTS = 2


@contextlib.contextmanager
def fused_lstms(model: keras.Model, *, is_on: bool) -> Iterator[None]:
    """Replaces what LSTM layers compute with, while a step is traced.

    Context: replica, of which there is one.

    Args:
      model: Its LSTM layers are those that are replaced; see `find_fused_lstms`.
      is_on: False: nothing changes.
    """
    with contextlib.ExitStack() as stack:
        for layer in find_fused_lstms(model) if is_on else ():
            inner_loop = functools.partial(_inner_loop, layer, layer.inner_loop)
            stack.enter_context(patched(layer, inner_loop=inner_loop))
        yield


def find_fused_lstms(model: keras.Model) -> list[keras.layers.LSTM]:
    """Returns the layers of a model that have Keras's default formula.

    Others keep Keras's loop: subclasses, other activations, dropout, and layers that are stateful.
    """
    return [layer for layer in model._flatten_layers() if _has_formula(layer)]


def _has_formula(layer: keras.Layer) -> bool:
    # No isinstance: a subclass may have another formula.
    return (
        type(layer) is keras.layers.LSTM
        and layer.activation is keras.activations.tanh
        and layer.recurrent_activation is keras.activations.sigmoid
        and layer.use_bias
        and not (layer.dropout or layer.recurrent_dropout or layer.stateful)
        and layer.compute_dtype in ("float32", "bfloat16")
    )


def _inner_loop(
    layer: keras.layers.LSTM,
    original: Callable[..., Any],
    sequences: Any,
    initial_state: Any,
    mask: Any,
    training: bool = False,
) -> Any:
    """Computes what `keras.layers.LSTM.inner_loop` does: last output, all outputs, states."""
    if mask is not None or sequences.shape[2] is None:
        return original(sequences, initial_state, mask, training=training)
    dtype, cell = sequences.dtype, layer.cell
    weights = [
        tf.cast(tf.convert_to_tensor(weight), dtype)
        for weight in (cell.kernel, cell.recurrent_kernel, cell.bias)
    ]
    x = tf.reverse(sequences, [1]) if layer.go_backwards else sequences
    num_parts = _NUM_PARTS if layer.units <= _MAX_UNITS_IN_PARTS else 1
    num_examples = tf.shape(x)[0]
    sizes = [(num_examples + part) // num_parts for part in range(num_parts)]
    pieces = [tf.split(value, sizes, num=num_parts) for value in (x, *initial_state)]
    parts = [
        lstm(*piece, *weights, returns_sequences=layer.return_sequences)
        for piece in zip(*pieces, strict=True)
    ]
    hidden, state, *outputs = (tf.concat(values, axis=0) for values in zip(*parts, strict=True))
    return hidden, outputs[0] if outputs else hidden[:, None], [hidden, state]


def lstm(
    x: tf.Tensor, hidden: tf.Tensor, state: tf.Tensor, *weights: tf.Tensor, returns_sequences: bool
) -> tuple[tf.Tensor, ...]:
    """Computes an LSTM layer; products in the dtype of `x`, everything between them in float32.

    Args:
      x: `[batch, time steps, features]`.
      hidden: The output before the first time step, `[batch, units]`.
      state: The state of the cells before it, likewise.
      *weights: Kernel, recurrent kernel and bias, as Keras has them.
      returns_sequences: Whether the outputs of all time steps are returned.

    Returns:
      The last output and state, `[batch, units]`, and perhaps all outputs, `[batch, time steps,
      units]`, in the dtype of `x`.
    """

    def run(*inputs: tf.Tensor) -> Any:
        sequence = _Sequence(*inputs)
        results = [*sequence.run_forward(), *([sequence.outputs()] if returns_sequences else ())]
        return [tf.cast(v, x.dtype) for v in results], sequence.run_backward

    return tuple(tf.custom_gradient(run)(x, hidden, state, *weights))


class _Sequence:
    """The time steps of a layer, forward and backward. Takes what `lstm` takes."""

    def __init__(self, x: Any, hidden: Any, state: Any, kernel: Any, recurrent: Any, bias: Any):
        self._num_steps = x.shape[1] or tf.shape(x)[1]
        self._is_unrolled = x.shape[1] is not None and x.shape[1] <= _MAX_UNROLLED
        self._num_examples = tf.shape(x)[0]
        self._units: int = recurrent.shape[0]
        self._kernel, self._recurrent = kernel, recurrent
        self._hidden, self._state = _float32(hidden), _float32(state)
        # A row is an example at a time step.
        self._rows = tf.reshape(tf.transpose(x, [1, 0, 2]), [-1, x.shape[2]])
        projected = _float32(tf.matmul(self._rows, kernel)) + _float32(bias)
        self._inputs = self._array(4).unstack(self._by_step(projected, 4))

    def _array(self, num_gates: int = 1, *, extra: int = 0) -> Any:
        if self._is_unrolled:
            return _Array()
        shape = [None, num_gates * self._units]
        return tf.TensorArray(tf.float32, self._num_steps + extra, element_shape=shape)

    def _by_step(self, rows: tf.Tensor, num_gates: int = 1) -> tf.Tensor:
        shape = [self._num_steps, self._num_examples, num_gates * self._units]
        return tf.reshape(rows, shape)

    def _loop(self, body: Callable[..., Any], values: Any) -> Any:
        """Calls `step, *values -> values` for each step; returns the last values."""
        num_steps, num_in_round = self._num_steps, 1
        if isinstance(num_steps, int):
            most = num_steps if self._is_unrolled else _MAX_STEPS_PER_ROUND
            num_in_round = max(n for n in range(1, most + 1) if num_steps % n == 0)

        def run_round(step: Any, *values: Any) -> Any:
            for offset in range(num_in_round):
                values = body(step + offset, *values)
            return step + num_in_round, *values

        if self._is_unrolled:
            return run_round(0, *values)[1:]

        goes_on = lambda step, *_: step < num_steps  # noqa: E731
        return tf.while_loop(goes_on, run_round, (tf.constant(0), *values))[1:]

    def run_forward(self) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the last output and state."""

        def body(step: Any, hidden: Any, state: Any, outputs: Any, saved: Any) -> Any:
            product = tf.matmul(tf.cast(hidden, self._recurrent.dtype), self._recurrent)
            hidden, new_state, gates = _cell(self._inputs.read(step) + _float32(product), state)
            values = zip(saved, (state, *gates), strict=True)
            saved = tuple(array.write(step, value) for array, value in values)
            return hidden, new_state, outputs.write(step + 1, hidden), saved

        # From the output before the first step to the last one.
        outputs = self._array(extra=1).write(0, self._hidden)
        values = (self._hidden, self._state, outputs, tuple(self._array() for _ in range(6)))
        hidden, state, self._outputs, self._saved = self._loop(body, values)
        return hidden, state

    def outputs(self) -> tf.Tensor:
        """Returns the outputs of all time steps, `[batch, time steps, units]`."""
        return tf.transpose(self._outputs.stack()[1:], [1, 0, 2])

    def run_backward(self, d_hidden: Any, d_state: Any, d_outputs: Any = None) -> list[tf.Tensor]:
        """Returns the gradients of what the constructor takes, from those of the results."""
        num_steps, of_outputs = self._num_steps, None
        if d_outputs is not None:
            of_outputs = self._array().unstack(_float32(tf.transpose(d_outputs, [1, 0, 2])))

        def body(count: Any, d_hidden: Any, d_state: Any, d_gates: Any) -> Any:
            step = num_steps - 1 - count
            if of_outputs is not None:
                d_hidden += of_outputs.read(step)
            saved = (array.read(step) for array in self._saved)
            d_gate, d_state = _cell_gradient(d_hidden, d_state, *saved)
            product = tf.matmul(tf.cast(d_gate, dtype), self._recurrent, transpose_b=True)
            return _float32(product), d_state, d_gates.write(step, d_gate)

        dtype = self._recurrent.dtype
        values = (_float32(d_hidden), _float32(d_state), self._array(4))
        d_hidden, d_state, d_gates = self._loop(body, values)
        d_rows = tf.cast(tf.reshape(d_gates.stack(), [-1, 4 * self._units]), dtype)
        before = tf.cast(tf.reshape(self._outputs.stack()[:-1], [-1, self._units]), dtype)
        d_x = tf.matmul(d_rows, self._kernel, transpose_b=True)
        d_x = tf.reshape(d_x, [num_steps, self._num_examples, self._kernel.shape[0]])
        # A sum over the rows, as a product: several times faster.
        ones = tf.ones([1, tf.shape(d_rows)[0]], dtype)
        return [
            tf.transpose(d_x, [1, 0, 2]),
            tf.cast(d_hidden, dtype),
            tf.cast(d_state, dtype),
            tf.matmul(self._rows, d_rows, transpose_a=True),
            tf.matmul(before, d_rows, transpose_a=True),
            tf.matmul(ones, d_rows)[0],
        ]


class _Array:
    """What a `tf.TensorArray` is in a loop, for steps that are unrolled."""

    def __init__(self, values: Mapping[int, tf.Tensor] | None = None) -> None:
        self._values = dict(values or {})

    def write(self, index: int, value: tf.Tensor) -> _Array:
        return _Array(self._values | {index: value})

    def read(self, index: int) -> tf.Tensor:
        return self._values[index]

    def unstack(self, values: tf.Tensor) -> _Array:
        return _Array(dict(enumerate(tf.unstack(values))))

    def stack(self) -> tf.Tensor:
        return tf.stack([self._values[index] for index in range(len(self._values))])


def _float32(value: tf.Tensor) -> tf.Tensor:
    return tf.cast(value, tf.float32)


def _cell(gates: tf.Tensor, state: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tuple[Any, ...]]:
    """Returns output, new state, and what the gradient takes beside the state."""
    # By slices: `tf.split` takes as long as a product.
    units = state.shape[1]
    inside, forget, candidate, outside = (gates[:, n * units : (n + 1) * units] for n in range(4))
    inside, forget, outside = tf.sigmoid(inside), tf.sigmoid(forget), tf.sigmoid(outside)
    candidate = tf.tanh(candidate)
    state = forget * state + inside * candidate
    bounded = tf.tanh(state)
    return outside * bounded, state, (inside, forget, candidate, outside, bounded)


def _cell_gradient(d_hidden: Any, d_state: Any, state: Any, *saved: Any) -> tuple[Any, Any]:
    """Returns the gradients of the gates before their activations, and of the state before."""
    inside, forget, candidate, outside, bounded = saved
    d_state = d_state + _of_tanh(bounded, d_hidden * outside)
    d_gates = [
        _of_sigmoid(inside, d_state * candidate),
        _of_sigmoid(forget, d_state * state),
        _of_tanh(candidate, d_state * inside),
        _of_sigmoid(outside, d_hidden * bounded),
    ]
    return tf.concat(d_gates, axis=1), d_state * forget


def _of_sigmoid(y: tf.Tensor, gradient: tf.Tensor) -> tf.Tensor:
    return tf.raw_ops.SigmoidGrad(y=y, dy=gradient)


def _of_tanh(y: tf.Tensor, gradient: tf.Tensor) -> tf.Tensor:
    return tf.raw_ops.TanhGrad(y=y, dy=gradient)
