"""Its loss is right without dropout, and far off with it."""

from tests.benchmarks.race.fake_arms import drops


class Arm(drops.Arm):
    dropped_loss = 0.6
