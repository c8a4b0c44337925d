"""From a command line to a config, before TensorFlow is imported."""

from __future__ import annotations

import dataclasses
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from gradloop.engine.options import ConfigError
from gradloop.engine.tuning.choice import apply_choice
from gradloop.files import expanded, json_text
from gradloop.models import registry
from gradloop.usage import did_you_mean

from .catalog import DATASETS
from .config import (
    FAST_DEV_RUN_STEPS,
    JOB_MODES,
    MODES_OF,
    MODES_OF_A_CHECKPOINT,
    JobConfig,
    choice_key,
)
from .config_files import overlaid, read_config_file, read_saved_settings, read_settings_beside
from .flags import parse_flags
from .own_code import is_own
from .variables import read_variables

PROG = "gradloop" if Path(sys.argv[0]).stem == "gradloop" else "train.py"
DESCRIPTION = "Trains a Keras model and gives the numbers of keras.Model.fit."


class Settings(NamedTuple):
    """What a command line asks for.

    Attributes:
      config: All settings.
      choice: File of the `--tune` choice that changed the config; None if there is none.
      chosen: The settings that a person chose; a sweep makes those of its runs of them.
    """

    config: JobConfig
    choice: Path | None
    chosen: Mapping[str, Any] = MappingProxyType({})


def read_config(argv: Sequence[str]) -> Settings:
    """Merges defaults < recipe < the choice of `--tune` < what a person chose.

    Of that, flags win over `GRADLOOP_*` variables, which win over config files, which win over the
    config.json of a resumed run, or of the run that a checkpoint to evaluate lies in. Of several
    files, the last wins. `--print_config` prints the result and exits.

    Args:
      argv: The command line without the program's name.

    Raises:
      ConfigError: If a file or a variable cannot be read or names no setting, a flag does nothing
        in the mode, or what was chosen is not legal.
    """
    chosen, places = _choose(parse_flags(argv, prog=PROG, description=DESCRIPTION))
    prints = chosen.pop("print_config", False)
    try:
        settings = _with_recipe(chosen)
    except ConfigError as error:
        raise ConfigError(f"{error}{_say_where(str(error), places)}") from error
    if settings.config.mode in JOB_MODES:
        _check_data(settings.config)
    if prints:
        print(json_text(settings.config, indent=2))
        sys.exit(0)
    return settings._replace(chosen=chosen)


def check_settings(chosen: Mapping[str, Any]) -> None:
    """Raises ConfigError if no training can have the settings that a person chose."""
    _check_data(_with_recipe({**chosen, "mode": "train"}).config)


def may_change(config: JobConfig) -> bool:
    """Returns whether a later run with this config may be of other code or data: a person's own."""
    named = (config.model, config.train_step, config.loss, config.optimizer, config.schedule)
    values = [*named, *(config.metrics or ())]
    return config.dataset not in DATASETS or any(is_own(value) for value in values if value)


def _with_recipe(chosen: Mapping[str, Any]) -> Settings:
    config = make_config(_recipe_of(chosen.get("model", JobConfig.model)), chosen)
    if config.mode != "train":
        return Settings(config, None)
    key, may_differ = choice_key(config), may_change(config)
    return Settings(*apply_choice(config, key, chosen, may_differ=may_differ))


def _say_where(message: str, places: Mapping[str, str]) -> str:
    """Returns where the settings that a message names come from, for those that are no flags."""
    named = [name for name in places if re.search(rf"\b{name}\b", message)]
    found = [f"{name} comes from {places[name]}" for name in named]
    return f" ({'; '.join(found)}.)" if found else ""


