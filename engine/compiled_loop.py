"""Many steps in one XLA program: the loop of `jit_scope="loop"`; others are in `graph_loops`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from .protocols import Batch, GraphBatches, Logs

# A stack of batches is made by TensorFlow and handed to XLA as a whole. It should be long, for the
# hand-over to cost nothing, and short enough to stay in a processor's last cache. While the first
# one of an execution is made, nothing is trained: more steps than needed only wait longer for it.
MAX_STACK_BYTES = 8 * 2**20
MAX_STACK_STEPS = 80


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
            lambda: one_step(batches.reader()(tf.constant(last, tf.int64))),
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
