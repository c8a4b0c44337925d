"""The device of the JAX arms."""

from __future__ import annotations

import jax

from benchmarks.race.workloads import Task


def configure(task: Task) -> None:
    """Checks the task's device, and sets on a GPU whether float32 products are TensorFloat-32.

    Raises:
      NotImplementedError: If the task is one for a GPU, and JAX computes elsewhere.
    """
    if task.device == "cpu":
        return
    if not is_gpu():
        raise NotImplementedError(f"JAX {jax.__version__} sees no GPU: {jax.default_backend()}")
    # By default a GPU that has TensorFloat-32 takes it for float32, too.
    products = "tensorfloat32" if task.precision == "tf32" else "float32"
    jax.config.update("jax_default_matmul_precision", products)


def is_gpu() -> bool:
    """Returns whether JAX computes on a GPU."""
    return jax.default_backend() == "gpu"
