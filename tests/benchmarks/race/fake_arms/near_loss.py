"""Its loss is 1 % off and its weights differ; its bits are free."""

from tests.benchmarks.race.fake_arms import good


class Arm(good.Arm):
    bits_of = None
    loss = 0.505
    error = 1e-6
