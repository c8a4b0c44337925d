"""Mode: what of a step XLA compiles, who computes the update, and whether Python runs it."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import tensorflow as tf
from keras.src.trainers.trainer import model_supports_jit

from . import devices
from .arguments import check_config, check_state, check_strategy_kind
from .building import as_compiled
from .compiled_updates import is_eligible
from .config import TrainConfig
from .config_checks import check_one_replica
from .fused_updates import Update
from .options import ConfigError
from .replicas.rules import ReplicaRules, find_rules
from .state import TrainState


class Mode(NamedTuple):
    """How steps are run.

    Attributes:
      compiles_step: XLA compiles each step.
      compiles_replica: XLA compiles what a step does on each of several replicas, but the update.
      compiles_loop: XLA compiles many steps at once, where the graph makes the batches.
      update: Who computes the optimizer's update.
      fuses_lstm: LSTM layers run on the engine's operations while they are trained.
      narrows_products: XLA computes gradients of narrow weights by the faster product.
      runs_eagerly: Steps run in Python.
      accumulation_steps: Steps whose gradients are one update.
      on_nonfinite: What happens to a step whose gradients or loss are not finite: "stop", "skip" or
        "rollback"; None: nothing is checked.
      rules: What several replicas do.
    """

    compiles_step: bool = False
    compiles_replica: bool = False
    compiles_loop: bool = False
    update: Update = Update.KERAS
    fuses_lstm: bool = False
    narrows_products: bool = False
    runs_eagerly: bool = False
    accumulation_steps: int = 1
    on_nonfinite: str | None = None
    rules: ReplicaRules = ReplicaRules()


def find_mode(state: TrainState, strategy: tf.distribute.Strategy, config: TrainConfig) -> Mode:
    """Returns the mode that a config asks for.

    Args:
      state: Its model says whether XLA can compile it.
      strategy: Of the replicas.
      config: Read: `jit_compile`, `jit_scope`, `numerics`, `run_eagerly`, `compile_update`,
        `narrow_products`, `gradient_accumulation_steps`, `on_nonfinite`, and the group "replicas".

    Raises:
      ConfigError: If several replicas cannot do what `jit_compile` or `numerics` asks for, nothing
        here can do what `compile_update` or `narrow_products` does, or the config contradicts what
        the model was compiled with.
    """
    is_compiled = resolve_jit_compile(state, strategy, config)
    config = as_compiled(config, state.model)  # in a loop of a person's own, too
    is_fast = config.numerics == "fast"
    has_replicas = strategy.num_replicas_in_sync > 1
    compiles_step = is_compiled and config.jit_scope != "update" and not has_replicas
    if is_compiled and config.jit_scope == "update":
        update = Update.XLA
    else:  # XLA fuses the update of a step that it compiles.
        update = Update.FUSED if is_fast and not compiles_step else Update.KERAS
    if config.compile_update:
        _check_update(state, is_compiled=is_compiled)
        update = Update.SAME_BITS
    can_narrow = compiles_step and not devices.has_gpu()
    if config.narrow_products and not can_narrow:
        raise ConfigError(
            "narrow_products=true, but XLA compiles no steps for a CPU here: it needs one CPU "
            "device, and layers that XLA can compile. Leave it out."
        )
    return Mode(
        compiles_step=compiles_step,
        compiles_replica=is_compiled and has_replicas,
        compiles_loop=compiles_step and config.jit_scope == "loop",
        update=update,
        # On a GPU, Keras calls cuDNN; in XLA, what is fused here is slower than Keras's loop.
        fuses_lstm=is_fast and not (compiles_step or config.run_eagerly or devices.has_gpu()),
        narrows_products=can_narrow and (is_fast or config.narrow_products),
        runs_eagerly=config.run_eagerly,
        accumulation_steps=config.gradient_accumulation_steps,
        on_nonfinite=None if config.on_nonfinite == "off" else config.on_nonfinite,
        rules=find_rules(config, strategy.num_replicas_in_sync),
    )


def _check_update(state: TrainState, *, is_compiled: bool) -> None:
    """Raises ConfigError where no update is compiled with the bits of Keras's operations."""
    obstacle = ""
    if state.has_scope:
        obstacle = "a strategy's scope"
    elif devices.has_gpu():
        obstacle = "a GPU"
    elif is_compiled:
        obstacle = "a step that XLA compiles"
    elif state.optimizers and not any(map(is_eligible, state.optimizers.values())):
        obstacle = ", ".join(type(one).__name__ for one in state.optimizers.values())
    if obstacle:
        raise ConfigError(
            f"compile_update=true with {obstacle}: it needs SGD, Adam (without amsgrad), AdamW, "
            "Nadam or Lion on one CPU device without a strategy. Leave it out."
        )


def resolve_jit_compile(
    state: TrainState, strategy: tf.distribute.Strategy, config: TrainConfig
) -> bool:
    """Returns whether XLA compiles; raises ConfigError where it cannot."""
    check_state(state)
    check_strategy_kind(strategy)
    check_config(config)
    if strategy.num_replicas_in_sync > 1:
        check_one_replica(config, f"{strategy.num_replicas_in_sync} replicas")
    if config.jit_compile is None:
        return bool(state.model.jit_compile)  # Keras's rule, for the bits of fit
    if config.jit_compile and not model_supports_jit(state.model):
        warnings.warn(
            "jit_compile=true, but XLA cannot compile a layer of this model (its supports_jit is "
            "False): the step is not compiled, as in fit.",
            stacklevel=2,
        )
        return False
    return config.jit_compile
