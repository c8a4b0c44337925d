"""What Keras gets while a step is traced, and gives back."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradloop.engine.patching import adding_in_place
from gradloop.engine.traced_step import operations_of


def traced(function):
    with adding_in_place():
        return tf.function(function, autograph=False).get_concrete_function()


def kinds(graph):
    return [operation.type for operation in operations_of(graph)]


@pytest.mark.parametrize(("dtype", "value"), [("float32", 0.1), ("int64", 3), ("float32", 1)])
def test_an_addition_has_the_sum_of_keras_and_returns_it(dtype, value):
    variables = [keras.Variable(np.full([3], 7), dtype=dtype) for _ in range(2)]
    given = keras.ops.full([3], value, dtype=dtype)
    by_keras = variables[0].assign_add(given)
    found = traced(lambda: variables[1].assign_add(given))()
    assert np.array_equal(found, by_keras) and np.array_equal(variables[1], variables[0])


def test_counters_of_a_step_are_one_operation_each():
    count, total = keras.Variable(0, dtype="int64"), keras.Variable(0.0)
    graph = traced(lambda: (count.assign_add(1), total.assign_add(keras.ops.ones(())))).graph
    assert kinds(graph).count("AssignAddVariableOp") == 2
    assert "AssignVariableOp" not in kinds(graph)


def test_what_needs_a_conversion_is_left_to_keras():
    variable = keras.Variable([1.0, 2.0])
    assert "AssignAddVariableOp" not in kinds(traced(lambda: variable.assign_add(2.5)).graph)
    found = traced(lambda: variable.assign_add(keras.ops.ones([2], dtype="bfloat16")))()
    assert np.array_equal(found, [2.0, 3.0])


def test_keras_has_its_own_afterwards():
    before = keras.Variable.assign_add
    with adding_in_place():
        assert keras.Variable.assign_add is not before
    assert keras.Variable.assign_add is before
