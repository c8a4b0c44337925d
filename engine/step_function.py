"""Step -> strategy.run -> tf.function -> N steps in one host call.

In the way of a batch: `source` calls the compiled function made here, once an execution. While it
traces, it wraps the step for the replicas and the compiler, and lets one of `graph_loops` run it N
times. After that, no Python of the step runs any more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from .config import TrainConfig, check_one_replica
from .fused_updates import Update, updates_by
from .graph_loops import loop_compiled, loop_over_iterator, loop_over_resident, stamp
from .protocols import Batch, GraphBatches, Logs
from .retracing import Trace, note_trace, signature_of
from .state import TrainState

StepFn = Callable[[TrainState, Batch], Logs | None]


class StepFunction:
    """Runs a step on the next N batches of an iterator, in one call from the host.

    The graph is traced once for a run: the number of steps is a tensor, and the leading dimension
    of a batch is unknown, so that the partial last batch needs no graph of its own.

    Attributes:
      num_steps_done: Scalar int32 tensor, the steps of the last call: fewer than asked for if the
        iterator ran out of data.
      measured: Float64 tensor `[3]` of the last call: the seconds in the graph; those of them in
        which it only waited for a batch (with a GPU, whose steps the host does not wait for, for
        the first batch of the call); the examples of the first batch, 0 where they are not counted.
      traces: Each trace, with its cause: one, unless the batches change their structure.
      max_retraces: How many traces beyond the first are allowed; None: any number.
    """

    def __init__(
        self,
        step: StepFn,
        state: TrainState,
        strategy: tf.distribute.Strategy,
        *,
        compiles_step: bool = False,
        compiles_loop: bool = False,
        update: Update = Update.KERAS,
    ) -> None:
        """Use `make_train_function` or `make_eval_function`."""
        self._step = step
        self._state = state
        self._strategy = strategy
        self._compiles_step = compiles_step
        self._compiles_loop = compiles_loop
        self._update = update
        self._run = tf.function(self._trace, autograph=False, reduce_retracing=True)
        self.num_steps_done: tf.Tensor = tf.constant(0)
        self.measured: tf.Tensor = tf.zeros([3], tf.float64)
        self.name = getattr(step, "__name__", type(step).__name__)
        self.traces: list[Trace] = []
        self.max_retraces: int | None = None
        self._arguments: tuple[Any, tf.Tensor] | None = None

    def __call__(self, iterator: Any, num_steps: tf.Tensor) -> Logs:
        """Runs `num_steps` steps, or as many as the iterator has batches for.

        Context: cross-replica, on the host.

        Args:
          iterator: `tf.data.Iterator`, `tf.distribute.DistributedIterator`, or `GraphBatches`.
          num_steps: Scalar int32 tensor, 1 or more.

        Returns:
          Name to scalar, on the device: results of the metrics over all batches since their last
          reset, and what else the last step returned (the mean over replicas).

        Raises:
          TypeError: If `num_steps` is no tensor: each new Python number would trace again.
          RetraceError: If the call needs more traces than `max_retraces` allows.
        """
        if not tf.is_tensor(num_steps):
            raise TypeError(
                f"num_steps must be a tensor, got {num_steps!r}: each new Python number would "
                f"trace the graph again. Pass tf.constant({num_steps!r})."
            )
        logs: Logs
        self._arguments = iterator, num_steps
        try:
            self.num_steps_done, logs, self.measured = self._run(iterator, num_steps)
        finally:
            self._arguments = None
        return logs

    @property
    def num_traces(self) -> int:
        """How often the graph was traced."""
        return len(self.traces)

    def _trace(self, iterator: Any, num_steps: tf.Tensor) -> tuple[tf.Tensor, Logs, tf.Tensor]:
        """Builds the graph of one execution; runs only while TensorFlow traces."""
        self._note_trace(iterator, num_steps)
        log_names: list[str] = []
        compiled_step = self._compile_step(iterator.element_spec, log_names)
        outputs = compiled_step.get_concrete_function(iterator.element_spec).structured_outputs
        loop = self._choose_loop(iterator)
        began = stamp()
        with tf.control_dependencies([began]):
            num_done, step_logs, waited, num_examples = loop(
                compiled_step, iterator, num_steps, _zeros_like_spec(outputs)
            )
        # Metrics update state in each step; their results are computed here, once an execution.
        results = self._state.metrics_result()
        logs = {n: results[n] if n in results else step_logs[n] for n in log_names}
        graph_secs = stamp(after=(num_done, logs)) - began
        return num_done, logs, tf.stack([graph_secs, waited, tf.cast(num_examples, tf.float64)])

    def _note_trace(self, iterator: Any, num_steps: tf.Tensor) -> None:
        # What the caller passed: TensorFlow may trace for looser shapes that cover several calls.
        arguments = self._arguments or (iterator, num_steps)
        note_trace(self.traces, self.name, signature_of(*arguments), self.max_retraces)
        if not self._state.is_built:
            raise ValueError(
                "The state is not built: call state.build(dataset.element_spec) first, so that "
                "its metrics and optimizer have their variables."
            )

    def _compile_step(self, element_spec: Any, log_names: list[str]) -> Any:
        """Returns the step as a function of a batch; fills in the names that the step returns."""
        metric_names = set(self._state.metrics_result())

        def one_replica(batch: Batch) -> Logs:
            with updates_by(self._state.optimizers, self._update):
                logs = _check_logs(self._step(self._state, none_for_optionals(batch)))
            log_names[:] = logs
            # Without the metrics' results, the graph optimizer prunes their computation.
            return {k: _as_float(v) for k, v in logs.items() if k not in metric_names}

        def one_step(batch: Batch) -> Logs:
            logs = self._strategy.run(one_replica, args=(batch,))
            return {name: self._mean_over_replicas(value) for name, value in logs.items()}

        # The step is a function of its own, as in fit: XLA compiles it and not the loop around it,
        # and its outputs are known before the loop is traced. With several replicas it also stays
        # one: inlined into the loop and optimized there, a convolution's bias gradient gets other
        # bits than in fit.
        stays_whole = self._strategy.num_replicas_in_sync > 1
        return tf.function(
            one_step,
            autograph=False,
            jit_compile=self._compiles_step or None,
            experimental_attributes={"_noinline": True} if stays_whole else None,
        )

    def _choose_loop(self, iterator: Any) -> Callable[..., Any]:
        if not isinstance(iterator, GraphBatches):
            return lambda *args: loop_over_iterator(*args, count_examples=self._count_examples)
        stacks = self._compiles_loop and iterator.stacks is not None
        loop = loop_compiled if stacks else loop_over_resident
        return lambda *args: (*loop(*args), tf.constant(0))

    def _mean_over_replicas(self, value: Any) -> tf.Tensor:
        values = self._strategy.experimental_local_results(value)
        return values[0] if len(values) == 1 else tf.reduce_mean(values, axis=0)

    def _count_examples(self, batch: Batch) -> tf.Tensor:
        """Returns the leading dimension of the global batch; 0 where this worker cannot know it."""
        first = next(iter(tf.nest.flatten(batch)))
        parts = self._strategy.experimental_local_results(first)
        are_all = len(parts) == self._strategy.num_replicas_in_sync  # else on several workers
        if not are_all or not all(isinstance(p, tf.Tensor) and p.shape.rank for p in parts):
            return tf.constant(0)
        return tf.add_n([tf.shape(part)[0] for part in parts])


def make_train_function(
    train_step: StepFn, state: TrainState, strategy: tf.distribute.Strategy, config: TrainConfig
) -> StepFunction:
    """Returns a function that performs N steps of `train_step` in one host call.

    Args:
      train_step: `(state, batch) -> logs`, called once a trace in replica context. The values of
        logs are scalars; those under the name of a metric of the state come from the metric itself.
      state: Passed to the step. Must be built.
      strategy: Runs the step on each replica.
      config: Read: `jit_compile`, `jit_scope`, `numerics`.

    Returns:
      `logs = train_function(iterator, num_steps)`; see `StepFunction`.

    Raises:
      ConfigError: If several replicas cannot do what `jit_compile` or `numerics` asks for.

    Example:
      >>> state.build(train_ds.element_spec)
      >>> train = engine.make_train_function(engine.train_step, state, strategy, config)
      >>> sorted(train(iter(train_ds), tf.constant(2)))
      ['loss']
    """
    is_compiled = resolve_jit_compile(state, strategy, config)
    is_fast = config.numerics == "fast"
    compiles_step = is_compiled and config.jit_scope != "update"
    if is_compiled and config.jit_scope == "update":
        update = Update.XLA
    else:  # XLA fuses the update of a step that it compiles.
        update = Update.FUSED if is_fast and not compiles_step else Update.KERAS
    return StepFunction(
        train_step,
        state,
        strategy,
        compiles_step=compiles_step,
        compiles_loop=compiles_step and config.jit_scope == "loop",
        update=update,
    )


def make_eval_function(
    eval_step: StepFn, state: TrainState, strategy: tf.distribute.Strategy, config: TrainConfig
) -> StepFunction:
    """Returns a function that performs N steps of `eval_step`; see `make_train_function`.

    Example:
      >>> evaluate = engine.make_eval_function(engine.eval_step, state, strategy, config)
      >>> logs = evaluate(iter(train_ds), tf.constant(4))
    """
    return make_train_function(eval_step, state, strategy, config)


def resolve_jit_compile(
    state: TrainState, strategy: tf.distribute.Strategy, config: TrainConfig
) -> bool:
    """Returns whether XLA compiles; raises ConfigError where it cannot."""
    if strategy.num_replicas_in_sync > 1:
        check_one_replica(config, f"{strategy.num_replicas_in_sync} replicas")
    if config.jit_compile is None:
        return bool(state.model.jit_compile)  # Keras's rule, for the bits of fit
    return config.jit_compile


def none_for_optionals(batch: Batch) -> Batch:
    """Returns a batch with None for the empty Optionals that Keras puts where it has None."""
    return tf.nest.map_structure(
        lambda v: None if isinstance(v, tf.experimental.Optional) else v, batch
    )


def _check_logs(logs: Any) -> Logs:
    if logs is not None and not isinstance(logs, Mapping):
        raise TypeError(
            f"The step returned {logs!r}; it must return its logs, a dict of name to scalar, "
            "or None."
        )
    return dict(logs or {})


def _as_float(value: Any) -> tf.Tensor:
    value = tf.convert_to_tensor(value)
    # Numbers and truth values have a mean over the replicas too.
    return value if value.dtype.is_floating else tf.cast(value, tf.float32)


def _zeros_like_spec(outputs: Logs) -> Logs:
    for name, spec in outputs.items():
        if spec.shape.rank != 0:
            raise ValueError(
                f"The step returned {name!r} with shape {spec.shape}; logs must be scalars. "
                f"Return tf.reduce_mean({name}), or leave it out."
            )
    return {name: tf.zeros([], spec.dtype) for name, spec in outputs.items()}
