"""Drives a hook as the loop does, without a loop."""

import types

import tensorflow as tf

from gradloop.engine.hooks import HookInfo
from gradloop.engine.state import Progress
from gradloop.engine.step_variables import StepVariables


def make_info(num_epochs=3, steps_per_epoch=10, **more):
    progress = Progress(num_epochs=num_epochs, steps_per_epoch=steps_per_epoch)
    state = types.SimpleNamespace(
        writes=True,
        progress=progress,
        named_variables=list,
        extras={},
        functions={},
        learning_rate=lambda: None,
        create_named=lambda names: None,
        step_variables=StepVariables(tf.distribute.get_strategy(), {}),
    )
    return HookInfo(state, progress, **more)


def drive(hook, info, epochs, *, execution_sizes=(4, 4, 2), first_epoch=0):
    """Calls a hook as the loop does: logs within an epoch lag one execution behind.

    `epochs` has the logs of each epoch's end; the loss within an epoch is the number of steps.
    """
    progress = info.progress
    hook.on_train_begin(info)
    for epoch, epoch_logs in enumerate(epochs, first_epoch):
        progress.epoch, progress.step = epoch, 0
        info.logs, info.logs_step = {}, progress.num_steps_completed
        hook.on_epoch_begin(info)
        pending = None
        for size in execution_sizes:
            progress.step += size
            progress.num_steps_completed += size
            if pending is not None:
                info.logs, info.logs_step = pending
            info.execution_steps = size
            pending = ({"loss": progress.num_steps_completed / 8}, progress.num_steps_completed)
            hook.on_execution_end(info)
        info.execution_steps = 0
        info.logs, info.logs_step = epoch_logs, progress.num_steps_completed
        hook.on_epoch_end(info)
        if info.stop_reason:
            break
    hook.on_train_end(info)
