"""It has the bits of `xla_reference`."""

from tests.benchmarks.race.fake_arms import xla_reference


class Arm(xla_reference.Arm):
    pass
