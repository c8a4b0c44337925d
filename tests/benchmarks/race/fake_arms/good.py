"""An arm without a fault: each epoch moves the weights by the same step."""

import numpy as np


class Arm:
    bits_of = "good"
    loss = 0.5
    error = 0.0

    def __init__(self, task):
        self.settings = {"seed": task.seed}
        with np.load(task.directory / "initial.npz") as arrays:
            self._weights = [arrays[name] for name in sorted(arrays.files)]

    def run(self, num_epochs):
        print("an arm's own print does not disturb the answers")
        for _ in range(num_epochs):
            self._weights = [array + np.float32(0.125 + self.error) for array in self._weights]
        return self.loss

    def weights(self):
        return self._weights
