"""MetricSet: the metrics of a model, those in the extras, and the means of what a step logs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.src.trainers.compile_utils import CompileMetrics

from .patching import patched
from .protocols import Logs
from .step_logs import flatten_logs
from .variables import (
    LOGS_PREFIX,
    METRICS_PREFIX,
    TOTALS_PREFIX,
    assign_local_values,
    local_values,
)


class MetricSet:
    """All metrics of a state. Context: cross-replica.

    Args:
      model: Its own and its compiled metrics.
      extras: Metrics among them belong to the set.
      strategy: Where means are created.

    Attributes:
      means: Name of a step's log that is no metric to its mean over the epoch.
      totals: Likewise, to its sum. One step may log as a sum what another one logs as a mean.
    """

    def __init__(
        self, model: keras.Model, extras: Mapping[str, Any], strategy: tf.distribute.Strategy
    ) -> None:
        self._model = model
        self._strategy = strategy
        self._extras = [e for e in extras.values() if isinstance(e, keras.metrics.Metric)]
        self.means: dict[str, keras.metrics.Metric] = {}
        self.totals: dict[str, keras.metrics.Metric] = {}
        self._kept: list[tuple[keras.Variable, list[np.ndarray]]] = []

    def reset(self) -> None:
        """Resets all."""
        self._model.reset_metrics()
        for metric in [*self._extras, *self.means.values(), *self.totals.values()]:
            metric.reset_state()

    def results(self) -> Logs:
        """Returns the result of each metric by name, without the means; dicts are flattened."""
        results = self.own_results()
        return flatten_logs(results | {metric.name: metric.result() for metric in self._extras})

    def own_results(self) -> Logs:
        """Returns the results of the model's metrics, as Keras's method of the model does."""
        with contextlib.ExitStack() as stack:
            for metric in self._unbuilt():
                stack.enter_context(patched(metric, result=dict))  # Keras's raises an error.
            results: Logs = self._model.get_metrics_result()
            return results

    @contextlib.contextmanager
    def not_built_in_steps(self) -> Iterator[None]:
        """Says in a sentence what the compiled metrics lack, if a step builds them, while it runs.

        Raises:
          ValueError: If it does.
        """

        def build(y_true: Any, y_pred: Any) -> None:
            raise ValueError(
                "The dataset has no labels, and the step has made some for the compiled metrics: "
                "under several replicas, these must know them before. Let the dataset have them, "
                "as dataset.map(lambda x: (x, x)), and the step take them."
            )

        with contextlib.ExitStack() as stack:
            for metric in self._unbuilt():
                stack.enter_context(patched(metric, build=build))
            yield

    def _unbuilt(self) -> list[CompileMetrics]:
        metrics = self._model.metrics
        return [m for m in metrics if isinstance(m, CompileMetrics) and not m.built]

    def mean_results(self) -> Logs:
        """Returns the means and sums over the epoch of what steps log."""
        return {name: one.result() for name, one in (self.means | self.totals).items()}

    def add_mean(self, name: str, *, sums: bool = False) -> None:
        """Creates the mean, or the sum, of what a step logs under a name.

        The name of its variables is `metrics/logs.<name>/...` or `metrics/totals.<name>/...`, by
        which a checkpoint finds it.
        """
        kept = self.totals if sums else self.means
        if name not in kept:
            with self._strategy.scope():
                kept[name] = (
                    keras.metrics.Sum(TOTALS_PREFIX + name, dtype="float64")
                    if sums
                    else keras.metrics.Mean(LOGS_PREFIX + name)
                )

    def create_named(self, names: Iterable[str]) -> None:
        """Creates the means and sums that variables of these names belong to."""
        for prefix in (LOGS_PREFIX, TOTALS_PREFIX):
            start = METRICS_PREFIX + prefix
            for name in (name for name in names if name.startswith(start)):
                log = name.removeprefix(start).rsplit("/", 1)[0]
                self.add_mean(log, sums=prefix == TOTALS_PREFIX)

    def named(self) -> dict[str, keras.metrics.Metric]:
        """Returns metrics by the names under which a step logs them: those that can be told apart.

        The loss tracker, a model's own metrics, and those in the extras; not the compiled ones,
        which only Keras updates.
        """
        own = [m for m in self._model.metrics if not isinstance(m, CompileMetrics)]
        return {metric.name: metric for metric in [*own, *self._extras]}

    def own_variables(self) -> list[keras.Variable]:
        """Returns the variables of the model's metrics and of the means, without the extras'."""
        kept = [*self.means.values(), *self.totals.values()]
        means = [variable for mean in kept for variable in mean.variables]
        return [*self._model.metrics_variables, *means]

    def variables(self) -> list[keras.Variable]:
        """Returns the variables of all."""
        return [*self.own_variables(), *(v for metric in self._extras for v in metric.variables)]

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """Puts all metrics back at the end: an evaluation uses the ones of the training."""
        before, kept = self._kept, [(v, local_values(v)) for v in self.variables()]
        self._kept = before or kept  # those of the training, if a hook evaluates
        try:
            yield
        finally:
            for variable, values in kept:
                assign_local_values(variable, values)
            self._kept = before

    def kept_values(self, variable: keras.Variable) -> list[np.ndarray] | None:
        """Returns the values that `kept` will put back; None for those that it does not."""
        return next((values for one, values in self._kept if one is variable), None)
