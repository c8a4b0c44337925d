"""Its loss is 1 % off and its weights differ; it claims no bits."""

from tests.benchmarks.race.fake_arms import good


class Arm(good.Arm):
    claims_bits = False
    loss = 0.505
    error = 1e-6
