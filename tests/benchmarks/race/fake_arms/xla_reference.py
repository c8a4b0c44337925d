"""Its bits are its own, as those of `keras_fit_xla` are; its loss is near."""

from tests.benchmarks.race.fake_arms import good


class Arm(good.Arm):
    bits_of = "xla_reference"
    loss = 0.505
    error = 1e-6
