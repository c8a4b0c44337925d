"""Hooks that note what they see, and hooks that stop a run."""

from gradloop.engine.hooks import Hook


class Every(Hook):
    """Notes where executions end."""

    def __init__(self, every_steps=None):
        self.every_steps = every_steps
        self.ends = []

    def on_execution_end(self, info):
        self.ends.append(info.progress.num_steps_completed)


class Recorder(Hook):
    """Notes each moment in a list that hooks may share."""

    def __init__(self, moments, name=""):
        for moment in (
            "on_train_begin", "on_epoch_begin", "on_execution_end", "on_epoch_end",
            "on_save_point", "on_eval_begin", "on_eval_execution_end", "on_eval_end",
            "on_validation_end",
            "on_predict_begin", "on_predict_batch_begin", "on_predict_batch_end", "on_predict_end",
            "on_train_end",
        ):  # fmt: skip
            setattr(self, moment, lambda info, moment=moment: moments.append(name + moment[3:]))


class StopAfter(Hook):
    """Ends the run at once after a number of steps."""

    def __init__(self, num_steps):
        self.every_steps = num_steps

    def on_execution_end(self, info):
        if info.progress.num_steps_completed == self.every_steps:
            info.request_stop("later", immediately=True)
