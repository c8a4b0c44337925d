"""find_learning_rate: the loss at learning rates that grow from step to step.

The range test of Smith, "Cyclical learning rates for training neural networks" (arXiv:1506.01186),
section 3.3, with a geometric growth: one run of some hundred steps, after which all is as it was.
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import keras
import numpy as np

from .. import step as step_lib
from ..config import TrainConfig
from ..hooks.base import Hook, HookInfo
from ..loop import fit
from ..replicated_step import StepFn
from ..state import TrainState
from ..storage import figures
from ..variables import assign_local_values, local_values

_SMOOTHING = 0.9  # share of the earlier losses in the moving average
_DIVERGED = 4.0  # times the lowest loss: beyond it, larger rates tell nothing
_NUM_FIRST = 10  # losses that show how far those of batches lie apart, where rates are small


@dataclasses.dataclass(frozen=True)
class LearningRateCurve:
    """The loss at each learning rate.

    Attributes:
      learning_rates: Of each step, growing.
      losses: Of the batch of each step, before its update.
      suggestion: Where the smoothed loss falls fastest: a rate to begin with.
    """

    learning_rates: list[float]
    losses: list[float]
    suggestion: float

    def plot(self, path: str | Path) -> Path:
        """Writes the curve as a picture; the ending of the path says which kind.

        Raises:
          MissingExtra: If the package `matplotlib` is not installed.
        """
        figure = figures.new_figure(7.0, 4.0)
        axes = figure.subplots()
        axes.plot(self.learning_rates, self.losses, alpha=0.4, label="loss of a batch")
        axes.plot(self.learning_rates, _smooth(self.losses), label="smoothed")
        axes.axvline(self.suggestion, linestyle="--", label=f"suggestion {self.suggestion:.1e}")
        axes.set(xscale="log", xlabel="learning rate", ylabel="loss")
        axes.legend()
        return figures.save_figure(figure, path)


def find_learning_rate(
    state: TrainState,
    x: Any,
    config: TrainConfig,
    *,
    y: Any = None,
    between: tuple[float, float] = (1e-6, 10.0),
    num_steps: int = 100,
    train_step: StepFn = step_lib.train_step,
) -> LearningRateCurve:
    """Trains for a while with growing learning rates, and puts everything back.

    Context: cross-replica, on the host. It ends early where the loss grows beyond four times its
    lowest, or is no number. Of losses that reach 0 or less, as a critic's, it ends where they have
    risen by three times their size.

    Args:
      state: All its variables and its progress are as before in the end.
      x: As in `fit`; as many passes over it are made as it takes.
      config: As in `fit`, apart from epochs and validation.
      y: As in `fit`.
      between: Learning rates of the first and the last step.
      num_steps: How many there are.
      train_step: As in `fit`; its logs need a `loss`.

    Returns:
      The curve, with a suggestion, and `plot(path)`.

    Raises:
      ValueError: If the range is empty, or the learning rate of the optimizer is a schedule.

    Example:
      >>> curve = engine.find_learning_rate(state, train_ds, config, num_steps=20)
      >>> curve.learning_rates[0] < curve.suggestion < curve.learning_rates[-1]
      True
    """
    lowest, highest = between
    if not 0 < lowest < highest or num_steps < 3:
        raise ValueError(
            f"between={between}, num_steps={num_steps}: rates must grow from above 0 in 3 steps or "
            "more, such as between=(1e-6, 10.0), num_steps=100."
        )
    hook = _Sweep(np.geomspace(lowest, highest, num_steps).tolist())
    config = dataclasses.replace(
        config,
        epochs=num_steps,
        initial_epoch=0,
        steps_per_execution=1,
        validate_every_steps=None,
        on_nonfinite=None,
    )
    progress, parts = dataclasses.asdict(state.progress), state.resumption.capture()
    try:
        fit(state, x, config, y=y, hooks=[hook], train_step=train_step)
    finally:
        hook.put_back()
        for name, value in progress.items():
            setattr(state.progress, name, value)
        state.resumption.restore(parts)
    return LearningRateCurve(hook.rates[: len(hook.losses)], hook.losses, hook.suggestion())


class _Sweep(Hook):
    """Sets the learning rate of each step, and notes the loss of its batch."""

    needs_exact_logs = True

    def __init__(self, rates: list[float]) -> None:
        self.rates = rates
        self.losses: list[float] = []
        self._state: TrainState | None = None
        self._kept: list[tuple[keras.Variable, list[np.ndarray]]] = []
        self._optimizer: Any = None

    def on_train_begin(self, info: HookInfo) -> None:
        self._optimizer = info.state.optimizer
        inner = getattr(self._optimizer, "inner_optimizer", self._optimizer)
        if not isinstance(getattr(inner, "_learning_rate", None), keras.Variable):
            raise ValueError(
                "find_learning_rate needs an optimizer whose learning rate is a number, not a "
                f"schedule or a function: {self._optimizer!r}."
            )
        self._state = info.state
        self._kept = [(v, local_values(v)) for _, v in info.state.named_variables()]
        self._optimizer.learning_rate = self.rates[0]

    def on_execution_end(self, info: HookInfo) -> None:
        loss = info.logs.get("loss", math.nan)
        if not math.isfinite(loss) or _has_diverged(self.losses, loss):
            info.request_stop("the loss has diverged", immediately=True)
            return
        self.losses.append(loss)
        if len(self.losses) == len(self.rates):
            info.request_stop("the last rate was tried", immediately=True)
            return
        info.state.reset_metrics()  # the next logs are of the next batch alone
        self._optimizer.learning_rate = self.rates[len(self.losses)]

    def put_back(self) -> None:
        """Puts back what was trained; what was created is as if it were new."""
        if self._state is not None:
            self._state.step_variables.clear()
        for variable, values in self._kept:
            assign_local_values(variable, values)

    def suggestion(self) -> float:
        """Returns where the smoothed loss falls fastest over the logarithm of the rate."""
        if len(self.losses) < 3:
            raise ValueError(
                f"the loss was {self.losses} in the first steps, and then no number or diverged: "
                f"begin below {self.rates[0]}, or look at the data."
            )
        slope = np.gradient(_smooth(self.losses), np.log(self.rates[: len(self.losses)]))
        return self.rates[int(np.argmin(slope[1:-1])) + 1]


def _has_diverged(losses: list[float], loss: float) -> bool:
    """Returns whether a loss is far above the lowest one before it."""
    lowest = min(losses, default=math.inf)
    if lowest > 0:
        return loss > _DIVERGED * lowest
    if len(losses) < _NUM_FIRST:  # around 0, no loss is a measure of another one
        return False
    size = max(abs(lowest), max(losses[:_NUM_FIRST]) - lowest)
    return loss - lowest > (_DIVERGED - 1) * size


def _smooth(losses: list[float]) -> list[float]:
    """Returns the moving average, without the bias of its start."""
    average, smoothed = 0.0, []
    for number, loss in enumerate(losses, start=1):
        average = _SMOOTHING * average + (1 - _SMOOTHING) * loss
        smoothed.append(average / (1 - _SMOOTHING**number))
    return smoothed
