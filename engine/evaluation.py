"""evaluate: loss and metrics over a dataset, by itself or as the validation of a training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from . import step as step_lib
from .agreement import within_limits
from .config import TrainConfig
from .hooks.base import Hook
from .inputs import unpack_validation
from .planner import Planner
from .protocols import Logs
from .session import Session
from .source import Source
from .state import TrainState
from .step_function import StepFn, cached_function, make_eval_function
from .timing import EVALUATION


def evaluate(
    state: TrainState,
    x: Any,
    config: TrainConfig,
    *,
    y: Any = None,
    sample_weight: Any = None,
    eval_step: StepFn = step_lib.eval_step,
    hooks: Sequence[Hook] = (),
) -> Logs:
    """Returns the loss and the metrics over a dataset, as `keras.Model.evaluate` does.

    Context: cross-replica, on the host.

    Args:
      state: Its metrics are reset first.
      x: As in `fit`.
      y: As in `fit`.
      sample_weight: As in `fit`.
      config: Read: `validation_steps`, `steps_per_execution`, `jit_compile`, `jit_scope`.
      eval_step: `(state, batch) -> logs`, called in replica context.
      hooks: Their `on_eval_begin` and `on_eval_end` are called.

    Returns:
      Name to number, with Keras's names in Keras's order.

    Raises:
      ConfigError: If the config does not agree with the state or the process.

    Example:
      >>> sorted(engine.evaluate(state, train_ds, config))
      ['loss']
    """
    config = within_limits(config)
    session = Session(state, config, hooks)
    data = x if y is sample_weight is None else (x, y, sample_weight)
    return Evaluation(state, data, config, eval_step).run(session)


class Evaluation:
    """A dataset and the compiled function that evaluates it; one for a whole run."""

    def __init__(
        self, state: TrainState, dataset: Any, config: TrainConfig, eval_step: StepFn
    ) -> None:
        self._config = config
        self._source = Source(
            unpack_validation(dataset, config), state.strategy, config.validation_steps
        )
        state.build(self._source.element_spec)
        self.function = cached_function(make_eval_function, eval_step, state, config)

    def run(self, session: Session) -> Logs:
        """Returns the logs; the metrics of a training are as they were."""
        with session.timing.part(EVALUATION):
            session.call("on_eval_begin")
            with session.kept_metrics():
                session.reset_metrics()
                logs = session.results(self._run_steps(session), self.function)
            session.set_logs(logs, session.state.progress.num_steps_completed)
            session.call("on_eval_end")
        return logs

    def _run_steps(self, session: Session) -> Logs:
        """Returns what the last execution logged."""
        self._source.restart()
        self._source.begin_epoch(0)
        logs: Logs = {}
        planner = Planner(self._config, session.hooks, evaluates=True)
        executions = self._source.executions(
            self.function, planner, session.stops_evaluation, session.timing
        )
        session.info.eval_step = 0
        for num_done, logs in executions:
            session.info.eval_step += num_done
            if session.needs_exact_logs:
                session.set_logs(session.fetch(logs), session.state.progress.num_steps_completed)
            session.call("on_eval_execution_end")
        return logs
