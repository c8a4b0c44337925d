"""It does not know the workload."""


class Arm:
    def __init__(self, task):
        raise NotImplementedError(f"no model {task.workload.model!r}")
