"""The count of operations against numbers worked by hand: 2 m n k for m x k times k x n."""

import keras
import pytest
import tensorflow as tf

from benchmarks.hardware import flops
from benchmarks.race import keras_models
from benchmarks.race.workloads import WORKLOADS
from gradloop.models import cnn, dense, lstm

CROSSENTROPY = keras.losses.CategoricalCrossentropy()


def count(model, batch_size, optimizer=None, dtype=tf.float32):
    x = tf.TensorSpec((batch_size, *model.input_shape[1:]), dtype)
    y = tf.TensorSpec((batch_size, *model.output_shape[1:]))
    return flops.count_train_step(model, CROSSENTROPY, (x, y), optimizer)


def test_dense_net():
    # Forward, and the gradient of the weights, of 784 x 512 and 512 x 10; the gradient of what
    # goes in, of the second layer only: nobody wants the images'.
    first, second = 2 * 128 * 784 * 512, 2 * 128 * 512 * 10
    assert first * 2 + second * 3 == 209_453_056
    assert count(dense.build(units=512), 128).matmul == 209_453_056


def test_one_number_for_the_record():
    spec = (tf.TensorSpec((2, 28, 28, 1)), tf.TensorSpec((2, 10)))
    counted = flops.count_train_step_flops(dense.build(units=4), CROSSENTROPY, spec)
    assert counted == 2 * 2 * 784 * 4 * 2 + 2 * 2 * 4 * 10 * 3


def test_convolutional_net():
    batch = 64
    conv1 = 2 * batch * 26 * 26 * 32 * (3 * 3 * 1)
    conv2 = 2 * batch * 24 * 24 * 64 * (3 * 3 * 32)
    hidden = 2 * batch * (12 * 12 * 64) * 128
    probabilities = 2 * batch * 128 * 10
    by_hand = conv1 * 2 + (conv2 + hidden + probabilities) * 3
    assert by_hand == 4_580_179_968
    assert count(cnn.build(), batch).matmul == by_hand


def test_lstm_is_a_loop_over_28_rows():
    # Four gates of 128: x W is 128 x 28 x 512 and h U is 128 x 128 x 512 at each row. Backwards,
    # the gradients of W, U and h; that of x is not wanted.
    inputs, recurrent = 2 * 128 * 28 * 512, 2 * 128 * 128 * 512
    by_hand = 28 * (inputs * 2 + recurrent * 3) + 2 * 128 * 128 * 10 * 3
    assert by_hand == 1_615_790_080
    assert count(lstm.build(), 128).matmul == by_hand


def test_strides_padding_groups_and_depthwise():
    inputs = keras.Input((8, 8, 4))
    x = keras.layers.Conv2D(6, 3, strides=2, padding="same", groups=2, use_bias=False)(inputs)
    x = keras.layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same", use_bias=False)(x)
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x))
    grouped = 2 * (5 * 4 * 4 * 6) * (3 * 3 * 4 // 2)
    depthwise = 2 * (5 * 4 * 4 * 12) * (3 * 3)
    assert count(model, 5).matmul == grouped * 2 + depthwise * 3


@pytest.mark.parametrize(
    ("equation", "shapes", "by_hand"),
    [
        ("ij,jk->ik", ([3, 4], [4, 5]), 2 * 3 * 4 * 5),
        ("bhqd,bhkd->bhqk", ([2, 3, 4, 8], [2, 3, 5, 8]), 2 * 2 * 3 * 4 * 5 * 8),
        ("...ij,jk->...ik", ([2, 7, 3, 4], [4, 5]), 2 * 14 * 3 * 4 * 5),
        ("ij->i", ([3, 4],), 3 * 4),
    ],
)
def test_einsum(equation, shapes, by_hand):
    function = tf.function(lambda *tensors: tf.raw_ops.Einsum(inputs=tensors, equation=equation))
    graph = function.get_concrete_function(*map(tf.TensorSpec, shapes)).graph
    assert flops.count_graph(graph).matmul == by_hand


def test_batches_of_matrix_products_and_transposes():
    function = tf.function(lambda a, b: tf.matmul(a, b, transpose_a=True))
    specs = [tf.TensorSpec([6, 4, 3]), tf.TensorSpec([6, 4, 5])]
    assert flops.count_graph(function.get_concrete_function(*specs).graph).matmul == 6 * 2 * 60


def test_what_nobody_wants_is_not_counted():
    def function(x):
        tf.matmul(x, x)  # its result is dropped
        return tf.matmul(x, x[:, :1])

    graph = tf.function(function).get_concrete_function(tf.TensorSpec([4, 4])).graph
    assert flops.count_graph(graph).matmul == 2 * 4 * 4


def test_loop_variables_that_nobody_wants_are_not_counted():
    def function(x):
        body = lambda i, a, b: (i + 1, tf.matmul(a, x), tf.matmul(b, tf.matmul(b, x)))  # noqa: E731
        return tf.while_loop(lambda i, a, b: i < 7, body, (0, x, x), maximum_iterations=7)[1]

    graph = tf.function(function, autograph=False).get_concrete_function(tf.TensorSpec([4, 4]))
    assert flops.count_graph(graph.graph).matmul == 7 * 2 * 4**3


def test_of_two_branches_the_dearer_one_counts():
    def function(x):
        return tf.cond(x[0, 0] > 0, lambda: tf.matmul(x, tf.matmul(x, x)), lambda: tf.matmul(x, x))

    graph = tf.function(function, autograph=False).get_concrete_function(tf.TensorSpec([4, 4]))
    assert flops.count_graph(graph.graph).matmul == 2 * 2 * 4**3


def test_elementwise_operations_and_the_optimizer():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, activation="relu")])
    without = count(model, 5)
    with_sgd = count(model, 5, keras.optimizers.SGD(0.1))
    assert with_sgd.matmul == without.matmul == 2 * 5 * 3 * 2 * 2
    # SGD: a product and a subtraction for each of 3 * 2 + 2 weights, and one for the step counter.
    assert with_sgd.elementwise - without.elementwise in range(2 * 8, 2 * 8 + 3)
    assert without.total == without.matmul + without.elementwise


def test_nothing_is_trained():
    model = dense.build(units=4)
    before = [w.copy() for w in model.get_weights()]
    count(model, 2, keras.optimizers.RMSprop())
    assert all((a == b).all() for a, b in zip(before, model.get_weights(), strict=True))


def test_transformer_on_token_ids():
    model = keras_models.build(WORKLOADS["transformer"])
    batch, positions, width, num_blocks = 2, 128, 256, 4
    tokens = batch * positions
    projections = 4 * 2 * tokens * width * width
    attention = 2 * 2 * batch * positions * positions * width
    feed_forward = 2 * 2 * tokens * width * 4 * width
    probabilities = 2 * batch * width * 10
    by_hand = 3 * (num_blocks * (projections + attention + feed_forward) + probabilities)
    assert count(model, batch, dtype=tf.int32).matmul == by_hand


def test_an_unknown_batch_size_is_an_error():
    with pytest.raises(ValueError, match="static shapes"):
        count(dense.build(units=4), None)


def test_an_unknown_number_of_iterations_is_an_error():
    def function(x):
        return tf.while_loop(lambda a: tf.reduce_sum(a) < 9, lambda a: [tf.matmul(a, a)], [x])

    graph = tf.function(function, autograph=False).get_concrete_function(tf.TensorSpec([4, 4]))
    with pytest.raises(ValueError, match="number of iterations"):
        flops.count_graph(graph.graph)
