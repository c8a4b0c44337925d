"""Which values of the fields of a TrainConfig go together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .options import ConfigError, show


def check_together(config: Any) -> None:
    """Raises ConfigError if values of a TrainConfig, each legal alone, do not go together."""
    _check_epochs(config)
    _check_replicas(config)
    _check_xla(config)
    _check_reduction(config)


def _check_epochs(config: Any) -> None:
    if config.initial_epoch > config.epochs:
        raise ConfigError(
            f"initial_epoch={config.initial_epoch} is beyond epochs={config.epochs}: "
            "epochs is the index of the last one, plus one."
        )
    epochs = config.validation_freq
    if isinstance(epochs, list) and not all(type(e) is int and e >= 1 for e in epochs or [0]):
        raise ConfigError(
            f"validation_freq={epochs} must hold numbers of epochs, counted from 1: [1, 5, 10]."
        )


def _check_replicas(config: Any) -> None:
    if (config.num_replicas or 1) > 1 and config.strategy not in ("mirrored", "multi_worker", None):
        raise ConfigError(
            f"num_replicas={config.num_replicas} with strategy={config.strategy!r}: "
            "use strategy='mirrored' or 'multi_worker' for several replicas."
        )
    num_replicas = config.num_replicas or 1
    if config.strategy == "mirrored" and (config.global_batch_size or num_replicas) < num_replicas:
        raise ConfigError(
            f"global_batch_size={config.global_batch_size} is less than "
            f"num_replicas={config.num_replicas}: give each replica one example or more."
        )


def _check_reduction(config: Any) -> None:
    is_set = config.all_reduce != "auto", config.all_reduce_pack_mib is not None
    asked = f"all_reduce={config.all_reduce!r}"
    if config.strategy in ("default", "one_device") and any(is_set):
        name = asked if is_set[0] else f"all_reduce_pack_mib={config.all_reduce_pack_mib}"
        raise ConfigError(
            f"{name} with strategy={config.strategy!r}: there is one replica, which exchanges "
            "nothing. Leave it out, or use strategy='mirrored'."
        )
    if config.all_reduce in ("hierarchical", "one_device"):
        if is_set[1]:
            raise ConfigError(
                f"all_reduce_pack_mib={config.all_reduce_pack_mib} with {asked}, which has no "
                "packs: leave one of them out."
            )
        if config.strategy == "multi_worker":
            raise ConfigError(
                f"{asked} with strategy='multi_worker', whose workers exchange by collectives: "
                "use 'auto', 'ring' or 'nccl'."
            )


def _check_xla(config: Any) -> None:
    if config.run_eagerly and config.jit_compile:
        raise ConfigError(
            "run_eagerly=true with jit_compile=true: XLA compiles graphs, and there is none. Use "
            "one of them."
        )
    if config.jit_scope != "step" and not config.jit_compile:
        raise ConfigError(
            f"jit_scope={config.jit_scope!r} with jit_compile={show(config.jit_compile, 'auto')}: "
            "it says what XLA compiles. Set jit_compile=True, or leave jit_scope out."
        )
    for field, (purpose, allowed) in _NEEDS.items():
        _check_needs(config, field, purpose, allowed)
    if config.strategy == "mirrored" and config.num_replicas != 1:
        check_one_replica(config, "strategy='mirrored'")


# What a field is for, and the values of others beside which it is.
_NEEDS: dict[str, tuple[str, dict[str, tuple[Any, ...]]]] = {
    "compile_update": (
        "it compiles the update of plain steps on one device. Leave one of them out.",
        {
            "numerics": ("exact",),
            "jit_compile": (None, False),
            "run_eagerly": (False,),
            "gradient_accumulation_steps": (1,),
            "on_nonfinite": (None, "off"),
            "strategy": (None, "default"),
        },
    ),
    "narrow_products": (
        "it is for float32 steps that XLA compiles. Set jit_compile=true, with jit_scope step or "
        "loop and precision float32, or leave it out.",
        {
            "jit_compile": (True,),
            "jit_scope": ("step", "loop"),
            "precision": (None, "float32"),
        },
    ),
}


def _check_needs(
    config: Any, field: str, purpose: str, allowed: Mapping[str, tuple[Any, ...]]
) -> None:
    for name, values in allowed.items():
        value = getattr(config, name)
        if getattr(config, field) and value not in values:
            shown = show(value, "auto" if name == "jit_compile" else "none")
            raise ConfigError(f"{field}=true with {name}={shown}: {purpose}")


def check_one_replica(config: Any, found: str) -> None:
    """Raises ConfigError if the config asks for what only one replica can do.

    Args:
      config: Read: `jit_scope`, `numerics`.
      found: The replicas that there are, in words.
    """
    if config.jit_scope != "step":
        raise ConfigError(
            f"jit_scope={config.jit_scope!r} with {found}: XLA cannot compile the exchange between "
            "replicas. Use jit_scope='step', which compiles all of a step but the update, or one "
            "replica."
        )
    if config.numerics == "fast":
        raise ConfigError(
            f"numerics='fast' with {found}: its updates are for one replica. Use "
            "numerics='exact', or one replica."
        )
