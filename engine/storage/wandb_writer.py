"""WandbWriter: a run in Weights & Biases."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path
from typing import Any

from .extras import require_extra
from .trackers import PROJECT, RunDescription, Tracker, plain

_FAILURES = ("failed", "diverged", "refused", "interrupted")


class WandbWriter(Tracker):
    """Writes into a run of Weights & Biases; see `Tracker`.

    wandb's own variables hold: with `WANDB_MODE=offline` it writes files, which `wandb sync`
    uploads; `WANDB_PROJECT` is the project, "gradloop" without it. The run's output is not
    uploaded: it is in train.log.

    Args:
      directory: wandb makes a folder `wandb` there.
      description: What is shown of the run.

    Raises:
      MissingExtra: If the package `wandb` is not installed.
    """

    def __init__(self, directory: str | os.PathLike[str], description: RunDescription) -> None:
        require_extra("wandb", "wandb")
        super().__init__(Path(directory), description)
        self._run: Any = None

    def _open(self) -> None:
        if self._run is not None:
            return
        import wandb

        about = self.description
        run_id = self.id or secrets.token_hex(4)
        self._run = wandb.init(
            dir=str(self.directory),
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            id=run_id,
            resume="allow",
            name=about.name,
            tags=list(about.tags),
            config=plain(about.config),
            reinit="create_new",
            settings=wandb.Settings(silent=True, console="off", disable_git=True),
        )
        self.id = run_id
        # Not wandb's own step, which never goes back: a run that is resumed does.
        self._run.define_metric("step", hidden=True)
        self._run.define_metric("*", step_metric="step")

    def _log(self, step: int, epoch: int, values: dict[str, float]) -> None:
        self._run.log({"step": step, "epoch": epoch} | values)

    def _end(self, status: str, values: dict[str, Any]) -> None:
        run, self._run = self._run, None
        run.summary.update({"status": status} | values)
        run.finish(exit_code=int(status in _FAILURES))


def is_logged_in() -> bool:
    """Returns whether wandb can write: it has a key, or it was told not to use the network."""
    import wandb

    with contextlib.suppress(AttributeError, TypeError):  # of another version
        is_online = wandb.setup().settings.mode in ("online", "shared")
        return not is_online or bool(wandb.login(prompt=False))
    return True
