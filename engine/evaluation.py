"""evaluate: loss and metrics over a dataset; and the validation of a training, which uses it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from . import step as step_lib
from .agreement import check_compiled, within_limits
from .arguments import check_step, refuse_unknown
from .config import TrainConfig
from .hooks.base import Hook
from .inputs import Inputs, unpack_validation
from .options import ConfigError
from .planner import Planner, Stops
from .protocols import Logs
from .replicas.rules import find_rules
from .replicas.statistics import statistics_of
from .replicated_step import StepFn
from .session import Session
from .source import Source
from .state import TrainState
from .step_errors import explained
from .step_function import cached_function, make_eval_function
from .strategy import may_be_resident
from .timing import EVALUATION
from .workers.slices import of_context


def evaluate(
    state: TrainState,
    x: Any,
    config: TrainConfig,
    *,
    y: Any = None,
    sample_weight: Any = None,
    eval_step: StepFn = step_lib.eval_step,
    hooks: Sequence[Hook] | None = (),
    **unknown: Any,
) -> Logs:
    """Returns the loss and the metrics over a dataset, as `keras.Model.evaluate` does.

    Context: cross-replica, on the host.

    Args:
      state: Its metrics are reset first.
      x: As in `fit`.
      y: As in `fit`.
      sample_weight: As in `fit`.
      config: Read: `global_batch_size` (of arrays), `validation_steps`, `steps_per_execution`,
        `jit_compile`, `jit_scope`, `run_eagerly`, `input`, `max_retraces`.
      eval_step: `(state, batch) -> logs`, called in replica context.
      hooks: Their `on_eval_begin` and `on_eval_end` are called.
      **unknown: Refused: the error says where that argument of Keras's belongs here.

    Returns:
      Name to number, with Keras's names in Keras's order.

    Raises:
      TypeError: If an argument is unknown.
      ConfigError: If the config does not agree with the state or the process.

    Example:
      >>> sorted(engine.evaluate(state, train_ds, config))
      ['loss']
    """
    refuse_unknown(evaluate, unknown)
    session = Session(state, config, hooks)
    check_step(eval_step, "eval_step")
    check_compiled(state)
    config = within_limits(session.config)
    data = Inputs(
        of_context(x, state.strategy), y, sample_weight, batch_size=config.global_batch_size,
        steps_per_epoch=config.validation_steps,
    )  # fmt: skip
    evaluation = Evaluation(state, data, config, eval_step)
    with session.noting_failure():
        return evaluation.run(session)


class Evaluation:
    """A dataset and the compiled function that evaluates it; one for a whole run.

    Attributes:
      source: The batches.
      function: The compiled function.
    """

    def __init__(
        self, state: TrainState, dataset: Any, config: TrainConfig, eval_step: StepFn
    ) -> None:
        self._config = config
        self.source = Source(
            unpack_validation(of_context(dataset, state.strategy), config),
            state.strategy,
            config.validation_steps,
            ordered=may_be_resident(state.strategy, config),
        )
        state.build(self.source.element_spec)
        self.function = cached_function(make_eval_function, eval_step, state, config)
        self.source.group(self.function.count_batches(self.source.element_spec))

    def run(self, session: Session) -> Logs:
        """Returns the logs; the metrics of a training are as they were."""
        with session.timing.part(EVALUATION):
            session.info.num_steps = self.source.steps_per_epoch
            session.state.model.stop_evaluating = False
            session.call("on_eval_begin")
            planner = Planner(self._config, session.hooks, evaluates=True, function=self.function)
            with session.state.metrics.kept():
                with session.consensus.on_sizes(planner):
                    session.reset_metrics()
                    logs = session.results(self._run_steps(session, planner), self.function)
                session.set_logs(logs, session.state.progress.num_steps_completed)
                session.info.ends_evaluation = False
                session.call("on_eval_end")  # which may look at the metrics
        return logs

    def _run_steps(self, session: Session, planner: Planner) -> Logs:
        """Returns what the last execution logged."""
        self.source.reset(takes_batch=session.state.has_scope)
        self.source.begin_epoch(0)
        logs: Logs = {}
        stops = Stops(session.stops_evaluation, session.stops_at_once)
        executions = self.source.executions(self.function, planner, stops, session.timing)
        session.info.eval_step = 0
        for execution in explained(executions, session.state, self.source):
            logs = execution.logs
            if execution.num_cut:
                break
            session.info.eval_step += execution.num_steps
            if session.needs_exact_logs:
                session.set_logs(session.fetch(logs), session.state.progress.num_steps_completed)
            session.call("on_eval_execution_end")
        self.source.end_evaluation()
        return logs


class Validation:
    """The datasets on which a training is evaluated, by name.

    Args:
      session: Of the training.
      validation_data: A dataset or arrays, named "val"; or a dict of name to any of these.
      config: Read: `validation_freq`, and what `evaluate` reads.
      eval_step: As in `evaluate`.

    Raises:
      ConfigError: If there are none, and the config wants them validated within epochs.
    """

    def __init__(
        self, session: Session, validation_data: Any, config: TrainConfig, eval_step: StepFn
    ) -> None:
        check_step(eval_step, "eval_step")  # also where nothing is validated
        self._session = session
        self._config = config
        self._evaluations = {
            name: Evaluation(session.state, data, config, eval_step)
            for name, data in _name_datasets(validation_data).items()
        }
        if config.validate_every_steps and not self._evaluations:
            raise ConfigError(
                f"validate_every_steps={config.validate_every_steps} needs validation_data: pass "
                "some, or leave it out."
            )
        self._last: tuple[int, Logs] | None = None
        self._place_before: dict[str, Any] = {}  # of what was cut short, and comes again
        session.info.has_validation = bool(self._evaluations)
        for evaluation in self._evaluations.values():
            session.watch(evaluation.function)

    def run_at_epoch_end(self) -> Logs:
        """Returns the logs by their names in the history; none if no validation is due."""
        model, epoch = self._session.state.model, self._session.state.progress.epoch
        if not model._should_eval(epoch, self._config.validation_freq):
            return {}
        last, num_steps = self._last, self._session.state.progress.num_steps_completed
        if last is None or last[0] != num_steps or self._is_changed_since():
            return self._run()
        return last[1]

    def _is_changed_since(self) -> bool:
        """Returns whether the end of an epoch changes what is evaluated, after its last step."""
        state, config = self._session.state, self._config
        rules = find_rules(config, state.strategy.num_replicas_in_sync)
        averages = rules.syncs_statistics and bool(statistics_of(state))
        return averages or config.gradient_accumulation_steps > 1

    def run_within_epoch(self) -> bool:
        """Validates if `validate_every_steps` says so, and tells the hooks; returns whether so."""
        session, period = self._session, self._config.validate_every_steps
        num_steps = session.state.progress.num_steps_completed
        if period is None or num_steps % period or not self._evaluations:
            session.owes_validation = False  # in a run that goes on with another period
            return False
        session.owes_validation = True
        logs = {} if session.info.stops_now else self._run()
        if session.stops_evaluation():
            return True  # It is done when the run goes on.
        session.owes_validation = False
        self._last = num_steps, logs
        session.set_logs(logs, num_steps)
        session.call("on_validation_end")
        return True

    @property
    def sources(self) -> Mapping[str, Source]:
        """The data by name."""
        return {name: evaluation.source for name, evaluation in self._evaluations.items()}

    def state(self) -> dict[str, Any]:
        """Returns where the data stand."""
        return self._place_before or {name: one.state() for name, one in self.sources.items()}

    def last(self) -> dict[str, Any] | None:
        """Returns the last validation within an epoch, which its end does not repeat."""
        if self._last is None:
            return None
        return {"of": list(self.sources), "num_steps": self._last[0], "logs": self._last[1]}

    def restore(self, last: dict[str, Any] | None) -> None:
        """Takes what `last` returned, if it is of data of the same names."""
        self._last = None
        if last is not None and last["of"] == list(self.sources):
            self._last = last["num_steps"], last["logs"]

    def _run(self) -> Logs:
        place = self.state()
        logs = self._run_all()
        self._place_before = place if self._session.info.stops_now else {}
        return logs

    def _run_all(self) -> Logs:
        logs: Logs = {}
        for name, evaluation in self._evaluations.items():
            self._session.info.eval_name = name
            results = evaluation.run(self._session)
            logs |= {f"{name}_{metric}": value for metric, value in results.items()}
        self._session.info.eval_name = ""
        return logs


def _name_datasets(validation_data: Any) -> Mapping[str, Any]:
    """Returns datasets by name. A dict of arrays is the inputs of a model, as in Keras."""
    if validation_data is None:
        return {}
    if isinstance(validation_data, Mapping) and _are_data(list(validation_data.values())):
        named: Mapping[str, Any] = validation_data
        return named
    return {"val": validation_data}


def _are_data(values: list[Any]) -> bool:
    """Returns whether these are data to validate on, each by itself, and not inputs of a model."""
    if values and all(isinstance(one, tuple | list) for one in values):
        return True  # pairs of inputs and targets
    # Inputs are arrays, which have a shape; a dataset, a generator or a function has none.
    leaves = tf.nest.flatten(values)
    return not all(leaf is None or hasattr(leaf, "shape") for leaf in leaves)
