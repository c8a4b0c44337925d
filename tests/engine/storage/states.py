"""States to save, and ways to do harm to what was saved."""

import dataclasses
import json

import keras
import numpy as np
import tensorflow as tf

from gradloop.engine import variables
from gradloop.engine.resumption import Resumption
from gradloop.engine.state import Progress
from gradloop.engine.step_variables import StepVariables
from gradloop.engine.workers.peers import Peers


@dataclasses.dataclass
class FakeState:
    """As much of TrainState as a checkpoint sees."""

    variables: dict
    progress: Progress = dataclasses.field(default_factory=Progress)
    step_variables: StepVariables = dataclasses.field(
        default_factory=lambda: StepVariables(tf.distribute.get_strategy(), {})
    )
    resumption: Resumption = dataclasses.field(default_factory=Resumption)
    model = None
    strategy: tf.distribute.Strategy = dataclasses.field(default_factory=tf.distribute.get_strategy)
    extras: dict = dataclasses.field(default_factory=dict)
    optimizers: dict = dataclasses.field(default_factory=dict)

    def named_variables(self):
        return list(self.variables.items())

    def values_to_save(self, variable):
        return variables.local_values(variable)

    peers = Peers(tf.distribute.get_strategy())

    def saved_values(self, named):
        return ((name, self.values_to_save(variable)) for name, variable in named)

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


def read_entries(path):
    """Returns the arrays of a checkpoint by name, and its metadata."""
    with np.load(path) as file:
        arrays = dict(file)
    return arrays, json.loads(arrays.pop("metadata").tobytes())


def write_entries(path, arrays, metadata):
    """Writes them back, whole for a zip."""
    text = json.dumps(metadata).encode()
    np.savez(path, **arrays, metadata=np.frombuffer(text, np.uint8))
