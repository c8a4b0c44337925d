"""A person's own hooks: `--hook pkg.module:name`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras

from gradloop import engine

from ..config import JobConfig
from ..own_code import arguments_for, call_with, load_object, takes
from ..settings.work import arguments_of

_OFFERED = {"run_dir": None}


def check_hooks(config: JobConfig) -> None:
    """Imports what the config's `hook` names, and calls none of it.

    Raises:
      ConfigError: If one is not found, or takes no argument that `set` has for it.
    """
    for make, chosen in _makers(config):
        arguments_for(make, _OFFERED, chosen, "hook")


def make_own_hooks(config: JobConfig, run_dir: Path) -> list[engine.Hook]:
    """Returns the hooks that the config's `hook` names; Keras's callbacks are wrapped.

    Args:
      config: All settings.
      run_dir: The folder of the run, passed to those that take an argument of that name.
    """
    hooks: list[engine.Hook] = []
    for (make, chosen), name in zip(_makers(config), config.hook or (), strict=True):
        made = call_with(make, {"run_dir": str(run_dir)}, chosen, "hook")
        hooks += [_as_hook(one, name) for one in (made if isinstance(made, list) else [made])]
    return hooks


def _as_hook(made: Any, name: str) -> engine.Hook:
    if isinstance(made, keras.callbacks.Callback):
        return engine.KerasCallbacks([made])
    if not isinstance(made, engine.Hook):
        raise engine.ConfigError(
            f"hook={name!r} gave a {type(made).__name__}, and must be or return an engine.Hook, a "
            "keras.callbacks.Callback, or a list of these."
        )
    return made


def _makers(config: JobConfig) -> list[tuple[Callable[..., Any], Mapping[str, Any]]]:
    """Returns what makes the hooks, each with its arguments: those that it, or none, takes."""
    makers = [load_object(name, "hook") for name in config.hook or ()]
    chosen = arguments_of(config, "hook")
    nobodys = {name for name in chosen if not any(takes(make, name) for make in makers)}
    return [
        (make, {n: v for n, v in chosen.items() if n in nobodys or takes(make, n)})
        for make in makers
    ]
