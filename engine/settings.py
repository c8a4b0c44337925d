"""What the bits of a run depend on: saved with a checkpoint, compared when the run goes on."""

from __future__ import annotations

import collections
import dataclasses
import json
import warnings
from collections.abc import Mapping
from typing import Any

import keras

from .config import TrainConfig
from .options import ConfigError, show
from .replicas.rules import ReplicaRules, find_rules
from .runtime import describe_runtime
from .state import TrainState
from .workers.cluster import VARIABLE

# A step of an epoch is other examples with another one of these.
_OF_POSITION = ("global_batch_size", "steps_per_epoch", "gradient_accumulation_steps", "seed")
# Told by the process, the strategy or `find_rules`, or without a part in the bits.
_NOT_OF_CONFIG = (
    "initial_epoch", "strategy", "num_replicas", "compile_update", "tf32", "intra_op_threads",
    "inter_op_threads", "uneven", "clip", "replica_rng", "sync_statistics", "parity",
)  # fmt: skip
_OF_CONFIG = tuple(
    field.name
    for field in dataclasses.fields(TrainConfig)
    if field.metadata["on_resume"] != "applied" and field.name not in _NOT_OF_CONFIG
)
_OF_RUNTIME = (
    "python", "tensorflow", "keras", "numpy", "processor", "num_cores", "logical_devices",
    "intra_op_threads", "inter_op_threads", "op_determinism", "tf32", "variables",
)  # fmt: skip
_MAX_NAMED = 4


def describe_settings(config: TrainConfig, state: TrainState) -> dict[str, Any]:
    """Returns what the bits of a run depend on beside its data and its code, as a flat tree."""
    runtime = describe_runtime()
    # First, as most else follows from it, and the first ones are named.
    settings = {"num_replicas": state.strategy.num_replicas_in_sync}
    settings |= {name: getattr(config, name) for name in _OF_CONFIG}
    settings |= {name: runtime[name] for name in _OF_RUNTIME}
    settings["variables"] = runtime["variables"] | {VARIABLE: None}
    if not state.peers.is_alone:  # as they are on one machine, whose bits are the same
        kinds = collections.Counter(name.split(":")[-2] for name in runtime["logical_devices"])
        names = [f"/device:{kind}:{i}" for kind, n in kinds.items() for i in range(n)]
        settings["logical_devices"] = names
    settings |= find_rules(config, state.strategy.num_replicas_in_sync)._asdict()
    settings |= {
        "steps_per_epoch": state.progress.steps_per_epoch,
        "precision": state.model.dtype_policy.name,
        "loss": _describe_loss(state.model),
    }
    for name, optimizer in state.optimizers.items():
        settings[name] = _describe_optimizer(optimizer)
    return settings


def check_settings(
    saved: Mapping[str, Any] | None, now: Mapping[str, Any], *, is_within_epoch: bool
) -> None:
    """Compares the settings of a run that goes on with those that it was saved with.

    Args:
      saved: What `describe_settings` returned then; None: unknown.
      now: What it returns now.
      is_within_epoch: Whether the run goes on within an epoch.

    Raises:
      ConfigError: If it goes on within an epoch whose steps are of other examples now.
    """
    saved = saved or {}
    changed = {n: (saved[n], now[n]) for n in now if n in saved and saved[n] != now[n]}
    if "num_replicas" in changed:  # from which the rules follow
        changed = {n: pair for n, pair in changed.items() if n not in ReplicaRules._fields}
    moved = [name for name in _OF_POSITION if name in changed]
    if moved and is_within_epoch:
        raise ConfigError(
            f"The run was saved within an epoch with {_in_words(changed, moved)}: its steps are of "
            "other examples. Set what it was, or resume from a checkpoint of the end of an epoch."
        )
    if changed:
        names = list(changed)
        more = f", and {len(names) - _MAX_NAMED} more" if len(names) > _MAX_NAMED else ""
        warnings.warn(
            f"The run was saved with {_in_words(changed, names[:_MAX_NAMED])}{more}: from here on, "
            "its numbers are not those of a run that was never interrupted.",
            stacklevel=4,
        )


def _in_words(changed: Mapping[str, tuple[Any, Any]], names: list[str]) -> str:
    words = [f"{n}={show(changed[n][0])} (now {show(changed[n][1])})" for n in names]
    return ", ".join(words)


def _describe_loss(model: keras.Model) -> str:
    if not model.compiled:
        return ""
    return _as_text(model._compile_config.config.get("loss"))


def _describe_optimizer(optimizer: keras.optimizers.Optimizer) -> str:
    config = dict(optimizer.get_config())
    # Keras numbers the names; the rate and the loss scale are variables, which are saved.
    inner = config.get("inner_optimizer")
    if isinstance(inner, dict):
        config["inner_optimizer"] = {k: v for k, v in inner["config"].items() if k not in _NO_BITS}
    return _as_text({name: value for name, value in config.items() if name not in _NO_BITS})


_NO_BITS = ("name", "learning_rate", "initial_scale", "dynamic_growth_steps")


def _as_text(thing: Any) -> str:
    def serialize(part: Any) -> Any:
        name = getattr(part, "__name__", type(part).__name__)
        config = getattr(part, "get_config", None)
        return {name: config()} if config is not None else name

    return json.dumps(thing, default=serialize, sort_keys=True)
