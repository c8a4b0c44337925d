"""Step -> strategy.run -> tf.function -> N steps in one host call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from engine import fused
from engine.config import ConfigError, TrainConfig
from engine.loops import loop_compiled, loop_over_iterator, loop_over_resident
from engine.state import Batch, Logs, TrainState
from engine.step import predict_step as default_predict_step
from engine.timing import stamp
from engine.traces import Signature, Trace, check_count, explain, signature_of

StepFn = Callable[[TrainState, Batch], Logs | None]


class StepFunction:
    """Runs a step on the next N batches of an iterator, in one call from the host.

    The graph is traced once for a run: the number of steps is a tensor, and the partial last batch
    has an unknown leading dimension like every other.

    Attributes:
      num_traces: How often the graph was traced; 1 after the first call, unless the batches change
        their structure.
      num_steps_done: Scalar int32 tensor: steps done by the last call; fewer than asked if the
        iterator ran out of data.
      graph_secs: Float64 tensor `[2]`: seconds that the last call spent in the graph, and those of
        them in which nothing was done but wait for a batch. With a GPU, whose steps the host does
        not wait for, only the wait for the first batch of the call is among the latter.
      traces: Each trace of this function, with its cause.
      max_retraces: How many more traces than one there may be; None: any number.
    """

    def __init__(
        self,
        step: StepFn,
        state: TrainState,
        strategy: tf.distribute.Strategy,
        *,
        jit_compile: bool | str,
        update: str = "keras",
    ) -> None:
        """Use `make_train_function` or `make_eval_function`."""
        self._step = step
        self._state = state
        self._strategy = strategy
        self._jit_compile = jit_compile
        self._update = update
        self._run = tf.function(self._trace, autograph=False, reduce_retracing=True)
        self.num_traces = 0
        self.num_steps_done: tf.Tensor = tf.constant(0)
        self.graph_secs: tf.Tensor = tf.zeros([2], tf.float64)
        self.name = getattr(step, "__name__", type(step).__name__)
        self.traces: list[Trace] = []
        self.max_retraces: int | None = None
        self._signatures: list[Signature] = []
        self._arguments: tuple[Any, tf.Tensor] | None = None

    def __call__(self, iterator: Any, num_steps: tf.Tensor) -> Logs:
        """Runs `num_steps` steps, or as many as the iterator has batches for.

        Context: cross-replica, on the host.

        Args:
          iterator: `tf.data.Iterator` or `tf.distribute.DistributedIterator`, or what makes its
            batches in the graph (the pipeline's `resident`).
          num_steps: Scalar int32 tensor, 1 or more.

        Returns:
          Name to scalar, on the device: results of the metrics over all batches since their last
          reset, and what else the last step returned (the mean over replicas).

        Raises:
          TypeError: If `num_steps` is not a tensor: each new Python number would trace again.
          RetraceError: If the graph would have to be traced more often than `max_retraces` allows.
        """
        if not tf.is_tensor(num_steps):
            raise TypeError(
                f"num_steps must be a tensor, got {num_steps!r}: each new Python number would "
                f"trace the graph again. Pass tf.constant({num_steps!r})."
            )
        logs: Logs
        self._arguments = iterator, num_steps
        try:
            self.num_steps_done, logs, self.graph_secs = self._run(iterator, num_steps)
        finally:
            self._arguments = None
        return logs

    def _note_trace(self, iterator: Any, num_steps: tf.Tensor) -> None:
        # What the call was given: TensorFlow may trace for looser shapes, to cover several calls.
        signature = signature_of(*(self._arguments or (iterator, num_steps)))
        trace = Trace(self.name, explain(signature, self._signatures))
        check_count(trace, len(self.traces), self.max_retraces)
        self.traces.append(trace)
        self._signatures.append(signature)

    def _trace(self, iterator: Any, num_steps: tf.Tensor) -> tuple[tf.Tensor, Logs, tf.Tensor]:
        self._note_trace(iterator, num_steps)
        if not self._state.is_built:
            raise ValueError(
                "The state is not built: call state.build(dataset.element_spec) first, so that "
                "its metrics and optimizer have their variables."
            )
        log_names: list[str] = []
        metric_names = set(self._state.metrics_result())

        def one_replica(batch: Batch) -> Logs:
            with fused.updates_by(self._state.optimizers, self._update):
                logs = _check_logs(self._step(self._state, _none_for_optionals(batch)))
            log_names[:] = logs
            return {k: _as_float(v) for k, v in logs.items() if k not in metric_names}

        def one_step(batch: Batch) -> Logs:
            self.num_traces += 1
            logs = self._strategy.run(one_replica, args=(batch,))
            return {name: self._mean_over_replicas(value) for name, value in logs.items()}

        # The step is a function of its own, as it is in fit: XLA compiles it and not the loop
        # around it, and its outputs are known before the loop is traced. With several devices it
        # also stays one: optimised as part of a loop, a convolution's bias gradient has other bits.
        stays_whole = self._strategy.num_replicas_in_sync > 1
        compiled_step = tf.function(
            one_step,
            autograph=False,
            jit_compile=self._jit_compile in (True, "loop") or None,
            experimental_attributes={"_noinline": True} if stays_whole else None,
        )
        outputs = compiled_step.get_concrete_function(iterator.element_spec).structured_outputs
        loop = self._choose_loop(iterator)
        began = stamp()
        with tf.control_dependencies([began]):
            num_done, step_logs, waited = loop(
                compiled_step, iterator, num_steps, _zeros_like_spec(outputs)
            )
        # Results are computed here, once an execution and not once a step.
        results = self._state.metrics_result()
        logs = {n: results[n] if n in results else step_logs[n] for n in log_names}
        return num_done, logs, tf.stack([stamp(after=(num_done, logs)) - began, waited])

    def _choose_loop(self, iterator: Any) -> Callable[..., tuple[tf.Tensor, Logs, tf.Tensor]]:
        if not hasattr(iterator, "advance"):
            return loop_over_iterator
        if self._jit_compile == "loop" and getattr(iterator, "stacks", None) is not None:
            return loop_compiled
        return loop_over_resident

    def _mean_over_replicas(self, value: Any) -> tf.Tensor:
        values = self._strategy.experimental_local_results(value)
        return values[0] if len(values) == 1 else tf.reduce_mean(values, axis=0)


def make_train_function(
    train_step: StepFn, state: TrainState, strategy: tf.distribute.Strategy, config: TrainConfig
) -> StepFunction:
    """Returns a function that performs N steps of `train_step` in one host call.

    Args:
      train_step: `(state, batch) -> logs`, called once a trace in replica context. Log values are
        scalars; those that bear the name of a metric of the model come from the metric itself.
      state: Passed to the step. Its metrics must be built.
      strategy: Runs the step on each replica.
      config: `jit_compile` is read.

    Returns:
      `logs = train_function(iterator, num_steps)`; see `StepFunction`.

    Raises:
      ConfigError: If `jit_compile` is asked for under several replicas.
    """
    jit_compile = _resolve_jit_compile(state, strategy, config)
    is_compiled = jit_compile in (True, "loop")  # XLA has made one operation of the update already
    is_fast = config.numerics == "fast" and strategy.num_replicas_in_sync == 1
    update = (
        "xla" if jit_compile == "parts" else "fused" if is_fast and not is_compiled else "keras"
    )
    return StepFunction(train_step, state, strategy, jit_compile=jit_compile, update=update)


def make_eval_function(
    eval_step: StepFn, state: TrainState, strategy: tf.distribute.Strategy, config: TrainConfig
) -> StepFunction:
    """Returns a function that performs N steps of `eval_step`; see `make_train_function`."""
    return make_train_function(eval_step, state, strategy, config)


def make_predict_function(
    state: TrainState,
    strategy: tf.distribute.Strategy,
    config: TrainConfig,
    element_spec: Any = None,
) -> Callable[[Batch], Any]:
    """Returns a function that gives the model's outputs for one batch, in the order of the data.

    Context: cross-replica.

    Args:
      state: Its model predicts.
      strategy: Runs the model on each replica.
      config: `jit_compile` is read.
      element_spec: Of the data set: traced once for all its batches, the partial last one too.

    Returns:
      `outputs = predict_function(batch)`; leading dimension `global_batch_size`.
    """
    jit_compile = _resolve_jit_compile(state, strategy, config)

    def one_replica(batch: Batch) -> Any:
        return default_predict_step(state, _none_for_optionals(batch))

    def run(batch: Batch) -> Any:
        outputs = strategy.run(one_replica, args=(batch,))
        return tf.nest.map_structure(
            lambda v: _concat(strategy.experimental_local_results(v)), outputs
        )

    compiled: Any = tf.function(
        run,
        autograph=False,
        reduce_retracing=True,
        jit_compile=jit_compile in (True, "loop") or None,
    )
    if element_spec is not None:
        compiled.get_concrete_function(element_spec)
    function: Callable[[Batch], Any] = compiled
    return function


def _resolve_jit_compile(
    state: TrainState, strategy: tf.distribute.Strategy, config: TrainConfig
) -> bool | str:
    if config.jit_compile == "auto":
        return bool(state.model.jit_compile)  # Keras's rule, for the same bits as fit
    if config.jit_compile and strategy.num_replicas_in_sync > 1:
        raise ConfigError(
            f"jit_compile={config.jit_compile!r} with {strategy.num_replicas_in_sync} replicas: "
            "XLA cannot compile the exchange between replicas. Use jit_compile='auto' or false, "
            "or one replica."
        )
    return config.jit_compile


def _none_for_optionals(batch: Batch) -> Batch:
    # Keras puts an empty Optional where a batch has None, which a data set cannot hold.
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


def _concat(values: tuple[tf.Tensor, ...]) -> tf.Tensor:
    return values[0] if len(values) == 1 else tf.concat(values, axis=0)
