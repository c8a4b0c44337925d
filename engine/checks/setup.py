"""check_setup: what of a setup is unsupported or slow, before the first step."""

from __future__ import annotations

import keras
import tensorflow as tf

from .. import devices
from ..arguments import check_config, check_model
from ..building import as_compiled
from ..config import TrainConfig
from ..workers.cluster import cluster_of
from .findings import Finding, Setup
from .rows import ROWS


def check_setup(
    config: TrainConfig,
    model: keras.Model | None = None,
    *,
    optimizer: keras.optimizers.Optimizer | None = None,
    strategy: tf.distribute.Strategy | None = None,
) -> list[Finding]:
    """Looks at strategy, precision, XLA, batch size, model, optimizer and devices together.

    Context: cross-replica, on the host, after `configure_runtime`: it lists the devices, which
    initializes TensorFlow. It trains nothing, and need not be called: `fit` refuses what is
    unsupported by itself.

    Args:
      config: Of the training.
      model: To be trained; None: nothing is said of models.
      optimizer: Default: the one that the model was compiled with, if it was.
      strategy: To train with. Default: the one in whose scope this is called.

    Returns:
      One finding for each combination that is asked for and that matters.

    Raises:
      ConfigError: If the config is no `TrainConfig`.
      ValueError: If the model is no Keras model.

    Example:
      >>> config = engine.TrainConfig(global_batch_size=32, run_eagerly=True)
      >>> for finding in engine.check_setup(config):
      ...     print(f"{finding.verdict}: {finding.what}")
      ok: strategy=default
      ok: global_batch_size=32 on 1 replica
      slow: run_eagerly=true
    """
    check_config(config)
    if model is not None:
        check_model(model)
        config = as_compiled(config, model)
    strategy = strategy or tf.distribute.get_strategy()
    if optimizer is None and model is not None and model.compiled:
        optimizer = model.optimizer
    setup = Setup(
        config, strategy, model, getattr(optimizer, "inner_optimizer", optimizer),
        strategy.num_replicas_in_sync, cluster_of(strategy).num_workers,
        len(devices.logical("GPU")),
    )  # fmt: skip
    found = [row(setup) for row in ROWS]
    return [finding for finding in found if finding is not None]
