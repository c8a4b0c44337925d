"""Its loss is 3 % off; its bits are free."""

from tests.benchmarks.race.fake_arms import good


class Arm(good.Arm):
    bits_of = None
    loss = 0.515
