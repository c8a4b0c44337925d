"""States to save."""

import dataclasses

import keras
import tensorflow as tf

from gradloop.engine import variables
from gradloop.engine.state import Progress
from gradloop.engine.step_variables import StepVariables


@dataclasses.dataclass
class FakeState:
    """As much of TrainState as a checkpoint sees."""

    variables: dict
    progress: Progress = dataclasses.field(default_factory=Progress)
    step_variables: StepVariables = dataclasses.field(
        default_factory=lambda: StepVariables(tf.distribute.get_strategy(), {})
    )

    def named_variables(self):
        return list(self.variables.items())

    def create_named(self, names):
        pass


def fake_state(num_steps=0, **values):
    variables = {name: keras.Variable(value, dtype=value.dtype) for name, value in values.items()}
    return FakeState(variables, Progress(num_steps_completed=num_steps))


def all_bytes(state):
    return {
        name: [value.tobytes() for value in variables.local_values(variable)]
        for name, variable in state.named_variables()
    }
