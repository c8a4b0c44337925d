"""Its weights are wrong in the last bits, and it claims that they are right."""

from tests.benchmarks.race.fake_arms import good


class Arm(good.Arm):
    error = 1e-6
