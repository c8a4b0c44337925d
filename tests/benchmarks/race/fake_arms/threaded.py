"""An arm that is slower with one thread or, if the task's seed says so, with the default."""

import os
import time

import numpy as np

from benchmarks.race.trials import ONE_THREAD
from tests.benchmarks.race.fake_arms import good

SLOWER_BY_DEFAULT = 1
# The same, and with one thread, it has other bits.
OTHER_BITS = 2


class Arm(good.Arm):
    bits_of = None

    def __init__(self, task, found=None):
        super().__init__(task)
        self.found = found or {"setting": os.getpid()}
        self._has_one = os.environ.items() >= ONE_THREAD.items()
        self._secs = 0.2 if self._has_one == (task.seed == 0) else 0.02
        if task.seed == OTHER_BITS:
            self.bits_of = "good"
        self._adds = task.seed == OTHER_BITS and self._has_one

    def run(self, num_epochs):
        time.sleep(self._secs)
        return super().run(num_epochs)

    def weights(self):
        return [weight + np.float32(self._adds) for weight in super().weights()]
