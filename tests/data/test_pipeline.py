import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from gradloop.data import pipeline

N = 70  # At batch 16: four whole batches and one of 6.


def make(x=None, y=None, **options):
    x = np.arange(N) if x is None else x
    return pipeline.make_dataset(x, y, **{"global_batch_size": 16, **options})


def batches(dataset, num=None):
    return list(dataset.take(len(dataset) if num is None else num).as_numpy_iterator())


def order(dataset):
    return np.concatenate(batches(dataset)).tolist()


def images(n=N, shape=(28, 28)):
    return np.random.default_rng(0).integers(0, 256, (n, *shape), np.uint8)


# The call of the design, and the transform.


def test_the_call_of_the_design():
    x, y = images(), np.arange(N, dtype=np.uint8) % 10
    dataset = pipeline.make_dataset(
        x, y, global_batch_size=64, num_classes=10, shuffle=True, seed=0
    )
    assert isinstance(dataset, tf.data.Dataset)
    assert dataset.element_spec == (
        tf.TensorSpec((None, 28, 28, 1), tf.float32),
        tf.TensorSpec((None, 10), tf.float32),
    )
    assert dataset.cardinality() == len(dataset) == dataset.num_batches == 2
    assert dataset.num_examples == N


def test_pixels_are_divided_by_255_bit_for_bit_and_get_a_channel_axis():
    x = images()
    scaled = np.concatenate(batches(make(x)))
    np.testing.assert_array_equal(scaled, (x.astype(np.float32) / 255)[..., None])
    raw = np.concatenate(batches(make(x, rescale=False, channel_axis=False)))
    np.testing.assert_array_equal(raw, x.astype(np.float32))
    assert raw.dtype == np.float32


def test_labels_become_one_hot_rows():
    y = np.arange(N) % 7
    for labels in (y, y[:, None], y.astype(np.uint8), y.astype(np.int64)):
        got = np.concatenate([b[1] for b in batches(make(y=labels, num_classes=7))])
        np.testing.assert_array_equal(got, np.eye(7, dtype=np.float32)[y])
        assert got.dtype == np.float32


@pytest.mark.parametrize("shape", [(), (5,), (4, 4, 3), (2, 3, 4, 5)])
def test_arrays_of_any_rank_go_through(shape):
    x = np.random.default_rng(0).normal(size=(N, *shape))
    got = np.concatenate(batches(make(x)))
    np.testing.assert_array_equal(got, x.astype(np.float32))


def test_several_inputs_and_outputs_keep_their_structure():
    x = {"b": images(), "a": np.arange(N)}
    y = [np.arange(N) % 3, np.arange(N, dtype=np.float64)[:, None]]
    dataset = make(x, y, num_classes=[3, None], shuffle=True)
    got_x, got_y = batches(dataset, 1)[0]
    assert set(got_x) == {"a", "b"} and isinstance(got_y, tuple)
    rows = got_x["a"]
    np.testing.assert_array_equal(got_x["b"][..., 0], x["b"][rows].astype(np.float32) / 255)
    np.testing.assert_array_equal(got_y[0].argmax(1), y[0][rows])
    np.testing.assert_array_equal(got_y[1], y[1][rows].astype(np.float32))


def test_x_alone_is_packed_as_fit_takes_it():
    assert isinstance(make().element_spec, tf.TensorSpec)
    spec = make([np.zeros((N, 2)), np.zeros((N, 3))]).element_spec
    assert len(spec) == 1 and len(spec[0]) == 2


def test_the_arrays_are_copied():
    x = np.zeros(N)
    dataset = make(x)
    x[:] = 1
    assert not np.concatenate(batches(dataset)).any()


# Batches.


def test_the_partial_last_batch_is_kept_by_default():
    assert [len(b) for b in batches(make())] == [16, 16, 16, 16, 6]
    assert make().element_spec.shape == (None,)


def test_drop_remainder_drops_it_and_makes_the_size_static():
    dataset = make(drop_remainder=True)
    assert [len(b) for b in batches(dataset)] == [16] * 4
    assert dataset.element_spec.shape == (16,)
    assert len(dataset) == dataset.num_batches == 4


