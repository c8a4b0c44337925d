"""Its loss is wrong without dropout, too."""

from tests.benchmarks.race.fake_arms import drops


class Arm(drops.Arm):
    plain_loss = 0.6
