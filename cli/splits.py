"""The examples that a config names: which are trained on, validated on, and tested on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np

from gradloop import data, engine
from gradloop.data import Splits
from gradloop.data.own import FileOptions, from_value

from . import own_code
from .config import MODES_OF_A_CHECKPOINT, JobConfig
from .config_files import read_saved_settings
from .settings.work import arguments_of

_DOWNLOADED = tuple(name for name, module in data.DATASETS.items() if hasattr(module, "RAW"))


def load_splits(config: JobConfig) -> Splits:
    """Returns the parts of the config's dataset.

    Raises:
      ConfigError: If it cannot be read, or the config asks for parts that it does not have.
    """
    if config.validation_split is not None and config.overfit_batches is not None:
        raise engine.ConfigError(
            f"validation_split={config.validation_split:g} beside overfit_batches="
            f"{config.overfit_batches}, which validates on what it trains on: leave one of "
            "them out."
        )
    read = _reader(config)
    try:
        splits = read()
        if config.validation_split is not None:
            if splits.validation is not None and _is_new(config, "validation_split"):
                raise ValueError(
                    f"validation_split={config.validation_split:g}, and {config.dataset} has "
                    "validation examples of its own: leave it out."
                )
            splits = splits.with_validation(config.validation_split, config.seed or 0)
    except ValueError as error:
        raise engine.ConfigError(str(error)) from error
    if config.rescale is True and _is_new(config, "rescale"):
        _check_bytes(splits, config)
    if config.input == "resident" and splits.train.decode is not None:
        raise engine.ConfigError(
            f"input='resident' is for examples in memory, and those of {config.dataset} are read "
            "while the model trains: use input='auto', or in_memory=true."
        )
    return splits if config.overfit_batches is None else _few_batches(splits, config)


def _check_bytes(splits: Splits, config: JobConfig) -> None:
    """Raises ConfigError if no input is of bytes, which `rescale` divides."""
    example, _ = splits.train.take([0])
    dtypes = sorted({str(np.asarray(array).dtype) for array in keras.tree.flatten(example)})
    if "uint8" not in dtypes:
        raise engine.ConfigError(
            f"rescale=true divides bytes (uint8) by 255, and dataset={config.dataset!r} has "
            f"{', '.join(dtypes)} alone, which stays as it is: leave it out, and scale it yourself."
        )


def _is_new(config: JobConfig, name: str) -> bool:
    """Returns whether a training begins with a setting: it is not that of a run that there is.

    One of an earlier version may have a `validation_split` beside validation examples of the
    dataset's own, and its steps are of the examples that were left; or a `rescale` of no bytes.
    """
    if config.mode in MODES_OF_A_CHECKPOINT:
        return False
    saved = read_saved_settings(config.run_dir or "") if config.resume else {}
    return saved.get(name) is None


def _reader(config: JobConfig) -> Callable[[], Splits]:
    """Returns what reads the files, or what a person's function has returned.

    An exception of that function keeps its traceback.
    """
    options = _file_options(config)
    if not own_code.is_own(config.dataset) or Path(config.dataset).exists():
        _check_data_dir(config, is_taken=config.dataset in _DOWNLOADED)
        return lambda: data.load(config.dataset, config.data_dir, options=options)
    function = own_code.load_object(config.dataset, "dataset")
    _check_data_dir(config, is_taken=bool(own_code.takes(function, "data_dir")))
    chosen = arguments_of(config, "dataset")
    value = own_code.call_with(function, {"data_dir": config.data_dir}, chosen, "dataset")
    return lambda: from_value(value, config.dataset, options)


def _check_data_dir(config: JobConfig, *, is_taken: bool) -> None:
    if config.data_dir is not None and not is_taken:
        raise engine.ConfigError(
            f"data_dir={config.data_dir!r} with dataset={config.dataset!r}, which does not take "
            f"it: it is for {', '.join(_DOWNLOADED)}, and functions with an argument data_dir. "
            "Leave it out."
        )


def _file_options(config: JobConfig) -> FileOptions:
    size, features = config.image_size, config.features
    sizes = [size, size] if isinstance(size, int) else size
    if sizes is not None and len(sizes) != 2:
        raise engine.ConfigError(
            f"image_size={size} must be one number, or two: height and width, such as 64,48."
        )
    return FileOptions(
        target=config.target,
        target_type=config.target_type,
        features=None if features is None else tuple(features),
        image_size=None if sizes is None else (sizes[0], sizes[1]),
        color_mode=config.color_mode,
        in_memory=config.in_memory,
    )


def _few_batches(splits: Splits, config: JobConfig) -> Splits:
    num_examples = (config.overfit_batches or 0) * config.global_batch_size
    if num_examples > splits.train.num_examples:
        most = splits.train.num_examples // config.global_batch_size
        raise engine.ConfigError(
            f"overfit_batches={config.overfit_batches}, but the training set has {most} full "
            f"batches of {config.global_batch_size}: pass --overfit_batches up to {most}, or a "
            "smaller --global_batch_size."
        )
    # Spread over all: those of a folder lie class by class.
    chosen = np.arange(num_examples) * splits.train.num_examples // num_examples
    few = splits.train.part(chosen)
    return dataclasses.replace(splits, train=few, validation=few)


def describe_splits(splits: Splits) -> str:
    """Returns how many examples the parts have, for the banner."""
    parts = {
        "training": splits.train,
        "validation": splits.validation,
        "test": splits.test,
    }
    found = [f"{part.num_examples:,} {name}" for name, part in parts.items() if part is not None]
    listed = found[0] if len(found) == 1 else f"{', '.join(found[:-1])} and {found[-1]}"
    return f"{listed} examples"
