"""It raises in its run."""

from tests.benchmarks.race.fake_arms import good


class Arm(good.Arm):
    def run(self, num_epochs):
        raise ValueError("a fault\nof many lines")
