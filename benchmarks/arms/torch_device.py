"""The device of the PyTorch arms."""

from __future__ import annotations

import torch

from benchmarks.race.workloads import Task


def find(task: Task) -> torch.device:
    """Returns the task's device, and sets on a GPU whether float32 products may be TensorFloat-32.

    Raises:
      NotImplementedError: If the task is one for a GPU, and PyTorch sees none.
    """
    if task.device == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise NotImplementedError(f"PyTorch {torch.__version__} sees no GPU")
    # Convolutions take it by default, and matrix products do not.
    torch.backends.cuda.matmul.allow_tf32 = task.precision == "tf32"
    torch.backends.cudnn.allow_tf32 = task.precision == "tf32"
    return torch.device("cuda")
