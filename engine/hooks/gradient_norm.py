"""GradientNorm: how large the gradients are."""

from __future__ import annotations

from .base import Hook, HookInfo


class GradientNorm(Hook):
    """Adds the L2 norm of the gradients to the logs of steps: `gradient_norm`.

    It is that of the gradient of the loss over the global batch, before clipping and without a loss
    scale; over an epoch, the mean. Gradients that a step passes to another optimizer of the state's
    extras are logged as `<extra>/gradient_norm`. Under replicas, it costs one more exchange.

    Args:
      per_layer: Whether to log `gradient_norm/<layer>` too.

    Raises:
      ValueError: When the step is traced, if it does not update through the state.

    Example:
      >>> history = engine.fit(state, train_ds, config, hooks=[engine.GradientNorm()])
      >>> sorted(history.history)
      ['gradient_norm', 'loss']
    """

    def __init__(self, *, per_layer: bool = False) -> None:
        self.per_layer = per_layer

    def on_train_begin(self, info: HookInfo) -> None:
        """Has steps log the norms; one that is traced already is traced again."""
        info.state.watched_gradients = "layers" if self.per_layer else "total"

    def on_train_end(self, info: HookInfo) -> None:
        """Has later runs log none."""
        info.state.watched_gradients = None