@given(n=st.integers(1, 200), batch=st.integers(1, 250), seed=st.integers(-(2**40), 2**40))
@settings(max_examples=10, deadline=None)
def test_every_epoch_is_a_permutation(n, batch, seed):
    dataset = make(np.arange(n), global_batch_size=batch, shuffle=True, seed=seed)
    for _ in range(2):
        assert sorted(order(dataset)) == list(range(n))


def test_without_shuffle_it_is_the_arrays_order():
    dataset = make()
    assert order(dataset) == order(dataset) == list(range(N))


def test_each_iterator_is_another_epoch_and_the_seed_decides_all():
    one, same, other = make(shuffle=True), make(shuffle=True), make(shuffle=True, seed=1)
    first, second = order(one), order(one)
    assert first != second
    assert (order(same), order(same)) == (first, second)
    assert order(other) not in (first, second)


def test_the_order_mixes_near_and_far():
    n = 60_000
    got = np.array(order(make(np.arange(n), global_batch_size=4096, shuffle=True)))
    for lag in (1, 2, 4, 64, 256):
        assert abs(np.corrcoef(got[:-lag], got[lag:])[0, 1]) < 5 / np.sqrt(n)
    # As many of each half in every block as chance has it: a variance of 128 / 4.
    halves = (got[: n // 128 * 128].reshape(-1, 128) < n // 2).sum(1)
    assert 24 < halves.var() < 41


# Resuming.


@given(epoch=st.integers(0, 2**40), step=st.integers(0, 4))
@settings(max_examples=6, deadline=None)
def test_seek_goes_on_where_the_epoch_would_have(epoch, step):
    straight, resumed = make(shuffle=True), make(shuffle=True)
    straight.seek(epoch)
    whole, following = batches(straight), batches(straight)
    resumed.seek(epoch, step)
    rest = batches(resumed, 5 - step)
    assert [b.tolist() for b in rest] == [b.tolist() for b in whole[step:]]
    assert [b.tolist() for b in batches(resumed)] == [b.tolist() for b in following]


def test_after_seek_the_cardinality_stays_and_the_epoch_wraps_around():
    dataset = make()
    dataset.seek(0, 3)
    assert [b[0] for b in dataset.as_numpy_iterator()] == [48, 64, 0, 16, 32]
    assert [b[0] for b in dataset.as_numpy_iterator()] == [0, 16, 32, 48, 64]


def test_seek_equals_the_epochs_of_an_uninterrupted_run():
    run = make(shuffle=True)
    epochs = [order(run) for _ in range(3)]
    resumed = make(shuffle=True)
    resumed.seek(2)
    assert order(resumed) == epochs[2]


@pytest.mark.parametrize(("epoch", "step"), [(-1, 0), (0, -1), (0, 5)])
def test_seek_refuses_what_is_not_there(epoch, step):
    with pytest.raises(ValueError, match="expected 0"):
        make().seek(epoch, step)


# Under strategies and in fit.


def test_under_a_strategy_replicas_share_each_batch():
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    with strategy.scope():
        dataset = make(shuffle=True)
    alone = make(shuffle=True)
    distributed = strategy.experimental_distribute_dataset(dataset)
    for _ in range(2):
        got = [
            np.concatenate([t.numpy() for t in strategy.experimental_local_results(b)])
            for b in distributed
        ]
        assert [b.tolist() for b in got] == [b.tolist() for b in batches(alone)]


class Recorder(keras.Model):
    """Its weights are the ids that it was trained on, in order."""

    def __init__(self, size):
        super().__init__()
        self.seen = self.add_weight(shape=(size,), initializer="zeros", trainable=False)
        self.count = self.add_weight(shape=(), dtype="int32", initializer="zeros", trainable=False)
        self.scale = self.add_weight(shape=(), initializer="ones")

    def call(self, x):
        ids = tf.cast(tf.reshape(x, [-1]), tf.float32)
        start = tf.convert_to_tensor(self.count.value)
        where = tf.range(start, start + tf.size(ids))[:, None]
        self.seen.assign(tf.tensor_scatter_nd_update(self.seen.value, where, ids))
        self.count.assign_add(tf.size(ids))
        return ids[:, None] * self.scale


def fit_order(*arguments, epochs, **options):
    model = Recorder(N * epochs)
    model.compile(optimizer=keras.optimizers.SGD(0.0), loss="mse")
    model.fit(*arguments, epochs=epochs, verbose=0, **options)
    assert int(model.count) == N * epochs
    return model.seen.numpy().astype(int).reshape(epochs, N).tolist()


@pytest.mark.parametrize("seed", [0, 7])
def test_keras_order_is_what_fit_on_arrays_sees(seed):
    x = np.arange(N)
    keras.utils.set_random_seed(seed)
    seen = fit_order(x, x, epochs=3, batch_size=16, shuffle=True)
    dataset = make(order="keras", shuffle=True, seed=seed)
    assert [order(dataset) for _ in range(3)] == seen
    assert seen[0] != sorted(seen[0])


def test_keras_order_takes_the_seed_and_not_the_processes():
    keras.utils.set_random_seed(3)
    before = order(make(order="keras", shuffle=True, seed=0))
    after = tf.random.uniform([])
    keras.utils.set_random_seed(3)
    assert tf.random.uniform([]) == after  # Nothing was drawn from, or done to, the global state.
    assert order(make(order="keras", shuffle=True, seed=0)) == before
    assert order(make(order="keras", shuffle=True, seed=3)) != before


def test_keras_order_can_be_sought_too():
    dataset = make(order="keras", shuffle=True)
    whole = batches(dataset)
    dataset.seek(5, 3)
    assert [b.tolist() for b in batches(dataset, 2)] == [b.tolist() for b in whole[3:]]


def test_fit_takes_it_and_goes_through_the_epochs():
    # fit makes its own iterators: one batch to build the model, then one iterator an epoch.
    x = np.arange(N, dtype=np.float32)
    dataset = make(x, x, shuffle=True)
    seen = fit_order(dataset, epochs=2, shuffle=False)
    epochs = make(shuffle=True)
    expected = [order(epochs) for _ in range(4)]
    assert seen[0] in expected and seen[1] == expected[expected.index(seen[0]) + 1]


# Weights.


def test_sample_weights_travel_with_their_examples():
    weights = np.random.default_rng(0).random(N)
    dataset = make(y=np.arange(N), sample_weight=weights, shuffle=True)
    for x, y, w in batches(dataset):
        np.testing.assert_array_equal(x, y)
        np.testing.assert_array_equal(w, weights.astype(np.float32)[x])


@pytest.mark.parametrize(
    "form",
    [
        lambda y: y,
        lambda y: y[:, None],
        lambda y: np.eye(4, dtype=np.float32)[y],
        lambda y: y.astype(np.float32),
    ],
)
def test_class_weights_are_those_of_keras(form):
    from keras.src.trainers.data_adapters import data_adapter_utils

    y = form(np.arange(N) % 4)
    class_weight = {0: 0.1, 2: 3.0}
    got = np.concatenate([b[2] for b in batches(make(y=y, class_weight=class_weight))])
    expected = data_adapter_utils.class_weight_to_sample_weights(y, class_weight)
    np.testing.assert_array_equal(got, expected)
    assert got.dtype == expected.dtype and got[1] == 1.0


def test_one_sample_weight_serves_every_output():
    w = np.arange(N, dtype=np.float32)
    dataset = make(y={"a": np.zeros(N), "b": np.zeros(N)}, sample_weight=w)
    _, _, got = batches(dataset, 1)[0]
    np.testing.assert_array_equal(got["a"], w[:16])
    np.testing.assert_array_equal(got["b"], w[:16])


# Augmentation.


def noise(x, seed):
    return x + tf.random.stateless_uniform(tf.shape(x), seed)


def test_augmentation_depends_on_seed_epoch_and_step_alone():
    x = np.zeros((N, 3))
    one = make(x, augment=noise, seed=5)
    epochs = [batches(one), batches(one)]
    flat = [b.tobytes() for epoch in epochs for b in epoch]
    assert len(set(flat)) == 10
    again = make(x, augment=noise, seed=5)
    again.seek(1, 3)
    np.testing.assert_array_equal(batches(again, 1)[0], epochs[1][3])
    assert (batches(make(x, augment=noise, seed=6), 1)[0] != epochs[0][0]).any()


def test_augmentation_sees_scaled_pixels():
    def check(x, seed):
        assert x.dtype == tf.float32 and x.shape.as_list() == [None, 4, 4, 1]
        return tf.image.stateless_random_flip_left_right(x, seed)

    got = batches(make(images(shape=(4, 4)), augment=check), 1)[0]
    assert 0.5 < got.max() <= 1.0


# Validation split.


@pytest.mark.parametrize("fraction", [0.1, 1 / 3, 0.5, 0.9])
def test_validation_split_is_that_of_keras(fraction):
    from keras.src.trainers.data_adapters import array_slicing

    arrays = (np.arange(N), np.arange(N) * 2, None)
    got = pipeline.train_validation_split(arrays, fraction)
    expected = array_slicing.train_validation_split(arrays, fraction)
    for part, want in zip(got, expected, strict=True):
        assert part[2] is None
        np.testing.assert_array_equal(part[0], want[0])
        np.testing.assert_array_equal(part[1], want[1])


@pytest.mark.parametrize("fraction", [0, 1, -0.5, 0.99, 1e-20])
def test_validation_split_refuses_what_leaves_nothing(fraction):
    with pytest.raises(ValueError, match="validation_split"):
        pipeline.train_validation_split(np.arange(10), fraction)


# Wrong input: one line each, with the value, the legal ones and the cure.


@pytest.mark.parametrize(
    ("words", "options"),
    [
        ("global_batch_size: expected an integer of 1 or more, got 0", {"global_batch_size": 0}),
        ("got -3", {"global_batch_size": -3}),
        ("got 2.5", {"global_batch_size": 2.5}),
        ("at most 70", {"global_batch_size": 71, "drop_remainder": True}),
        ("x has 70, y has 69", {"y": np.zeros(69)}),
        ("sample_weight has 3", {"y": np.zeros(N), "sample_weight": np.ones(3)}),
        ("x has 69 and 70", {"x": [np.zeros(N), np.zeros(69)]}),
        ("expected 0 to 9, got 10 at index 69", {"y": np.r_[np.zeros(69, int), 10]}),
        ("got -1 at index 0", {"y": np.r_[-1, np.zeros(69, int)]}),
        ("expected integers 0 to 9, got float32", {"y": np.zeros(N)}),
        (r"expected shape \(n,\), got \(70, 10\)", {"y": np.zeros((N, 10), int)}),
        ("at least one example", {"x": np.zeros((0, 3))}),
        ("expected one of stateless, keras, got 'sorted'", {"order": "sorted"}),
        ("pass y", {"num_classes": 3, "y": None}),
        ("got both", {"y": np.zeros(N), "sample_weight": np.ones(N), "class_weight": {0: 1.0}}),
        ("single output", {"y": [np.zeros(N)], "class_weight": {0: 1.0}}),
        ("each of the outputs", {"y": [np.zeros(N, int)], "num_classes": 10}),
        ("one row an example", {"x": np.float32(3)}),
    ],
)
def test_wrong_input_is_a_one_line_error(words, options):
    if "expected 0 to 9" in words or "integers 0" in words or "shape" in words or "-1" in words:
        options = {**options, "num_classes": 10}
    with pytest.raises(ValueError, match=words) as caught:
        make(**options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("order", pipeline.ORDERS)
def test_resident_batches_are_those_of_the_data_set_in_all_bits(order):
    x = np.random.default_rng(0).integers(0, 256, (23, 5, 4), dtype=np.uint8)
    y = np.arange(23) % 3
    weight = np.linspace(0, 1, 23, dtype="float32")

    def augment(batch, seed):
        return batch + tf.random.stateless_uniform(tf.shape(batch), seed)

    dataset = pipeline.make_dataset(
        x,
        y,
        global_batch_size=4,
        num_classes=3,
        shuffle=True,
        order=order,
        sample_weight=weight,
        augment=augment,
    )
    dataset.seek(1)
    expected = list(dataset)

    @tf.function
    def batch_at(offset):
        return dataset.resident.reader()(offset)

    for start in (0, 3):
        dataset.resident.seek(1, start)
        for step in range(start, 6):
            actual = batch_at(tf.constant(step - start))
            for a, b in zip(actual, expected[step], strict=True):
                np.testing.assert_array_equal(a.numpy(), b.numpy())
    dataset.resident.seek(1, 3)
    dataset.resident.advance(tf.constant(2))
    np.testing.assert_array_equal(batch_at(tf.constant(0))[0].numpy(), expected[5][0].numpy())
    # Beyond the end there is the last batch: the loop prepares one that nobody takes.
    np.testing.assert_array_equal(batch_at(tf.constant(9))[0].numpy(), expected[5][0].numpy())
