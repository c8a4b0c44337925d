"""The examples that a config names: which are trained on, validated on, and tested on."""

from __future__ import annotations

import dataclasses

import numpy as np

from gradloop import data, engine
from gradloop.data import Splits

from .config import JobConfig


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
    try:
        splits = data.load(config.dataset, config.data_dir)
        if config.validation_split is not None:
            splits = splits.with_validation(config.validation_split, config.seed or 0)
    except ValueError as error:
        raise engine.ConfigError(str(error)) from error
    return splits if config.overfit_batches is None else _first_batches(splits, config)


def _first_batches(splits: Splits, config: JobConfig) -> Splits:
    num_examples = (config.overfit_batches or 0) * config.global_batch_size
    if num_examples > splits.train.num_examples:
        most = splits.train.num_examples // config.global_batch_size
        raise engine.ConfigError(
            f"overfit_batches={config.overfit_batches}, but the training set has {most} full "
            f"batches of {config.global_batch_size}: pass --overfit_batches up to {most}, or a "
            "smaller --global_batch_size."
        )
    first = splits.train.part(np.arange(num_examples))
    return dataclasses.replace(splits, train=first, validation=first)


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
