"""The common part of the PyTorch arms: data in memory, losses, metrics, Keras's optimizers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from benchmarks.arms import torch_device, torch_models
from benchmarks.race import weights as weights_lib
from benchmarks.race.workloads import WEIGHT_DECAY, Task, Workload

RHO, BETA_1, BETA_2, EPSILON = 0.9, 0.9, 0.999, 1e-7
Tensors = Sequence[torch.Tensor]


class Batches:
    """The examples in the device's memory: a re-iterable of batches `(x, y)` in the task's order.

    Args:
      task: Names the directory of the arrays.

    Attributes:
      device: The task's.
      rows: Indices of the examples of each batch.
    """

    def __init__(self, task: Task) -> None:
        self.device = torch_device.find(task)
        self._x, self._y, order = (
            torch.from_numpy(np.load(task.directory / f"{name}.npy")).to(self.device)
            for name in ("x_train", "y_train", "order")
        )
        self.rows = order.split(task.workload.global_batch_size)

    def __len__(self) -> int:
        """Returns the number of batches of an epoch."""
        return len(self.rows)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yields the batches of an epoch."""
        return map(self.get, self.rows)

    def get(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns some examples: images in [0, 1] or token ids, and labels."""
        x, y = self._x.index_select(0, rows), self._y.index_select(0, rows)
        # Bytes take a quarter of the memory, and gathering them saves what converting them costs.
        return (x.float() / 255 if x.dtype == torch.uint8 else x), y


class Metrics:
    """Sums of the loss and of correct predictions; no value is read between the steps.

    Args:
      device: On which the losses are.
    """

    def __init__(self, device: torch.device) -> None:
        self.loss = torch.zeros((), device=device)
        self.num_right = torch.zeros((), dtype=torch.int64, device=device)

    @torch.no_grad()
    def reset(self) -> None:
        """Sets all to zero, in place."""
        self.loss.zero_()
        self.num_right.zero_()

    @torch.no_grad()
    def add(self, loss: torch.Tensor, logits: torch.Tensor, labels: torch.Tensor) -> None:
        """Adds a batch."""
        self.loss += loss.detach()
        self.num_right += (logits.argmax(1) == labels).sum()

    def mean_loss(self, num_steps: int) -> float:
        """Waits for all work on the device and returns the loss of a step."""
        if self.loss.is_cuda:
            torch.cuda.synchronize()
        return float(self.loss) / num_steps


def mean_loss(workload: Workload, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Returns the loss of a batch."""
    if workload.loss == "categorical_crossentropy":
        return functional.cross_entropy(logits, labels)
    # Of the logits; see `Workload.loss`.
    targets = functional.one_hot(labels, workload.num_classes).float()
    return functional.binary_cross_entropy_with_logits(logits, targets)


class RMSprop(torch.optim.Optimizer):
    """RMSprop with Keras's formula: `torch.optim.RMSprop` adds epsilon outside the root.

    Args:
      params: Parameters to update.
      lr: Learning rate.
    """

    def __init__(self, params: Iterable[torch.nn.Parameter], lr: float) -> None:
        super().__init__(params, {"lr": lr})
        self._params = self.param_groups[0]["params"]
        self._mean_squares = [torch.zeros_like(param) for param in self._params]

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Updates the parameters."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        gradients = [param.grad for param in self._params]
        torch._foreach_mul_(self._mean_squares, RHO)
        torch._foreach_addcmul_(self._mean_squares, gradients, gradients, 1 - RHO)
        roots = torch._foreach_add(self._mean_squares, EPSILON)
        torch._foreach_sqrt_(roots)
        torch._foreach_addcdiv_(self._params, gradients, roots, -self.param_groups[0]["lr"])
        return loss


class AdamW(torch.optim.AdamW):
    """PyTorch's fused AdamW with Keras's formula, which adds epsilon before the bias correction.

    Args:
      params: Parameters to update.
      lr: Learning rate.
      weight_decay: 0: it is Adam.
    """

    def __init__(
        self, params: Iterable[torch.nn.Parameter], lr: float, weight_decay: float
    ) -> None:
        betas = (BETA_1, BETA_2)
        super().__init__(params, lr, betas, weight_decay=weight_decay, fused=True)
        self._num_steps = 0

    def step(self, closure: Any = None) -> Any:
        """Updates the parameters."""
        self._num_steps += 1
        # lr / c1 * m / (sqrt(v) / c2 + e / c2) is lr * c2 / c1 * m / (sqrt(v) + e).
        self.param_groups[0]["eps"] = EPSILON / math.sqrt(1 - BETA_2**self._num_steps)
        return super().step(closure)


def make_net(task: Task) -> torch_models.Net:
    """Returns the model with the task's initial weights, and seeds dropout."""
    torch.manual_seed(task.seed)
    net = torch_models.build(task)
    initial = weights_lib.load(task.directory / "initial.npz")
    for view, array in zip(torch_models.keras_views(net), initial, strict=True):
        view.copy_(torch.from_numpy(array))
    return net


def make_optimizer(task: Task, net: torch.nn.Module) -> torch.optim.Optimizer:
    """Returns the workload's optimizer."""
    workload = task.workload
    params = [param for param in net.parameters() if param.requires_grad]
    if workload.optimizer == "rmsprop":
        return RMSprop(params, workload.learning_rate)
    weight_decay = WEIGHT_DECAY if workload.optimizer == "adamw" else 0.0
    return AdamW(params, workload.learning_rate, weight_decay)


def keras_weights(net: torch.nn.Module) -> list[npt.NDArray[np.generic]]:
    """Returns copies of all weights, in the order and layout of Keras's `get_weights()`."""
    return [view.contiguous().cpu().numpy().copy() for view in torch_models.keras_views(net)]


def settings(device: torch.device) -> dict[str, Any]:
    """Returns the settings of all PyTorch arms, for the record."""
    tried = "not tried on a GPU" if device.type == "cuda" else "not faster"
    return {
        "num_threads": torch.get_num_threads(),
        "data": "bytes in memory, index_select per batch",
        "memory_format": f"contiguous: channels_last was {tried}",
        "rmsprop": "Keras's formula (epsilon inside the root), torch._foreach operations",
        "adam": "torch.optim.AdamW(fused=True), epsilon set at each step to have Keras's formula",
    }