def _check_data(config: JobConfig) -> None:
    """Raises ConfigError if data or a folder are not there: a typo must not download."""
    name = config.dataset
    if name not in DATASETS and not is_own(name) and not expanded(name).exists():
        raise ConfigError(
            f"dataset={name!r} does not exist: name one of {', '.join(DATASETS)}; or a file or "
            f"folder; or pkg.module:load of your own.{did_you_mean(name, DATASETS)}"
        )
    if config.mode == "replay" and not Path(config.run_dir or "", "config.json").exists():
        raise ConfigError(f"run_dir={config.run_dir!r} holds no run: name the folder of one.")
    if config.data_dir is not None and not Path(config.data_dir).is_dir():
        raise ConfigError(
            f"data_dir={config.data_dir!r} is no folder: name one that exists, make it first to "
            "have the data downloaded into it, or leave it out for the user's cache."
        )


def _recipe_of(model: Any) -> Mapping[str, Any]:
    if isinstance(model, str) and is_own(model):
        return {}
    try:
        registry.check_name(model)
    except ValueError as error:
        raise ConfigError(f"{error} Or pkg.module:build of your own.") from error
    return registry.MODELS[model].defaults


def _choose(flags: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Returns the settings that a person chose, and where those that are no flags come from."""
    layers = {f"config file {str(path)!r}": read_config_file(path)
              for path in flags.pop("config", ())}  # fmt: skip
    layers |= read_variables(os.environ)
    chosen: dict[str, Any] = {}
    for layer in (*layers.values(), flags):
        _name_step(layer)
        chosen = overlaid(chosen, layer)
    _check_modes(flags, chosen.get("mode", JobConfig.mode))
    if chosen.get("mode") == "replay" and "run_dir" in chosen:
        chosen.setdefault("resume", True)
    if chosen.get("resume") in (True, "auto") and isinstance(chosen.get("run_dir"), str):
        saved = read_saved_settings(chosen["run_dir"])
        if chosen.get("mode") == "evaluate":
            saved.pop("validation_steps", None)  # It limits the validations of the training.
        layers = {f"the run in {chosen['run_dir']}": saved} | layers
        chosen = overlaid(saved, chosen)
    elif chosen.get("mode") in MODES_OF_A_CHECKPOINT and isinstance(chosen.get("checkpoint"), str):
        saved = read_settings_beside(chosen)
        layers = {f"the run of {chosen['checkpoint']}": saved} | layers
        chosen = overlaid(saved, chosen)
    places = {name: place for place, layer in layers.items() for name in layer}
    return chosen, {name: place for name, place in places.items() if name not in flags}


def _name_step(chosen: dict[str, Any]) -> None:
    """A `step` that is no number names a step of a person's own: `train_step`."""
    if isinstance(chosen.get("step"), str):
        if chosen.get("train_step") is not None:
            raise ConfigError(
                f"step={chosen['step']!r} and train_step={chosen['train_step']!r} both name "
                "the step: keep one."
            )
        chosen["train_step"] = chosen.pop("step")


def _check_modes(flags: Mapping[str, Any], mode: str) -> None:
    """Raises ConfigError if a flag was given that does nothing in this mode."""
    for field in dataclasses.fields(JobConfig):
        if field.name not in flags or field.name in ("mode", "run_dir"):
            continue
        declared = field.metadata.get("modes")
        modes: tuple[str, ...] = declared or MODES_OF.get(field.name, JOB_MODES)
        wanted = {mode, "train"} if mode == "sweep" else {mode}  # the runs of a sweep train
        if not wanted & set(modes):
            is_of_runs = declared is None and mode not in JOB_MODES
            words = f"is for mode {' or '.join(map(repr, modes))}"
            words = "is of a run" if is_of_runs else words
            raise ConfigError(f"{field.name} {words}, and this is mode={mode!r}: leave it out.")


def make_config(*layers: Mapping[str, Any]) -> JobConfig:
    """Merges layers of values over the defaults: recipe, file, flags. Later layers win.

    Raises:
      ConfigError: If the result is not legal.
    """
    values: dict[str, Any] = {}
    for layer in layers:
        values.update(layer)
    if values.get("fast_dev_run"):
        values |= {
            "epochs": 1, "initial_epoch": 0, "steps_per_epoch": FAST_DEV_RUN_STEPS,
            "validation_steps": FAST_DEV_RUN_STEPS,
        }  # fmt: skip
    return JobConfig(**values)
