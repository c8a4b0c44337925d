"""MlflowWriter: a run in MLflow."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path
from typing import Any

from .extras import require_extra
from .trackers import PROJECT, RunDescription, Tracker, flat

_STATUS = {"failed": "FAILED", "diverged": "FAILED", "refused": "FAILED", "interrupted": "KILLED"}
_MAX_BATCH = 100  # parameters in one call, as MLflow limits them
_MAX_WAITING = 200  # values: some seconds of a training
_MAX_VALUE = 6000  # characters of a parameter


class MlflowWriter(Tracker):
    """Writes into a run of MLflow; see `Tracker`.

    MLflow's own variables hold: `MLFLOW_TRACKING_URI` says where runs are kept, a folder `mlruns`
    in the directory without it; `MLFLOW_EXPERIMENT_NAME` is the experiment, "gradloop" without it.
    Values go out some seconds' worth at once.

    Args:
      directory: Where `mlruns` is.
      description: What is shown of the run.

    Raises:
      MissingExtra: If the package `mlflow` (or `mlflow-skinny`) is not installed.
    """

    def __init__(self, directory: str | os.PathLike[str], description: RunDescription) -> None:
        require_extra("mlflow", "mlflow")
        super().__init__(Path(directory), description)
        self._client: Any = None
        self._lacks_settings = False  # of a run that exists
        self._waiting: list[Any] = []

    def flush(self) -> None:
        """See `Writer.flush`."""
        if self._waiting:
            with self._reached():
                self._client.log_batch(self.id, metrics=self._waiting)
            self._waiting = []

    def restore(self, state: dict[str, Any]) -> None:
        """See `Tracker.restore`."""
        super().restore(state)
        self._waiting = []

    def _open(self) -> None:
        if self._client is not None:
            return
        client = _make_client(self.directory)
        if self.id is None:
            self.id, self._lacks_settings = self._create(client), True
        else:
            client.update_run(self.id, status="RUNNING")
        if self._lacks_settings:
            self._log_settings(client)
            self._lacks_settings = False
        self._client = client

    def _create(self, client: Any) -> str:
        about = self.description
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        experiment = client.get_experiment_by_name(name)
        experiment_id = experiment.experiment_id if experiment else client.create_experiment(name)
        tags = dict.fromkeys(about.tags, "true")
        return str(client.create_run(experiment_id, run_name=about.name, tags=tags).info.run_id)

    def _log_settings(self, client: Any) -> None:
        from mlflow.entities import Param

        config = flat(self.description.config)
        settings = [Param(name, text[:_MAX_VALUE]) for name, text in config.items()]
        for start in range(0, len(settings), _MAX_BATCH):
            client.log_batch(self.id, params=settings[start : start + _MAX_BATCH])

    def _log(self, step: int, epoch: int, values: dict[str, float]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._waiting += [Metric(name, value, now, step) for name, value in values.items()]
        if len(self._waiting) >= _MAX_WAITING:
            self.flush()

    def _end(self, status: str, values: dict[str, Any]) -> None:
        self.flush()
        client, self._client = self._client, None
        for name, value in values.items():
            client.log_metric(self.id, name, value)
        client.set_tag(self.id, "status", status)
        client.set_terminated(self.id, _STATUS.get(status, "FINISHED"))


def _make_client(directory: Path) -> Any:
    """Returns a client of the store that the environment names, or of one in the directory."""
    uri = os.environ.get("MLFLOW_TRACKING_URI")
    if uri is None:
        # Files need no database; MLflow wants to be asked for them.
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        uri = (directory / "mlruns").resolve().as_uri()
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri)
