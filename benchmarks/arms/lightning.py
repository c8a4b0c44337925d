"""PyTorch Lightning's Trainer, with everything optional turned off."""

from __future__ import annotations

import logging
import warnings

import lightning
import numpy as np
import numpy.typing as npt
import torch

from benchmarks.arms import torch_training
from benchmarks.race.workloads import Task


class Module(lightning.LightningModule):
    """A net, its loss and its optimizer, as Lightning expects them."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.net = torch_training.make_net(task)
        self.sums = torch_training.Metrics(torch.device("cpu"))
        self._workload = task.workload
        # One for all runs: Lightning asks for it at each fit, and its slots must stay.
        self._optimizer = torch_training.make_optimizer(task, self.net)

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        """Returns the loss of a batch."""
        x, y = batch
        logits = self.net(x)
        loss = torch_training.mean_loss(self._workload, logits, y)
        self.sums.add(loss, logits, y)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Returns the optimizer."""
        return self._optimizer


class Arm:
    """See `benchmarks.arms.ArmProtocol`. Runs on the CPU only."""

    bits_of = None

    def __init__(self, task: Task) -> None:
        if task.device != "cpu":
            raise NotImplementedError("lightning runs on the CPU only")
        logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
        # It warns of too few data loader workers, which data in memory does not need.
        warnings.filterwarnings("ignore", module="lightning")
        self._module = Module(task)
        self._batches = torch_training.Batches(task)
        self.metrics = self._module.sums
        self.settings = torch_training.settings(self._batches.device) | {
            "trainer": "barebones: no logger, checkpoints, progress bar, summary",
            "data": "an iterable of batches by index_select, without a DataLoader",
            "metrics": "sums in training_step: self.log costs more",
        }

    def run(self, num_epochs: int) -> float:
        """Calls `Trainer.fit` once and returns the mean training loss."""
        self.metrics.reset()
        trainer = lightning.Trainer(accelerator="cpu", barebones=True, max_epochs=num_epochs)
        trainer.fit(self._module, self._batches)
        return self.metrics.mean_loss(num_epochs * len(self._batches))

    def weights(self) -> list[npt.NDArray[np.generic]]:
        """Returns the model's weights."""
        return torch_training.keras_weights(self._module.net)
