"""It says that it has the bits of `xla_reference`, and has those of `good`."""

from tests.benchmarks.race.fake_arms import good


class Arm(good.Arm):
    bits_of = "xla_reference"
