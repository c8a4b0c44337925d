"""What fit takes, the engine takes, with the same bits: arrays, PyDataset, generators, and more."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradloop import engine
from gradloop.data import pipeline

RNG = np.random.default_rng(0)
X = RNG.normal(size=(50, 4)).astype("float32")
Y = RNG.integers(0, 3, 50)
WEIGHTS = RNG.uniform(size=50).astype("float32")


class Batches(keras.utils.PyDataset):
    """Seven batches of eight, and two; another order each epoch."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.order = np.arange(50)

    def __len__(self):
        return 7

    def __getitem__(self, index):
        rows = self.order[index * 8 : index * 8 + 8]
        return X[rows], Y[rows], WEIGHTS[rows]

    def on_epoch_end(self):
        np.random.RandomState(self.order[0]).shuffle(self.order)


def endless():
    while True:
        for start in range(0, 48, 8):
            yield X[start : start + 8], Y[start : start + 8]


def as_dataset():
    return tf.data.Dataset.from_tensor_slices((X, Y)).batch(8)


def shuffled():
    return tf.data.Dataset.from_tensor_slices((X, Y)).shuffle(50, seed=3).batch(8)


def as_one_hot():
    return as_dataset().map(lambda x, y: (x, tf.one_hot(y, 3)))


def words():
    return np.array(["a b", "c"])[np.arange(50) % 2].astype(object)


CASES = {
    "arrays": (lambda: X, {"y": Y}, {"epochs": 2}),
    "weighted": (lambda: X, {"y": Y, "sample_weight": WEIGHTS}, {"epochs": 2, "batch_size": 8}),
    "split": (lambda: X, {"y": Y}, {"epochs": 3, "validation_split": 0.25, "batch_size": 8}),
    "in order": (
        lambda: X, {"y": Y},
        {"epochs": 2, "shuffle": False, "validation_data": (X, Y, WEIGHTS)},
    ),
    "class weights": (lambda: X, {"y": Y}, {"epochs": 2, "class_weight": {0: 2.0, 1: 0.5}}),
    "steps": (lambda: X, {"y": Y}, {"epochs": 3, "steps_per_epoch": 3, "batch_size": 8}),
    "steps without a size": (lambda: X, {"y": Y}, {"epochs": 2, "steps_per_epoch": 5}),
    "validation without a size": (
        lambda: X, {"y": Y}, {"epochs": 2, "validation_data": (X, Y), "validation_steps": 4},
    ),
    "pydataset": (Batches, {}, {"epochs": 3}),
    "validation of a pydataset": (
        lambda: X, {"y": Y},
        {"epochs": 3, "validation_data": Batches, "validation_steps": 3, "batch_size": 8},
    ),
    "some shuffled validation": (
        lambda: X, {"y": Y},
        {"epochs": 3, "shuffle": False, "validation_data": shuffled, "validation_steps": 3},
    ),
    "all shuffled validation": (
        lambda: X, {"y": Y},
        {"epochs": 3, "shuffle": False, "validation_data": shuffled, "validation_steps": 7},
    ),
    "workers": (lambda: Batches(workers=2), {}, {"epochs": 2}),
    "generator": (endless, {}, {"epochs": 3, "steps_per_epoch": 4}),
    "dataset": (as_dataset, {}, {"epochs": 2, "class_weight": {0: 2.0, 1: 0.5, 2: 1.0}}),
    "one-hot dataset": (
        as_one_hot, {},
        {
            "epochs": 2, "class_weight": {0: 2.0, 1: 0.5, 2: 1.0},
            "loss": "categorical_crossentropy",
        },
    ),
    "tensors": (lambda: tf.constant(X), {"y": tf.constant(Y)}, {"epochs": 2}),
    "float64": (lambda: X.astype("float64"), {"y": Y}, {"epochs": 2}),
    "masked": (lambda: np.ma.array(X), {"y": Y}, {"epochs": 2}),
    "true or false": (lambda: X > 0, {"y": Y}, {"epochs": 2}),
    "sparse": (lambda: tf.sparse.from_dense(X * (X > 0)), {"y": Y}, {"epochs": 2}),
}  # fmt: skip


def compiled(strategy, loss="sparse_categorical_crossentropy"):
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(1)
    with strategy.scope():
        model = keras.Sequential(
            [
                keras.Input([4]),
                keras.layers.Dense(8, activation="relu"),
                keras.layers.Dropout(0.3),
                keras.layers.Dense(3, activation="softmax"),
            ]
        )
        model.compile("adam", loss, metrics=["accuracy"])
    return model


def made(options):
    return {name: value() if callable(value) else value for name, value in options.items()}


def train_both(name, strategy):
    make_x, arrays, options = CASES[name]
    options = dict(options)
    loss = options.pop("loss", "sparse_categorical_crossentropy")
    theirs = compiled(strategy, loss)
    expected = theirs.fit(make_x(), **arrays, **made(options), verbose=0)
    ours = compiled(strategy, loss)
    before = ours.get_weights()
    fields = {"epochs", "steps_per_epoch", "validation_steps"}
    values = {k: v for k, v in options.items() if k in fields}
    config = engine.TrainConfig(global_batch_size=options.get("batch_size"), **values)
    rest = {k: v for k, v in options.items() if k not in fields | {"batch_size"}}
    with strategy.scope():
        state = engine.TrainState(ours)
    found = engine.fit(state, make_x(), config, **arrays, **made(rest))
    assert found.history == expected.history
    for one, other, start in zip(ours.weights, theirs.weights, before, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())
        assert not np.array_equal(one.numpy(), start)
    for one, other in zip(ours.optimizer.variables, theirs.optimizer.variables, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())


