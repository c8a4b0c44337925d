"""Its dropout gives another loss than good's; without, it is the same."""

from tests.benchmarks.race.fake_arms import good


class Arm(good.Arm):
    bits_of = None
    plain_loss = 0.5
    dropped_loss = 0.52

    def __init__(self, task):
        super().__init__(task)
        self.loss = self.dropped_loss if task.dropout else self.plain_loss
