"""Trials of a search that train nothing."""

MADE = []


class FakeTrial:
    """Stands in for a process, with a speed and bits of its own."""

    def __init__(self, speed, bits="", *, in_process=False):
        self.speed, self.speeds, self.is_open = speed, [], True
        self._bits, self.was_asked = bits, False
        self.in_process = in_process
        MADE.append(self)

    def warm_up(self, secs=None):
        assert self.is_open

    def measure(self, secs=None):
        self.speeds.append(self.speed)

    def bits(self):
        assert self.is_open
        self.was_asked = True
        return self._bits

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.is_open = False
