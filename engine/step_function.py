"""Step -> strategy.run -> tf.function -> N steps in one host call.

In the way of a batch: `source` calls the compiled function made here, once an execution. While it
traces, it wraps the step for the replicas and the compiler, and lets one of `graph_loops` run it N
times. After that, no Python of the step runs any more.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from .building import none_for_optionals
from .compiled_loop import loop_compiled
from .config import TrainConfig
from .execution_mode import Mode, find_mode
from .fused_updates import updates_by
from .graph_loops import loop_over_iterator, loop_over_resident, stamp
from .protocols import Batch, GraphBatches, Logs
from .retracing import Trace, note_trace, signature_of
from .state import TrainState
from .step_logs import (
    Last,
    TraceNotes,
    as_scalar,
    count_examples,
    flatten_logs,
    is_scalar,
    num_examples,
)
from .traced_step import check_traced, unwritten_names

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
        mode: Mode,
        trains: bool = True,
    ) -> None:
        """Use `make_train_function` or `make_eval_function`."""
        self._step = step
        self._state = state
        self._strategy = strategy
        self._mode = mode
        self._trains = trains
        self._log_names: list[str] = []
        self._averaged: set[str] = set()  # names whose mean over the epoch is logged
        self._lasting: set[str] = set()  # names whose last value is logged
        self._scalars: set[str] = set()
        self._run: Any = self._run_eagerly
        if not mode.runs_eagerly:
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
          reset, means over the same batches of what else the steps returned, weighted by examples,
          and the last step's value of what is wrapped in `engine.last`.

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
            self.num_steps_done, logs, self.measured = self._run(
                iterator, num_steps, self._state.trainable_key()
            )
        finally:
            self._arguments = None
        return logs

    @property
    def num_traces(self) -> int:
        """How often the graph was traced."""
        return len(self.traces)

    def results(self) -> Logs:
        """Returns the results of the metrics, and the means of what else the step logs.

        Context: cross-replica.
        """
        means = self._state.metrics.means
        results = self._state.metrics_result()
        return results | {name: means[name].result() for name in self._averaged}

    def _trace(
        self, iterator: Any, num_steps: tf.Tensor, trainable: str
    ) -> tuple[tf.Tensor, Logs, tf.Tensor]:
        """Builds the graph of one execution; runs only while TensorFlow traces."""
        self._note_trace(iterator, num_steps)
        step, traced = self._trace_step(iterator.element_spec)
        check_traced(traced, self._state, self.name, trains=self._trains)
        loop = self._choose_loop(iterator)
        began = stamp()
        with tf.control_dependencies([began]):
            zeros = {n: tf.zeros([], s.dtype) for n, s in traced.structured_outputs.items()}
            num_done, step_logs, waited, num_examples = loop(step, iterator, num_steps, zeros)
        # Metrics update state in each step; their results are computed here, once an execution.
        results = self.results()
        logs = {n: results[n] if n in results else step_logs[n] for n in self._log_names}
        graph_secs = stamp(after=(num_done, logs)) - began
        return num_done, logs, tf.stack([graph_secs, waited, tf.cast(num_examples, tf.float64)])

    def _run_eagerly(
        self, iterator: Any, num_steps: tf.Tensor, trainable: str
    ) -> tuple[tf.Tensor, Logs, tf.Tensor]:
        """Runs the steps in Python, for a person with a debugger."""
        began = time.perf_counter()
        step, num_done, logs = self._make_step(), 0, {}
        while num_done < num_steps:
            batch = iterator.get_next_as_optional()
            if not batch.has_value():
                break
            num_done += 1
            logs = step(batch.get_value())
            weight = tf.maximum(count_examples(batch.get_value(), self._strategy), 1)
            for name in set(logs) - self._lasting - self._averaged:
                self._state.metrics.add_mean(name)
                self._state.metrics.means[name].update_state(logs[name], sample_weight=weight)
                self._averaged.add(name)
        results = logs | self.results()
        return (
            tf.constant(num_done),
            {name: results[name] for name in self._log_names},
            tf.constant([time.perf_counter() - began, 0, 0], tf.float64),
        )

    def _note_trace(self, iterator: Any, num_steps: tf.Tensor) -> None:
        # What the caller passed: TensorFlow may trace for looser shapes that cover several calls.
        arguments = self._arguments or (iterator, num_steps)
        signature = signature_of(*arguments, self._state.trainable_paths())
        note_trace(self.traces, self.name, signature, self.max_retraces)
        if not self._state.is_built:
            raise ValueError(
                "The state is not built: call state.build(dataset.element_spec) first, so that "
                "its metrics and optimizer have their variables."
            )

    def _trace_step(self, element_spec: Any) -> tuple[Any, Any]:
        """Returns the step as a function of a batch, and its trace.

        What it logs is known once it is traced. If a value of these needs a mean over the epoch,
        the mean is created, and the step traced again with it.
        """
        step = self._compile_step()
        traced = step.get_concrete_function(element_spec)
        needed = self._needed_means(traced) - self._averaged
        if not needed:
            return step, traced
        with tf.init_scope():
            for name in needed:
                self._state.metrics.add_mean(name)
        self._averaged |= needed
        step = self._compile_step()
        return step, step.get_concrete_function(element_spec)

    def _needed_means(self, traced: Any) -> set[str]:
        """Returns the names of logs that are no metric's, or of a metric that the step leaves."""
        known = set(self._state.metrics_result())
        if not self._state.notes.has_updated_metrics:
            known -= unwritten_names(traced, self._state.metrics.named()) & self._scalars
        return set(self._log_names) - known - self._lasting

    def _make_step(self) -> Callable[[Batch], Logs]:
        """Returns the step as a function of a batch, for all replicas."""
        metric_names = set(self._state.metrics_result()) - self._averaged

        def one_replica(batch: Batch) -> Logs:
            with updates_by(self._state.optimizers, self._mode.update):
                logs = flatten_logs(self._step(self._state, none_for_optionals(batch)))
            self._log_names = list(logs)
            self._lasting = {n for n, v in logs.items() if isinstance(v, Last)}
            self._scalars = {n for n, v in logs.items() if is_scalar(v)}
            # Without the metrics' results, the graph optimizer prunes their computation.
            scalars = {n: as_scalar(n, v) for n, v in logs.items() if n not in metric_names}
            for name in self._averaged & set(scalars):
                mean = self._state.metrics.means[name]
                mean.update_state(scalars.pop(name), sample_weight=num_examples(batch))
            return scalars

        def one_step(batch: Batch) -> Logs:
            self._state.notes = TraceNotes(set(self._state.metrics_result()))
            logs = self._strategy.run(one_replica, args=(batch,))
            return {name: self._mean_over_replicas(value) for name, value in logs.items()}

        return one_step

    def _compile_step(self) -> Any:
        # The step is a function of its own, as in fit: XLA compiles it and not the loop around it,
        # and its outputs are known before the loop is traced. With several replicas it also stays
        # one: inlined into the loop and optimized there, a convolution's bias gradient gets other
        # bits than in fit.
        stays_whole = self._strategy.num_replicas_in_sync > 1
        return tf.function(
            self._make_step(),
            autograph=False,
            jit_compile=self._mode.compiles_step or None,
            experimental_attributes={"_noinline": True} if stays_whole else None,
        )

    def _choose_loop(self, iterator: Any) -> Callable[..., Any]:
        if not isinstance(iterator, GraphBatches):
            count = functools.partial(count_examples, strategy=self._strategy)
            return lambda *args: loop_over_iterator(*args, count_examples=count)
        stacks = self._mode.compiles_loop and iterator.stacks is not None
        loop = loop_compiled if stacks else loop_over_resident
        return lambda *args: (*loop(*args), tf.constant(0))

    def _mean_over_replicas(self, value: Any) -> tf.Tensor:
        values = self._strategy.experimental_local_results(value)
        return values[0] if len(values) == 1 else tf.reduce_mean(values, axis=0)


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
    return StepFunction(train_step, state, strategy, mode=find_mode(state, strategy, config))


def make_eval_function(
    eval_step: StepFn, state: TrainState, strategy: tf.distribute.Strategy, config: TrainConfig
) -> StepFunction:
    """Returns a function that performs N steps of `eval_step`; see `make_train_function`.

    Example:
      >>> evaluate = engine.make_eval_function(engine.eval_step, state, strategy, config)
      >>> logs = evaluate(iter(train_ds), tf.constant(4))
    """
    mode = find_mode(state, strategy, config)
    return StepFunction(eval_step, state, strategy, mode=mode, trains=False)


def cached_function(
    make: Callable[..., StepFunction], step: StepFn, state: TrainState, config: TrainConfig
) -> StepFunction:
    """Returns the compiled function of a step, the one of an earlier call if there is one."""
    # As in Keras, a second call of fit or evaluate on the same state does not trace again.
    key = (make, step, config.jit_compile, config.jit_scope, config.numerics, config.run_eagerly)
    if key not in state.functions:
        state.functions[key] = make(step, state, state.strategy, config)
    function: StepFunction = state.functions[key]
    function.max_retraces = config.max_retraces
    return function
