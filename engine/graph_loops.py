"""How N steps run in one graph.

In the way of a batch: `step_function` picks one of the three loops when it traces. The loop
takes the next batch (from an iterator, or made in the graph) while the step works on this one.
Below it is `gradients`, above it the host, which calls the graph once an execution.

Each loop takes a step, a source of batches, the number of steps (int32 scalar) and zeros in place
of the step's logs. It returns the number of steps done, the logs of the last step, and the seconds
in which it only waited for a batch (float64 scalar).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf
from tensorflow.python.framework.config import is_op_determinism_enabled

from . import devices
from .protocols import Batch, GraphBatches, Logs

# Name scope of what fetches or makes the next batch, by which a profile tells it from the step.
NEXT_SCOPE = "next_batch"


def loop_over_iterator(
    one_step: Callable[[Batch], Logs],
    iterator: Any,
    num_steps: tf.Tensor,
    logs: Logs,
    *,
    count_examples: Callable[[Batch], tf.Tensor],
) -> tuple[tf.Tensor, Logs, tf.Tensor, tf.Tensor]:
    """Runs `one_step` until `num_steps` are done or the data ends.

    Also returns what `count_examples` says of the first batch, int32 scalar.

    The time spent waiting for a batch is how much later than the end of the previous step it
    arrives. Both moments are control edges on nothing else: they neither order the step and the
    fetch nor keep operations alive that the graph optimizer would prune.
    """
    # With a GPU, the loop runs ahead of the device and does not see the end of a step, and a
    # float that it carries would be copied back and forth. Then `waits` is empty.
    is_timed = not devices.has_gpu()

    def fetch() -> tuple[Any, list[tf.Tensor]]:
        batch = iterator.get_next_as_optional()
        return batch, [stamp(after=batch)] if is_timed else []

    def cond(step: tf.Tensor, batch: Any, logs: Logs, waits: list[tf.Tensor]) -> tf.Tensor:
        return tf.logical_and(step < num_steps, batch.has_value())

    def body(
        step: tf.Tensor, batch: Any, logs: Logs, waits: list[tf.Tensor]
    ) -> tuple[tf.Tensor, Any, Logs, list[tf.Tensor]]:
        logs = one_step(batch.get_value())
        # After what the step writes and returns, which the graph optimizer keeps in any case.
        done = [stamp(after=(last_call(), tf.nest.map_structure(tf.identity, logs)))]
        done = done if is_timed else []
        # The next batch does not depend on this step: the runtime fetches it in the meantime.
        # After the last step none is fetched, because it would be lost.
        more = step + 1 < num_steps
        with tf.name_scope(NEXT_SCOPE):
            batch, ready = tf.cond(more, fetch, lambda: (batch, [tf.zeros_like(d) for d in done]))
        pairs = zip(waits, ready, done, strict=True)
        return step + 1, batch, logs, [w + tf.maximum(r - d, 0.0) for w, r, d in pairs]

    began = stamp()
    with tf.control_dependencies([began]), tf.name_scope(NEXT_SCOPE):
        first = iterator.get_next_as_optional()
    wait_for_first = stamp(after=first) - began
    num_examples = tf.cond(
        first.has_value(), lambda: count_examples(first.get_value()), lambda: tf.constant(0)
    )
    waits = [tf.zeros([], tf.float64)] if is_timed else []
    num_done, _, logs, waits = tf.while_loop(cond, body, (tf.constant(0), first, logs, waits))
    return num_done, logs, tf.add_n([wait_for_first, *waits]), num_examples


def loop_over_resident(
    one_step: Callable[[Batch], Logs], batches: GraphBatches, num_steps: tf.Tensor, logs: Logs
) -> tuple[tf.Tensor, Logs, tf.Tensor]:
    """Runs `num_steps` steps over batches that the graph makes; they never run out."""
    get, begin = batches.reader(), batches.current_step()
    end = begin + tf.cast(num_steps, tf.int64)

    def body(step: tf.Tensor, batch: Batch, logs: Logs) -> tuple[tf.Tensor, Batch, Logs]:
        with tf.name_scope(NEXT_SCOPE):
            following = get(step + 1)  # does not depend on this step: made in the meantime
        return step + 1, following, one_step(batch)

    with tf.name_scope(NEXT_SCOPE):
        first = get(begin)
    _, _, logs = tf.while_loop(
        lambda step, batch, logs: step < end,
        body,
        (begin, first, logs),
        shape_invariants=(
            tf.TensorShape([]),
            batches.element_spec,
            {name: value.shape for name, value in logs.items()},
        ),
    )
    batches.advance(num_steps)
    return num_steps, logs, tf.zeros([], tf.float64)


def stamp(*, after: Any = ()) -> tf.Tensor:
    """Returns the time in seconds (float64 scalar on the host) once `after` is computed.

    Context: graph.

    Args:
      after: Operations and any structure of tensors.
    """
    if is_op_determinism_enabled():  # TensorFlow refuses timestamps then: time is dispatch.
        return tf.zeros([], tf.float64)
    things = tf.nest.flatten(after, expand_composites=True)
    waits_for = [t for t in things if tf.is_tensor(t) or isinstance(t, tf.Operation)]
    with tf.device("CPU:0"), tf.control_dependencies(waits_for):
        return tf.timestamp()


def last_call() -> tf.Operation:
    """Returns the last call of a function in the graph that is being built.

    Not its outputs: an operation that waits for an output keeps it from being pruned.
    """
    operations = tf.compat.v1.get_default_graph().get_operations()
    return next(op for op in reversed(operations) if "PartitionedCall" in op.type)
