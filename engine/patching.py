"""How the engine gives Keras other functions while a step is traced.

What calls them stays Keras's: a model's own `train_step` gets them too.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def patched(owner: Any, **attributes: Any) -> Iterator[None]:
    """Gives a module, a class or an object other attributes while the block runs.

    Args:
      owner: Gets back what it had.
      **attributes: By name.

    Example:
      >>> from gradloop.engine.patching import patched
      >>> optimizer = keras.optimizers.SGD()
      >>> with patched(optimizer, scale_loss=lambda loss: 3 * loss):
      ...     optimizer.scale_loss(2)
      6
    """
    before = {name: vars(owner)[name] for name in attributes if name in vars(owner)}
    _put(owner, attributes)
    try:
        yield
    finally:
        for name in attributes.keys() - before.keys():
            type.__delattr__(owner, name) if isinstance(owner, type) else vars(owner).pop(name)
        _put(owner, before)


def _put(owner: Any, attributes: dict[str, Any]) -> None:
    if isinstance(owner, type):
        for name, value in attributes.items():
            setattr(owner, name, value)
    else:
        vars(owner).update(attributes)  # Not by setattr: Keras tracks attributes, to save them.
