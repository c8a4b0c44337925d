"""How optimizers reduce, clip and skip while a step is traced, where Keras does it wrong.

A Keras optimizer clips the gradients of each replica before it sums them: the limit is up to as
many times laxer as there are replicas, and directions mix. Of a `LossScaleOptimizer`, see
`loss_scaling`. All else of an update stays Keras's.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import keras

from ..execution_mode import Mode
from ..fused_updates import updates_by
from ..patching import patched
from ..state import TrainState


@contextlib.contextmanager
def updates_of(state: TrainState, mode: Mode) -> Iterator[None]:
    """Lets the optimizers of a state update as a mode says, while a step is traced.

    Context: cross-replica, around `strategy.run`.

    Args:
      state: Owner of the optimizers.
      mode: Read: `update`, and the rules of several replicas.

    Raises:
      ValueError: If the step updates with an optimizer that scales a loss or clips under several
        replicas, and the state does not have it.
    """
    clips_globally = mode.rules.clips_globally
    has_replicas = state.strategy.num_replicas_in_sync > 1
    with contextlib.ExitStack() as stack:
        compiled = state.compiled_updates.functions
        stack.enter_context(updates_by(state.optimizers.values(), mode.update, compiled))
        for name, optimizer in state.optimizers.items():
            parts = _parts_of(optimizer)
            if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
                # Clipped first, a number that is not finite may look as if it were.
                reduces = has_replicas and (clips_globally or not _clips(optimizer))
                scaling = state.step_variables.loss_scalings[name]
                apply = functools.partial(scaling.apply, reduces=reduces)
                stack.enter_context(patched(optimizer, _tf_apply=apply))
                for part in parts if reduces else ():
                    stack.enter_context(patched(part, _all_reduce_sum_gradients=_as_they_are))
            elif has_replicas and clips_globally:
                for part in filter(_clips, parts):
                    stack.enter_context(_clipping_last(part))
        yield
    if has_replicas:
        _check_known(state, clips_globally=clips_globally)


def _check_known(state: TrainState, *, clips_globally: bool) -> None:
    known = {id(optimizer) for optimizer in state.optimizers.values()}
    for optimizer in state.notes.applied.values():
        is_scaled = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
        if id(optimizer) not in known and (is_scaled or (clips_globally and _clips(optimizer))):
            what = "scales the loss" if is_scaled else "clips gradients"
            raise ValueError(
                f"The step updates with {optimizer.name}, which {what}, and the state does not "
                "have it: under several replicas, it would look at one replica's gradients alone. "
                "Pass it in TrainState(extras={...}), built."
            )


def _parts_of(optimizer: Any) -> list[Any]:
    """Returns the optimizers that update variables, of one that may hold others."""
    inner = getattr(optimizer, "inner_optimizer", optimizer)  # of LossScaleOptimizer
    return list(getattr(inner, "optimizers", [inner]))  # of MultiOptimizer


def _clips(optimizer: Any) -> bool:
    parts = _parts_of(optimizer)
    return any(one.clipnorm or one.global_clipnorm or one.clipvalue for one in parts)


def _clipping_last(optimizer: Any) -> contextlib.AbstractContextManager[None]:
    clip, reduce = optimizer._clip_gradients, optimizer._all_reduce_sum_gradients

    def reduce_and_clip(pairs: Any) -> Any:
        gradients, variables = zip(*reduce(pairs), strict=True)
        return list(zip(clip(list(gradients)), variables, strict=True))

    return patched(
        optimizer, _clip_gradients=_as_they_are, _all_reduce_sum_gradients=reduce_and_clip
    )


def _as_they_are(values: Any) -> Any:
    return values
