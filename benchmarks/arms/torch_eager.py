"""A training loop in PyTorch as an expert writes it, without compilation."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from benchmarks.arms import torch_training
from benchmarks.race.workloads import Task


class Arm:
    """See `benchmarks.arms.ArmProtocol`."""

    bits_of = None

    def __init__(self, task: Task) -> None:
        self._workload = task.workload
        self._net = torch_training.make_net(task)
        self._optimizer = torch_training.make_optimizer(task, self._net)
        self._batches = torch_training.Batches(task)
        self.metrics = torch_training.Metrics(self._batches.device)
        self.settings = torch_training.settings(self._batches.device)

    def run(self, num_epochs: int) -> float:
        """Trains batch by batch and returns the mean training loss."""
        self._net.train()
        self.metrics.reset()
        for _ in range(num_epochs):
            for x, y in self._batches:
                self._optimizer.zero_grad(set_to_none=True)
                logits = self._net(x)
                loss = torch_training.mean_loss(self._workload, logits, y)
                loss.backward()
                self._optimizer.step()
                self.metrics.add(loss, logits, y)
        return self.metrics.mean_loss(num_epochs * len(self._batches))

    def weights(self) -> list[npt.NDArray[np.generic]]:
        """Returns the model's weights."""
        return torch_training.keras_weights(self._net)