@pytest.mark.filterwarnings("ignore:`shuffle=True` was passed", "ignore:Your input ran out")
@pytest.mark.filterwarnings("ignore:The data ended after")
@pytest.mark.parametrize("name", CASES)
def test_inputs_on_one_device(name):
    train_both(name, tf.distribute.get_strategy())


@pytest.mark.filterwarnings("ignore:`shuffle=True` was passed", "ignore:Your input ran out")
@pytest.mark.filterwarnings("ignore:The data ended after")
@pytest.mark.parametrize(
    "name", ["in order", "dataset", "some shuffled validation", "all shuffled validation"]
)
def test_inputs_on_two_replicas(name):
    config = engine.TrainConfig(strategy="mirrored", num_replicas=2)
    train_both(name, engine.make_strategy(config))


@pytest.mark.parametrize("form", ["scipy", "pandas"])
def test_tables_of_other_libraries(form):
    library = pytest.importorskip(form + (".sparse" if form == "scipy" else ""))
    make = library.csr_matrix if form == "scipy" else library.DataFrame
    CASES[form] = lambda: make(X * (X > 0)), {"y": Y}, {"epochs": 2}
    train_both(form, tf.distribute.get_strategy())


@pytest.mark.parametrize("form", [words, lambda: tf.constant(words())])
def test_strings_go_to_a_model_that_reads_them(form):
    weights = []
    for train in (
        lambda model: model.fit(form(), Y, batch_size=8, shuffle=False, verbose=0),
        lambda model: engine.fit(
            engine.TrainState(model), form(), engine.TrainConfig(global_batch_size=8), y=Y,
            shuffle=False,
        ),
        lambda model: engine.fit(
            engine.TrainState(model), pipeline.make_dataset(form(), Y, global_batch_size=8),
            engine.TrainConfig(),
        ),
    ):  # fmt: skip
        keras.utils.clear_session(free_memory=False)
        keras.utils.set_random_seed(1)
        text = keras.Input((), dtype="string")
        ids = keras.layers.TextVectorization(vocabulary=["a", "b", "c"], output_sequence_length=2)
        rows = keras.layers.Flatten()(keras.layers.Embedding(6, 3)(ids(text)))
        model = keras.Model(text, keras.layers.Dense(3)(rows))
        model.compile("sgd", "sparse_categorical_crossentropy")
        train(model)
        weights.append(model.get_weights())
    for found in weights[1:]:
        for one, other in zip(found, weights[0], strict=True):
            np.testing.assert_array_equal(one, other)


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(3)

    def call(self, x):
        return self.dense(x)


def sequential():
    return keras.Sequential([keras.Input([4]), keras.layers.Dense(3)])


@pytest.mark.parametrize("build", [Subclassed, sequential])
@pytest.mark.parametrize("labels", [Y, Y[:, None]])
@pytest.mark.parametrize(
    "options", [{}, {"global_batch_size": 8}, {"strategy": "mirrored", "num_replicas": 2}]
)
def test_a_dataset_that_is_not_batched_is_told_to_be(build, labels, options):
    config = engine.TrainConfig(**options)
    with engine.make_strategy(config).scope():
        state = engine.TrainState(build(), "sgd", loss="sparse_categorical_crossentropy")
    examples = tf.data.Dataset.from_tensor_slices((X, labels))
    with pytest.raises(ValueError, match=r"call dataset\.batch\(batch_size\)") as caught:
        engine.fit(state, examples, config)
    assert "\n" not in str(caught.value)


def test_a_step_may_take_a_scalar_beside_the_examples():
    def step(state, batch):
        x, y, factor = batch
        with tf.GradientTape() as tape:
            loss = factor * state.compute_loss(x, y, state.call_model(x, training=True))
        state.apply_gradients(tape.gradient(loss, state.model.trainable_variables))

    state = engine.TrainState(sequential(), "sgd", loss="mse")
    dataset = tf.data.Dataset.from_tensor_slices((X[None], X[None, :, :3], [2.0]))
    engine.fit(state, dataset, engine.TrainConfig(), train_step=step)
    assert int(state.optimizer.iterations.numpy()) == 1


def test_a_distributed_dataset_is_taken_as_it_is():
    strategy = engine.make_strategy(engine.TrainConfig(strategy="mirrored", num_replicas=2))
    histories = []
    for distribute in (False, True):
        model = compiled(strategy)
        dataset = as_dataset().take(6)
        if distribute:
            dataset = strategy.experimental_distribute_dataset(dataset)
        with strategy.scope():
            state = engine.TrainState(model)
        histories.append(engine.fit(state, dataset, engine.TrainConfig(epochs=2)).history)
    assert histories[0] == histories[1]


def test_evaluate_and_predict_take_arrays():
    model = compiled(tf.distribute.get_strategy())
    state = engine.TrainState(model)
    config = engine.TrainConfig(global_batch_size=16)
    expected = model.evaluate(
        X, Y, sample_weight=WEIGHTS, batch_size=16, return_dict=True, verbose=0
    )
    assert engine.evaluate(state, X, config, y=Y, sample_weight=WEIGHTS) == expected
    np.testing.assert_array_equal(
        engine.predict(state, X, config), model.predict(X, batch_size=16, verbose=0)
    )
