"""Continuation: how a run goes on where it was saved.

What it needs beside its variables and its progress are its parts by name: "history", "hooks",
"data", "validation" (its data), "validated" (the last one's logs), "lasting" (names of values that
are logged as they were last), "logs" (that hooks have not seen yet), "stop" (why a hook ended it),
"settings". A checkpoint asks for them at a save point; a run that is resumed, or rolled back, puts
them back.
"""

from __future__ import annotations

import copy
import itertools
import warnings
from typing import Any

from .agreement import check_nonfinite
from .config import TrainConfig
from .evaluation import Validation
from .hooks.base import Hook
from .hooks.info import StopRequest
from .passes import replay_all
from .session import Session, saves
from .settings import check_settings, describe_settings
from .source import Source
from .step_function import StepFunction


class Continuation:
    """The parts of a training.

    Args:
      session: Of the training.
      source: Its data.
      function: What trains.
      validation: Has data of its own.
      config: All that bits depend on.
      resume: Whether the run goes on.

    Raises:
      ConfigError: If it cannot go on with this config.
    """

    def __init__(
        self,
        session: Session,
        source: Source,
        function: StepFunction,
        validation: Validation,
        config: TrainConfig,
        *,
        resume: bool,
    ) -> None:
        check_nonfinite(config, session.hooks)
        state = session.state
        self._session, self._config = session, config
        self._source, self._validation = source, validation
        self._step_logs = function.step_logs
        self._settings = describe_settings(config, state)
        self._begun: dict[str, Any] = {}  # the history with which the run begins
        self._parts = state.resumption.capture() if resume else {}
        step = state.progress.step_of_next_epoch
        check_settings(self._parts.get("settings"), self._settings, is_within_epoch=step > 0)
        self._resume_data(step)
        state.resumption.is_saved = any(saves(hook) for hook in session.hooks)
        if state.resumption.is_saved:
            self._check_resumable()
        state.resumption.begin(self.capture)
        session.is_training = True
        session.keep_parts = self._keep

    def _resume_data(self, step: int) -> None:
        """Brings all data to where they were, those of validations too."""
        place, places = self._parts.get("data", {}), self._parts.get("validation", {})
        clock = itertools.count()
        for source in (self._source, *self._validation.sources.values()):
            source.count_by(clock)
        may_resume = self._source.may_resume(place)
        replays = [self._source.resume(place, step=step)] if may_resume else []
        replays += [
            source.resume(places[name])
            for name, source in self._validation.sources.items()
            if source.may_resume(places.get(name, {}))
        ]
        replay_all(replays)
        if not may_resume:
            self._source.reset(takes_batch=self._session.state.has_scope)

    def _check_resumable(self) -> None:
        """Warns at the start of a run that is saved, if a resumed one will have other batches."""
        why = self._source.why_not_resumable()
        if why is not None:
            warnings.warn(
                f"This run is saved, but cannot be resumed exactly, and not within an epoch: {why}",
                stacklevel=4,
            )
        for name, source in self._validation.sources.items():
            why = source.why_not_resumable()
            if why is not None:
                warnings.warn(
                    f"This run is saved, but a resumed one may have other batches of its "
                    f"validation data {name!r}: {why}",
                    stacklevel=4,
                )

    def capture(self) -> dict[str, Any]:
        """Returns all parts. Context: on the host, between executions."""
        session, pending = self._session, self._session.pending
        return {
            "history": session.history.state(),
            "hooks": {n: h.state() for n, h in self._hooks().items() if h.overrides("state")},
            "logs": None if pending is None else [session.fetch(pending[0]), pending[1]],
            "lasting": sorted(self._step_logs.lasting),
            "num_cut": session.num_cut,
            "owes_validation": session.owes_validation,
            "stop": self._stop(),
            "excluded": sorted(session.excluded),
            "data": self._source.state(),
            "validation": self._validation.state(),
            "validated": self._validation.last(),
            "settings": self._settings,
        }

    def restore(self) -> None:
        """Puts back all but the data. Context: after `on_train_begin`, where hooks forget."""
        parts, self._parts = self._parts, {}
        session = self._session
        # A checkpoint of no run, to which this one goes back, is from before it began.
        session.history.restore(parts.get("history", copy.deepcopy(self._begun)))
        self._begun = self._begun or session.history.state()
        logs = parts.get("logs")
        session.pending = None if logs is None else (logs[0], logs[1])
        session.step_logs = None if logs is None else logs[0]
        # The end of an epoch may come before the step is traced.
        self._step_logs.lasting |= set(parts.get("lasting", ()))
        session.num_cut = parts.get("num_cut", 0)
        session.owes_validation = parts.get("owes_validation", False)
        self._validation.restore(parts.get("validated"))
        session.excluded |= set(parts.get("excluded", ()))
        self._restore_hooks(dict(parts.get("hooks", {})))
        self._restore_stop(parts.get("stop"))

    def _restore_stop(self, stop: dict[str, Any] | None) -> None:
        # A run that a hook had ended is over, unless the person asks for other epochs.
        session = self._session
        if stop is not None and stop["num_epochs"] == session.state.progress.num_epochs:
            session.info.apply(StopRequest(stop["reason"]))
            session.is_over = stop["is_over"]
            session.skips_steps = not stop["is_over"]

    def roll_back(self) -> None:
        """Goes back to the checkpoint that a hook asks for.

        Raises:
          ValueError: If the dataset cannot start where it has been.
        """
        session = self._session
        rollback, session.info.rollback = session.info.rollback, None
        assert rollback is not None, "ask session.info first"
        if not self._source.seeks:
            raise ValueError(
                "To go back to a checkpoint, the dataset must have seek(epoch, step), as those of "
                "the pipeline have: use one of them, or leave the rollback out."
            )
        rollback.restore()
        self._parts = session.state.resumption.begin(self.capture)
        session.excluded |= set(rollback.excluded_steps)
        session.state.progress.begin(self._config.initial_epoch, self._config.epochs, resume=True)
        self._source.restart()
        self.restore()

    def _keep(self) -> None:
        parts: dict[str, Any] = {}
        try:
            parts = {} if self._session.info.has_failed else self.capture()
        finally:
            self._session.state.resumption.end(parts)

    def _stop(self) -> dict[str, Any] | None:
        info = self._session.info
        if info.ends_after_epoch is None:
            return None
        num_epochs, is_over = info.progress.num_epochs, self._session.is_over
        return {"reason": info.ends_after_epoch, "num_epochs": num_epochs, "is_over": is_over}

    def _hooks(self) -> dict[str, Hook]:
        """Returns the hooks by class; `#2`, `#3`, ... follow for more of one class."""
        named: dict[str, Hook] = {}
        for hook in self._session.hooks:
            name = type(hook).__name__
            number = sum(other.split("#")[0] == name for other in named)
            named[f"{name}#{number + 1}" if number else name] = hook
        return named

    def _restore_hooks(self, states: dict[str, Any]) -> None:
        for name, hook in self._hooks().items():
            if name in states:
                hook.restore(states.pop(name))
        unknown = [name for name, state in states.items() if state]
        if unknown:
            warnings.warn(
                f"The checkpoint has the state of {', '.join(unknown)}, which this run does not "
                "have: pass the hooks that the run began with, in their order, or go on without.",
                stacklevel=4,
            )
