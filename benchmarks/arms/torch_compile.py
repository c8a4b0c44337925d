"""A whole training step in PyTorch under torch.compile: batch, gradients, update and metrics.

For a small step, one graph without autograd's tape (`torch.func`) takes half the time of a compiled
model with a separate backward pass and optimizer.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.arms import torch_training
from benchmarks.arms.torch_training import BETA_1, BETA_2, EPSILON, RHO, Batches, Metrics, Tensors
from benchmarks.race.workloads import WEIGHT_DECAY, Task, Workload

# PyTorch's compiler does not look into nn.LSTM, and an unrolled LSTM takes twice as long. The
# statistics of batch normalization cannot be updated inside torch.func.
_NOT_IN_ONE_GRAPH = ("lstm", "resnet50")


class Arm:
    """See `benchmarks.arms.ArmProtocol`. Needs a C++ compiler; the first run compiles."""

    bits_of = None

    def __init__(self, task: Task) -> None:
        compiler = os.environ.get("CXX", "g++")
        if shutil.which(compiler) is None:
            raise RuntimeError(f"torch.compile needs {compiler}: install a C++ compiler")
        self._net = torch_training.make_net(task).train()
        self._batches = Batches(task)
        self.metrics = Metrics(self._batches.device)
        is_split = task.workload.model in _NOT_IN_ONE_GRAPH
        make_step = _make_split_step if is_split else _make_step
        self._step = make_step(task.workload, self._net, self._batches, self.metrics)
        self.settings = torch_training.settings(self._batches.device) | {
            "rmsprop": "Keras's formula",
            "adam": "Keras's formula",
            "compiled": "model with loss, and update" if is_split else "the whole step, torch.func",
            "mode": "default, without guards" if not is_split else "default",
        }

    def run(self, num_epochs: int) -> float:
        """Trains batch by batch and returns the mean training loss."""
        self._net.train()
        self.metrics.reset()
        for _ in range(num_epochs):
            for rows in self._batches.rows:
                self._step(rows)
        return self.metrics.mean_loss(num_epochs * len(self._batches))

    def weights(self) -> list[npt.NDArray[np.generic]]:
        """Returns the model's weights."""
        return torch_training.keras_weights(self._net)


def _make_step(
    workload: Workload, net: torch.nn.Module, batches: Batches, metrics: Metrics
) -> Callable[[torch.Tensor], None]:
    """Returns a function that trains on rows of the data, in one graph."""
    trained = dict(net.named_parameters())
    names, params = list(trained), [param.detach() for param in trained.values()]
    update = _UPDATES[workload.optimizer](params, workload.learning_rate)

    def compute_loss(params: Tensors, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, ...]:
        logits = torch.func.functional_call(net, dict(zip(names, params, strict=True)), (x,))
        return torch_training.mean_loss(workload, logits, y), logits

    def step(rows: torch.Tensor) -> None:
        x, y = batches.get(rows)
        compute_gradients = torch.func.grad_and_value(compute_loss, has_aux=True)
        gradients, (loss, logits) = compute_gradients(params, x, y)
        update(gradients)
        metrics.add(loss, logits, y)

    # Shapes and dtypes never change, and checking them takes a tenth of a small step. Without these
    # guards, code that this process compiled for another model would be taken for this one's.
    torch.compiler.reset()
    options = {"guard_filter_fn": torch.compiler.skip_all_guards_unsafe}
    compiled = torch.compile(step, fullgraph=True, dynamic=False, options=options)
    return torch.no_grad()(compiled)


def _make_split_step(
    workload: Workload, net: torch.nn.Module, batches: Batches, metrics: Metrics
) -> Callable[[torch.Tensor], None]:
    """Returns a function that trains on rows of the data, in graphs joined by autograd's tape."""
    params = [param for param in net.parameters() if param.requires_grad]
    update = _UPDATES[workload.optimizer](
        [param.detach() for param in params], workload.learning_rate
    )

    @torch.compile
    def compute_loss(rows: torch.Tensor) -> torch.Tensor:
        x, y = batches.get(rows)
        logits = net(x)
        loss = torch_training.mean_loss(workload, logits, y)
        metrics.add(loss, logits, y)
        return loss

    compiled_update = torch.no_grad()(torch.compile(update, fullgraph=True))

    def step(rows: torch.Tensor) -> None:
        compiled_update(torch.autograd.grad(compute_loss(rows), params))

    return step


def _make_rmsprop(params: Tensors, learning_rate: float) -> Callable[[Tensors], None]:
    """Returns a function of gradients that updates the parameters in place, to be compiled."""
    mean_squares = [torch.zeros_like(param) for param in params]

    def update(gradients: Tensors) -> None:
        for param, gradient, mean_square in zip(params, gradients, mean_squares, strict=True):
            mean_square.mul_(RHO).addcmul_(gradient, gradient, value=1 - RHO)
            param.addcdiv_(gradient, (mean_square + EPSILON).sqrt(), value=-learning_rate)

    return update


def _make_adam(params: Tensors, learning_rate: float) -> Callable[[Tensors], None]:
    """Returns a function of gradients that updates the parameters in place, to be compiled."""
    means, mean_squares = ([torch.zeros_like(param) for param in params] for _ in range(2))
    # A tensor, because a Python number compiles again at each step.
    num_steps = torch.zeros((), device=params[0].device)

    def update(gradients: Tensors) -> None:
        num_steps.add_(1)
        rate = learning_rate * (1 - BETA_2**num_steps).sqrt() / (1 - BETA_1**num_steps)
        for param, gradient, mean, mean_square in zip(
            params, gradients, means, mean_squares, strict=True
        ):
            mean.lerp_(gradient, 1 - BETA_1)
            mean_square.mul_(BETA_2).addcmul_(gradient, gradient, value=1 - BETA_2)
            param.sub_(rate * mean / (mean_square.sqrt() + EPSILON))

    return update


def _make_adamw(params: Tensors, learning_rate: float) -> Callable[[Tensors], None]:
    """Returns Adam after a decay of all weights, as in Keras."""
    adam = _make_adam(params, learning_rate)

    def update(gradients: Tensors) -> None:
        for param in params:
            param.mul_(1 - learning_rate * WEIGHT_DECAY)
        adam(gradients)

    return update


_UPDATES = {"rmsprop": _make_rmsprop, "adam": _make_adam, "adamw": _make_adamw}
