"""It looks for its settings, and another one of its kind must not."""

from tests.benchmarks.race.fake_arms import good


class Arm(good.Arm):
    bits_of = None

    def __init__(self, task, found=None):
        super().__init__(task)
        assert task.dropout == (found is None)
        self.found = {"setting": 1}
