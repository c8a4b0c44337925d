"""What Keras gets while a step is traced, and gives back."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradloop.engine.patching import adding_in_place, comparing_plainly, reading_once
from gradloop.engine.traced_step import operations_of


def traced(function):
    with adding_in_place(), reading_once(), comparing_plainly():
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


@pytest.mark.parametrize(
    ("change", "owner", "name"),
    [
        (adding_in_place, keras.Variable, "assign_add"),
        (reading_once, keras.optimizers.Optimizer, "apply"),
        (comparing_plainly, keras.src.backend.numpy, "argmax"),
    ],
)
def test_keras_has_its_own_afterwards(change, owner, name):
    before = getattr(owner, name)
    with change():
        assert getattr(owner, name) is not before
    assert getattr(owner, name) is before


class Recording(keras.optimizers.SGD):
    """Does what `update` says with the variable, the gradient and the learning rate."""

    def __init__(self, update):
        super().__init__(0.5)
        self.update = update

    def update_step(self, gradient, variable, learning_rate):
        self.update(variable, gradient, learning_rate)


def applied(update):
    """Returns how often an update reads variables, and what its variable is after it."""
    variable = keras.Variable([1.0, 2.0])
    optimizer = Recording(update)
    optimizer.build([variable])
    graph = traced(lambda: optimizer.apply([tf.constant([4.0, 4.0])]))
    graph()
    reads = kinds(graph.graph).count("ReadVariableOp") - 1  # of the count of updates
    return reads, variable.numpy().tolist()


def test_an_update_reads_what_it_has_once():
    def update(variable, gradient, rate):
        variable.assign(variable + gradient * rate)  # reads both
        variable.assign_sub(variable * rate)  # has both

    reads, after = applied(update)
    assert after == [1.5, 2.0]
    assert reads == 2


@pytest.mark.parametrize("form", ["assign_sub", "scatter", "function", "cond"])
def test_what_may_write_a_variable_makes_an_update_read_it_again(form):
    def update(variable, gradient, rate):
        variable.assign(variable + gradient)  # [5, 6]
        write = {
            "assign_sub": lambda: variable.assign_sub(gradient),
            "scatter": lambda: variable.scatter_sub(tf.IndexedSlices(gradient, [0, 1])),
            "function": tf.function(lambda: variable.assign_sub(gradient)),
            "cond": lambda: tf.cond(
                rate > 0, lambda: variable.assign_sub(gradient), lambda: variable.assign(gradient)
            ),
        }
        write[form]()  # [1, 2]
        variable.assign(variable * 3.0)

    assert applied(update)[1] == [3.0, 6.0]


def test_another_graph_reads_by_itself():
    def update(variable, gradient, rate):
        variable.assign(gradient)
        variable.assign(tf.cond(rate > 0, lambda: variable + 1.0, lambda: variable + 2.0))

    assert applied(update)[1] == [5.0, 5.0]


@pytest.mark.parametrize("kind", ["softmax", "numbers"])
def test_argmax_is_that_of_keras_with_as_few_operations_as_its_argument_allows(kind):
    numbers = tf.constant([[-0.0, 0.0], [0.0, -0.0], [np.nan, 1.0], [-1.0, np.inf]])
    given = {"softmax": lambda: tf.nn.softmax(numbers), "numbers": lambda: numbers + 0.0}[kind]
    # As argmax of a graph's argument, of which nothing is known, by Keras.
    expected = tf.function(lambda: keras.ops.argmax(given(), axis=-1))()
    function = traced(lambda: keras.ops.argmax(given(), axis=-1))
    np.testing.assert_array_equal(function(), expected)
    assert ("SelectV2" in kinds(function.graph)) == (kind == "numbers")
