"""An arm that is slower with one thread or, if the task's seed says so, with the default."""

import time

from tests.benchmarks.race.fake_arms import good

SLOWER_BY_DEFAULT = 1


class Arm(good.Arm):
    bits_of = None

    def __init__(self, task, found=None):
        super().__init__(task)
        self.found = found
        is_default = found["num_threads"] is None
        self._secs = 0.02 if is_default == (task.seed == SLOWER_BY_DEFAULT) else 0.0

    def run(self, num_epochs):
        time.sleep(self._secs)
        return super().run(num_epochs)
