"""How N steps run in one graph.

In the way of a batch: `step_function` picks one of the three loops here when it traces. The loop
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

from .protocols import Batch, GraphBatches, Logs

# A stack of batches is made by TensorFlow and handed to XLA as a whole. It should be long, for the
# hand-over to cost nothing, and short enough to stay in a processor's last cache.
MAX_STACK_BYTES = 8 * 2**20
MAX_STACK_STEPS = 512

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
    is_timed = not tf.config.list_logical_devices("GPU")

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
    get = batches.reader()

    def body(step: tf.Tensor, batch: Batch, logs: Logs) -> tuple[tf.Tensor, Batch, Logs]:
        with tf.name_scope(NEXT_SCOPE):
            following = get(step + 1)  # does not depend on this step: made in the meantime
        return step + 1, following, one_step(batch)

    shapes = tf.nest.map_structure(lambda spec: spec.shape, batches.element_spec)
    with tf.name_scope(NEXT_SCOPE):
        first = get(tf.constant(0))
    _, _, logs = tf.while_loop(
        lambda step, batch, logs: step < num_steps,
        body,
        (tf.constant(0), first, logs),
        shape_invariants=(tf.TensorShape([]), shapes, {name: tf.TensorShape([]) for name in logs}),
    )
    batches.advance(num_steps)
    return num_steps, logs, tf.zeros([], tf.float64)


def loop_compiled(
    one_step: Callable[[Batch], Logs], batches: GraphBatches, num_steps: tf.Tensor, logs: Logs
) -> tuple[tf.Tensor, Logs, tf.Tensor]:
    """Runs `one_step` on the next `num_steps` batches, many of them in one XLA program.

    Context: one replica. TensorFlow makes a stack of raw batches, and XLA runs all steps on it in
    one call. A partial last batch has another shape: its step runs alone, after the stacks.

    Args:
      one_step: A step that XLA compiles.
      batches: With `stacks`.
      num_steps: Not beyond the end of the epoch.
      logs: Zeros in place of the step's logs.
    """
    assert batches.stacks is not None, "choose another loop"
    num_full = batches.stacks.num_full_batches
    stack_bytes = batches.stacks.batch_bytes
    stack_steps = min(max(1, MAX_STACK_BYTES // stack_bytes), MAX_STACK_STEPS, num_full)
    first = batches.current_step()
    end = first + tf.cast(num_steps, tf.int64)
    full_end = tf.minimum(end, num_full)

    run_stack = _compile_stack(one_step, batches.stacks.finish)

    def get_stack(step: tf.Tensor) -> Any:
        # Near the end of the epoch, a stack starts earlier than it is asked to.
        return batches.get_stack(tf.minimum(step, num_full - stack_steps), stack_steps)

    def cond(step: tf.Tensor, stack: Any, logs: Logs) -> tf.Tensor:
        return step < full_end

    def body(step: tf.Tensor, stack: Any, logs: Logs) -> tuple[tf.Tensor, Any, Logs]:
        # Does not depend on these steps: made in the meantime.
        more = step + stack_steps < full_end
        following = tf.cond(more, lambda: get_stack(step + stack_steps), lambda: stack)
        offset = step - tf.minimum(step, num_full - stack_steps)
        number = tf.minimum(full_end - step, stack_steps - offset)
        logs = run_stack(stack, offset, number, logs)
        return step + number, following, logs

    _, _, logs = tf.while_loop(cond, body, (first, get_stack(first), logs))
    if num_full < batches.num_batches:
        is_partial_due = tf.logical_and(end > num_full, num_steps > 0)
        last = batches.num_batches - 1
        logs = tf.cond(
            is_partial_due,
            lambda: one_step(batches.reader()(tf.cast(last - first, tf.int32))),
            lambda: logs,
        )
    batches.advance(num_steps)
    return num_steps, logs, tf.zeros([], tf.float64)


def _compile_stack(one_step: Callable[[Batch], Logs], finish: Callable[[Any], Batch]) -> Any:
    """Returns `(stack, offset, number, logs) -> logs` of `number` steps in one XLA program."""

    def run(stack: Any, offset: tf.Tensor, number: tf.Tensor, logs: Logs) -> Logs:
        def body(index: tf.Tensor, logs: Logs) -> tuple[tf.Tensor, Logs]:
            # Not `t[i]`: to XLA the start of a slice is a constant, and each value compiles anew.
            raw = tf.nest.map_structure(lambda t: tf.gather(t, offset + index), stack)
            return index + 1, one_step(finish(raw))

        start = tf.constant(0, tf.int64)
        _, logs = tf.while_loop(lambda index, logs: index < number, body, (start, logs))
        return logs

    return tf.function(run, autograph=False, jit_compile=True)


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
