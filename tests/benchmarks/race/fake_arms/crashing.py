"""It dies in its second run, with a last word."""

import os
import sys

from tests.benchmarks.race.fake_arms import good


class Arm(good.Arm):
    num_runs = 0

    def run(self, num_epochs):
        self.num_runs += 1
        if self.num_runs == 2:
            print("out of everything", file=sys.stderr, flush=True)
            os._exit(3)
        return super().run(num_epochs)
