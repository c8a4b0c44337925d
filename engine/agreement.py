"""Does a config agree with the state, the process and the dataset that `fit` is given?

A field that is set takes effect, or raises here: none is ignored.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from .arguments import check_config, check_state, has_own
from .building import may_be_batched
from .config import TrainConfig
from .hooks.base import Hook
from .options import ConfigError
from .protocols import HasBatchSize
from .replicas.rules import find_rules
from .runtime import check_runtime
from .state import TrainState
from .strategy import check_strategy


def check_agreement(config: TrainConfig, state: TrainState) -> None:
    """Raises ConfigError if a field of the config is set and the state or the process differs."""
    check_state(state)
    check_config(config)
    check_model_functions(state.model)
    check_runtime(config)
    check_strategy(config, state.strategy, has_scope=state.has_scope)
    if config.precision is not None:
        _check_precision(config.precision, state.model)


def check_window(config: TrainConfig, state: TrainState) -> None:
    """Raises ConfigError if gradients wait for an update that a training would not make."""
    if config.gradient_accumulation_steps == 1 and state.step_variables.has_open_window:
        raise ConfigError(
            "gradient_accumulation_steps=1, but the state has gradients that wait for an update: "
            "set it as in the run that was saved, or call state.step_variables.clear()."
        )


def check_nonfinite(config: TrainConfig, hooks: Sequence[Hook]) -> None:
    """Raises ConfigError unless hooks do about numbers that are not finite what a config says."""
    action = config.on_nonfinite or "watch"
    found = {hook.nonfinite_action for hook in hooks} - {None}
    if action not in ("watch", "off", *found):
        raise ConfigError(
            f"on_nonfinite={action!r} needs the hook that says which steps are concerned: add "
            f"engine.OnNonfinite({action!r}) to hooks, before SaveCheckpoint."
        )
    others = found - ({action} if action == "off" else {action, "watch"})
    if others:
        other = sorted(map(str, others))[0]
        hook = "StopOnNaN()" if other == "watch" else f"OnNonfinite({other!r})"
        raise ConfigError(
            f"on_nonfinite={action!r}, but hooks has engine.{hook}: set "
            f"on_nonfinite={None if other == 'watch' else other!r}, or leave the hook out."
        )


def _check_precision(precision: str, model: keras.Model) -> None:
    policy = model.dtype_policy.name
    if policy == precision:
        # Layers may have been created before, or after, the policy was set.
        layers = [layer for layer in model._flatten_layers() if layer.weights]
        dtypes = {layer.name: layer.compute_dtype for layer in layers if layer is not model}
        half = precision.removeprefix("mixed_")
        if half == precision:
            others = [name for name, dtype in dtypes.items() if dtype in ("bfloat16", "float16")]
        else:
            others = [] if half in dtypes.values() else list(dtypes)
        if not others:
            return
        policy = dtypes[others[0]]
        found = f"its layer {others[0]!r} computes in {policy}"
    else:
        found = f"was built with the dtype policy {policy!r}"
    raise ConfigError(
        f"precision={precision!r}, but the model {found}: call configure_runtime(config) before "
        "any layer is created (keras.utils.clear_session() forgets the policy), or leave precision "
        "out."
    )


def check_compiled(state: TrainState) -> None:
    """Raises ConfigError if the model was compiled again: its loss and metrics are others now."""
    model = state.model
    if model.compiled and not (
        state.optimizer is model.optimizer and state.loss_tracker is model._loss_tracker
    ):
        raise ConfigError(
            "the model was compiled since this TrainState was made, and has another optimizer, "
            "loss and metrics: create a new TrainState(model)."
        )


def within_limits(config: TrainConfig) -> TrainConfig:
    """Returns the config within the limits of `keras.config`, with a warning for what they lower.

    Its validation is limited as training is, and where epochs are, `initial_epoch` follows.
    """
    max_steps = keras.config.max_steps_per_epoch()
    limits = {
        "epochs": keras.config.max_epochs(),
        "steps_per_epoch": max_steps,
        "validation_steps": max_steps,
    }
    lowered = {
        name: limit
        for name, limit in limits.items()
        if limit and (getattr(config, name) is None or limit < getattr(config, name))
    }
    if not lowered:
        return config
    warnings.warn(f"keras.config limits {show_fields(lowered)}.", stacklevel=3)
    epochs = lowered.get("epochs", config.epochs)
    initial_epoch = min(config.initial_epoch, epochs)
    return dataclasses.replace(config, **lowered, initial_epoch=initial_epoch)


def within_step_limit(steps: int | None) -> int | None:
    """Returns the steps of a prediction within the limit of `keras.config`; warns likewise."""
    limit: int | None = keras.config.max_steps_per_epoch()
    if not limit or (steps is not None and steps <= limit):
        return steps
    warnings.warn(f"keras.config limits steps={limit}.", stacklevel=3)
    return limit


def show_fields(fields: dict[str, Any]) -> str:
    """Returns fields as a person writes them."""
    return ", ".join(f"{name}={value}" for name, value in fields.items())


def check_model_functions(model: keras.Model) -> None:
    """Raises ValueError if the model makes its compiled functions itself: only Keras calls them."""
    for name in ("make_train_function", "make_test_function", "make_predict_function"):
        if has_own(model, name):
            raise ValueError(
                f"{type(model).__name__} overrides {name}, which the engine does not call: write "
                "what it does as a step, `(state, batch) -> logs` (docs/custom_steps.md)."
            )


class BatchSizeCheck:
    """Checks that batches have the size that a config says: of a dataset that tells it, at once.

    Of another dataset, the first batch of each execution is looked at until one is full. That the
    batches do not divide among replicas is said once, and not of a partial last batch.

    Args:
      dataset: What is trained on; None: its batches are as they should be.
      config: Read: `global_batch_size`, the size that is expected; None: any. And the group
        "replicas".
      num_replicas: In sync, over all workers.

    Raises:
      ConfigError: If the dataset tells another size.
    """

    def __init__(
        self,
        dataset: tf.data.Dataset | None,
        config: TrainConfig | None = None,
        *,
        num_replicas: int = 1,
    ) -> None:
        config = config or TrainConfig()
        self._expected = config.global_batch_size
        self._partial: int | None = None  # size of a batch that was taken for the last
        self._num_replicas = num_replicas
        self._is_exact = find_rules(config, num_replicas).weighs_examples
        found = None if dataset is None else _told_batch_size(dataset)
        if found is not None and self._expected is not None:
            self._check(found)
        self._say_uneven(found or config.global_batch_size or 0)

    def see(self, num_examples: int, *, is_first: bool, may_be_last: bool) -> None:
        """Looks at a batch.

        Args:
          num_examples: Of the batch; 0: not counted.
          is_first: Whether it is the first of a pass over the data.
          may_be_last: Whether it may be the last of the data, and so a partial one.

        Raises:
          ConfigError: If the batch, or one before it, has another size than expected.
        """
        if not may_be_last:
            self._say_uneven(num_examples)
        if self._expected is None or not num_examples:
            return
        before, self._partial = None if is_first else self._partial, None
        if before is not None:  # It was not the last.
            self._check(before)
        elif may_be_last and num_examples < self._expected:
            self._partial = num_examples
        else:
            self._check(num_examples)

    def _say_uneven(self, num_examples: int) -> None:
        num_replicas = self._num_replicas
        if num_examples % num_replicas == 0:
            return
        self._num_replicas = 1  # once
        does = "each example weighs the same, but some replicas wait for others"
        fix = f"Use a multiple of {num_replicas}"
        if not self._is_exact:
            does = "the examples of the smaller parts weigh more, as in fit"
            fix += ", or uneven='exact'"
        warnings.warn(
            f"Batches of {num_examples} do not divide among {num_replicas} replicas: {does}. "
            f"{fix}.",
            stacklevel=2,
        )

    def _check(self, found: int) -> None:
        if found != self._expected:
            raise ConfigError(
                f"global_batch_size={self._expected}, but the batches of the dataset have {found} "
                f"examples: set global_batch_size={found}, leave it out, or batch the dataset "
                "otherwise."
            )
        self._expected = None


def _told_batch_size(dataset: tf.data.Dataset) -> int | None:
    """Returns the batch size that the dataset itself tells; None where only a batch can."""
    if isinstance(dataset, HasBatchSize):
        return dataset.global_batch_size
    first: Any = next(iter(tf.nest.flatten(dataset.element_spec)), None)
    if (
        isinstance(dataset, tf.data.Dataset)
        and isinstance(first, tf.TensorSpec)
        and first.shape.rank
        and may_be_batched(dataset.element_spec)
    ):
        size: int | None = first.shape[0]
        return size
    return None
