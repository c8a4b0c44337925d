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

from .arguments import check_step
from .array_batches import ArrayBatches
from .building import spec_of_replica
from .checks.findings import refuse_unsupported
from .checks.setup import check_setup
from .compiled_loop import loop_compiled
from .config import TrainConfig
from .eager_loop import loop_eagerly
from .execution_mode import Mode, find_mode
from .graph_loops import loop_over_iterator, loop_over_resident, stamp
from .grouping import GroupedBatches, group
from .protocols import GraphBatches, Logs
from .replicas.rules import find_rules
from .replicas.statistics import average_statistics
from .replicas.updates import updates_of
from .replicated_step import ReplicatedStep, StepFn, VariablesMissing
from .retracing import Trace, note_trace, signature_of
from .runtime import keeping_sums
from .state import TrainState
from .step_logs import StepLogs, count_examples


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
      step_logs: What the step logs.
      sizes: Of executions and calls, as the `Planner` of its last run left them for the next one.
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
        self._state = state
        self._strategy = strategy
        self._mode = mode
        self.step_logs = StepLogs(state.metrics)
        self._step = ReplicatedStep(step, state, mode, self.step_logs, trains=trains)
        self._batches_per_step: int | None = None  # 0: the step takes a batch, and no iterator
        self._run: Any = self._run_eagerly
        self._finish: Any = self._finish_windows
        if not mode.runs_eagerly:
            self._run = tf.function(self._trace, autograph=False, reduce_retracing=True)
            # TensorFlow counts the traces of all trainings together; `traces` explains each.
            self._run._omit_frequent_tracing_warning = True
            self._finish = tf.function(self._finish_windows, autograph=False)
        self.num_steps_done: tf.Tensor = tf.constant(0)
        self.measured: tf.Tensor = tf.zeros([3], tf.float64)
        self.name = self._step.name
        self.traces: list[Trace] = []
        self.max_retraces: int | None = None
        self.sizes: tuple[int, ...] = ()
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
        self.count_batches(iterator.element_spec)
        self._arguments = iterator, num_steps
        try:
            with keeping_sums():
                self.num_steps_done, logs, self.measured = self._with_variables(
                    self._run, iterator, num_steps, self._state.trace_key()
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
        return self.step_logs.results()

    def count_batches(self, element_spec: Any) -> int:
        """Returns how many batches a step takes: one, unless it calls `next(iterator)` itself.

        Args:
          element_spec: Of the dataset.

        Raises:
          ValueError: If the step takes an iterator, and no batch of it.
        """
        if self._batches_per_step is None:
            self._batches_per_step = self._step.count_batches(spec_of_replica(element_spec))
        return self._batches_per_step or 1

    def end_epoch(self, element_spec: Any) -> None:
        """Does what is due at the end of an epoch: accumulated gradients, replicas' statistics.

        Context: cross-replica.

        Args:
          element_spec: Of the iterators: a run that is resumed here has not traced its step.
        """
        if self._mode.accumulation_steps > 1:
            if not self.traces and not self._mode.runs_eagerly:
                spec = (element_spec,) * (self._batches_per_step or 0) or element_spec
                self._with_variables(self._step.trace, spec)
            self._finish(self._state.trace_key())
        if self._mode.rules.syncs_statistics:
            average_statistics(self._state)

    def _finish_windows(self, trace_key: str) -> None:
        with updates_of(self._state, self._mode):
            self._strategy.run(self._state.step_variables.finish_windows)

    def _trace(
        self, iterator: Any, num_steps: tf.Tensor, trace_key: str
    ) -> tuple[tf.Tensor, Logs, tf.Tensor]:
        """Builds the graph of one execution; runs only while TensorFlow traces."""
        self._note_trace(iterator, num_steps)
        iterator = group(iterator, self._batches_per_step)
        step, traced = self._step.trace(iterator.element_spec)
        loop = self._choose_loop(iterator)
        began = stamp()
        with tf.control_dependencies([began]):
            outputs = traced.structured_outputs.items()
            zeros = {n: tf.zeros(value.shape, value.dtype) for n, value in outputs}
            num_done, logs, waited, num_examples = loop(step, iterator, num_steps, zeros)
        # Metrics update state in each step; their results are computed here, once an execution.
        results = self.results()
        logs = {n: results[n] if n in results else logs[n] for n in self.step_logs.names}
        # After the waits too, of which the last one may end last: they are a part of these seconds.
        graph_secs = stamp(after=(num_done, logs, waited)) - began
        waited = tf.minimum(waited, graph_secs)  # where stamps come late, waits overlap
        return num_done, logs, tf.stack([graph_secs, waited, tf.cast(num_examples, tf.float64)])

    def _run_eagerly(
        self, iterator: Any, num_steps: tf.Tensor, trace_key: str
    ) -> tuple[tf.Tensor, Logs, tf.Tensor]:
        """Runs the steps in Python, for a person with a debugger."""
        began = time.perf_counter()
        iterator = group(iterator, self._batches_per_step)
        num_done, logs = loop_eagerly(self._step, iterator, num_steps, self._state, self.step_logs)
        results = logs | self.results()
        return (
            tf.constant(num_done),
            {name: results[name] for name in self.step_logs.names},
            tf.constant([time.perf_counter() - began, 0, 0], tf.float64),
        )

    def _note_trace(self, iterator: Any, num_steps: tf.Tensor) -> None:
        # What the caller passed: TensorFlow may trace for looser shapes that cover several calls.
        arguments = self._arguments or (iterator, num_steps)
        signature = signature_of(*arguments, self._state.trace_aspects())
        note_trace(self.traces, self.name, signature, self.max_retraces)
        if not self._state.is_built:
            raise ValueError(
                "The state is not built: call state.build(dataset.element_spec) first, so that "
                "its metrics and optimizer have their variables."
            )

    def _with_variables(self, function: Callable[..., Any], *args: Any) -> Any:
        """Calls a function that traces the step, once more if the step needs variables."""
        num_traces = len(self.traces)
        try:
            return function(*args)
        except VariablesMissing as missing:
            del self.traces[num_traces:]
            for create in missing.creators:
                create()
            return function(*args)

    def _choose_loop(self, iterator: Any) -> Callable[..., Any]:
        if isinstance(iterator, ArrayBatches):
            return lambda *args: (*loop_over_resident(*args), tf.constant(0))
        if not isinstance(iterator, GraphBatches | GroupedBatches):
            count = functools.partial(count_examples, strategy=self._strategy)
            return lambda *args: loop_over_iterator(*args, count_examples=count)
        stacks = self._mode.compiles_loop and iterator.stacks is not None
        loop = loop_compiled if stacks else loop_over_resident
        return lambda *args: (*loop(*args), tf.constant(0))


def make_train_function(
    train_step: StepFn, state: TrainState, strategy: tf.distribute.Strategy, config: TrainConfig
) -> StepFunction:
    """Returns a function that performs N steps of `train_step` in one host call.

    Args:
      train_step: `(state, batch) -> logs`, called once a trace in replica context; or
        `(state, iterator) -> logs`, which takes as many batches as it wants by `next(iterator)`.
        The values of logs are scalars; those under the name of a metric of the state come from the
        metric itself, unless they are in `engine.last`.
      state: Passed to the step. Must be built.
      strategy: Runs the step on each replica.
      config: Read: `jit_compile`, `jit_scope`, `numerics`, `run_eagerly`, `compile_update`,
        `narrow_products`,
        `gradient_accumulation_steps`, `on_nonfinite`, and the group "replicas".

    Returns:
      `logs = train_function(iterator, num_steps)`; see `StepFunction`.

    Raises:
      ConfigError: If `check_setup` finds something unsupported.

    Example:
      >>> state.build(train_ds.element_spec)
      >>> train = engine.make_train_function(engine.train_step, state, strategy, config)
      >>> sorted(train(iter(train_ds), tf.constant(2)))
      ['loss']
    """
    check_step(train_step, "train_step")
    mode = find_mode(state, strategy, config)
    found = check_setup(config, state.model, optimizer=state.optimizer, strategy=strategy)
    refuse_unsupported(found)
    return StepFunction(train_step, state, strategy, mode=mode)


def make_eval_function(
    eval_step: StepFn, state: TrainState, strategy: tf.distribute.Strategy, config: TrainConfig
) -> StepFunction:
    """Returns a function that performs N steps of `eval_step`; see `make_train_function`.

    Example:
      >>> evaluate = engine.make_eval_function(engine.eval_step, state, strategy, config)
      >>> logs = evaluate(iter(train_ds), tf.constant(4))
    """
    check_step(eval_step, "eval_step")
    mode = find_mode(state, strategy, config)
    return StepFunction(eval_step, state, strategy, mode=mode, trains=False)


def cached_function(
    make: Callable[..., StepFunction], step: StepFn, state: TrainState, config: TrainConfig
) -> StepFunction:
    """Returns the compiled function of a step, the one of an earlier call if there is one."""
    # As in Keras, a second call of fit or evaluate on the same state does not trace again.
    key = (
        make, step, config.jit_compile, config.jit_scope, config.numerics, config.run_eagerly,
        config.compile_update, config.narrow_products, config.gradient_accumulation_steps,
        config.on_nonfinite,
        find_rules(config, state.strategy.num_replicas_in_sync),
    )  # fmt: skip
    if key not in state.functions:
        state.functions[key] = make(step, state, state.strategy, config)
    function: StepFunction = state.functions[key]
    function.max_retraces = config.max_retraces
    return function
