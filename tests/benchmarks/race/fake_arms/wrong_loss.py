"""Its loss is 3 % off; it claims no bits."""

from tests.benchmarks.race.fake_arms import good


class Arm(good.Arm):
    claims_bits = False
    loss = 0.515
