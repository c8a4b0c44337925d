import keras
import numpy as np
import pytest

from gradloop.models import cnn, cnn_lstm, dense, lstm, registry

MODELS = {"cnn": cnn, "cnn_lstm": cnn_lstm, "dense": dense, "lstm": lstm}

# Worked by hand. Dense: inputs * units + units. Conv: 3 * 3 * channels * filters + filters.
# LSTM: 4 gates, each of (features + units + 1) * units.
NUM_PARAMETERS = {
    # 784 * 512 + 512 = 401,920; 512 * 10 + 10 = 5,130
    "dense": 407_050,
    # 320; 9 * 32 * 64 + 64 = 18,496; 12 * 12 * 64 * 128 + 128 = 1,179,776; 1,290
    "cnn": 1_199_882,
    # 4 * (28 + 128 + 1) * 128 = 80,384; 1,290
    "lstm": 81_674,
    # 320; 13 columns * 32 = 416 features a row: 4 * (416 + 128 + 1) * 128 = 279,040; 1,290
    "cnn_lstm": 280_650,
}

PATHS = {
    "dense": ["hidden/kernel", "hidden/bias"],
    "cnn": [
        "conv1/kernel", "conv1/bias", "conv2/kernel", "conv2/bias", "hidden/kernel", "hidden/bias",
    ],
    "lstm": ["lstm/lstm_cell/kernel", "lstm/lstm_cell/recurrent_kernel", "lstm/lstm_cell/bias"],
    "cnn_lstm": [
        "conv/kernel", "conv/bias",
        "lstm/lstm_cell/kernel", "lstm/lstm_cell/recurrent_kernel", "lstm/lstm_cell/bias",
    ],
}  # fmt: skip

each_model = pytest.mark.parametrize("name", registry.names())


def _images(*shape, seed=0):
    return np.random.default_rng(seed).random(shape, "float32")


@each_model
def test_number_of_parameters(name):
    assert MODELS[name].build().count_params() == NUM_PARAMETERS[name]


@each_model
def test_output_is_a_distribution_over_the_classes(name):
    probabilities = MODELS[name].build()(_images(3, 28, 28, 1)).numpy()
    assert probabilities.shape == (3, 10)
    assert probabilities.min() >= 0
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-6)


@each_model
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_output_loss_and_weights_are_float32_under_mixed_precision(name, policy):
    keras.config.set_dtype_policy(policy)
    model = MODELS[name].build()
    probabilities = model(_images(2, 28, 28, 1))
    loss = registry.get(name).make_loss()(np.eye(10, dtype="float32")[:2], probabilities)
    assert probabilities.dtype == "float32"
    assert loss.dtype == "float32"
    assert {w.dtype for w in model.trainable_weights} == {"float32"}
    hidden = [layer.compute_dtype for layer in model.layers[1:-1]]
    assert set(hidden) == {policy.removeprefix("mixed_")}
    np.testing.assert_allclose(probabilities.numpy().sum(axis=1), 1, rtol=1e-6)


@each_model
def test_paths_of_weights(name):
    paths = [w.path for w in MODELS[name].build().trainable_weights]
    assert paths == [*PATHS[name], "probabilities/kernel", "probabilities/bias"]


@each_model
def test_paths_of_all_variables_are_unique_and_stable(name):
    """Checkpoints and digests name variables by path, the states of dropout's seeds included."""
    first = [(v.path, v.shape, v.dtype) for v in MODELS[name].build().variables]
    keras.utils.clear_session()
    second = [(v.path, v.shape, v.dtype) for v in MODELS[name].build().variables]
    assert first == second
    assert len({path for path, _, _ in first}) == len(first)


@each_model
def test_weights_follow_the_seed(name):
    def weights(seed):
        keras.utils.clear_session()
        keras.utils.set_random_seed(seed)
        return np.concatenate([w.ravel() for w in MODELS[name].build().get_weights()])

    np.testing.assert_array_equal(weights(1), weights(1))
    assert np.any(weights(1) != weights(2))


@each_model
def test_other_shapes_and_classes(name):
    probabilities = MODELS[name].build((32, 24, 3), num_classes=7)(_images(2, 32, 24, 3))
    assert probabilities.shape == (2, 7)


@pytest.mark.parametrize("input_shape", [(784,), (28, 28), (5, 4, 3, 2)])
def test_dense_takes_any_rank(input_shape):
    assert dense.build(input_shape)(_images(2, *input_shape)).shape == (2, 10)


def test_lstm_takes_sequences_of_features():
    model = lstm.build((7, 3), units=4)
    assert model(_images(2, 7, 3)).shape == (2, 10)
    assert model.get_layer("lstm").units == 4


def test_lstm_reads_rows_from_top_to_bottom():
    """The last row weighs on a state that earlier rows made: turning the image round changes it."""
    model = lstm.build()
    image = _images(1, 28, 28, 1)
    rows = model.get_layer("rows")(image).numpy()
    np.testing.assert_array_equal(rows[0], image[0, :, :, 0])
    assert np.any(model(image).numpy() != model(image[:, ::-1]).numpy())


def test_cnn_drops_out_in_training_only():
    model = cnn.build()
    images = _images(4, 28, 28, 1)
    np.testing.assert_array_equal(model(images).numpy(), model(images).numpy())
    assert np.any(model(images, training=True).numpy() != model(images).numpy())


def test_cnn_has_the_tutorials_layers():
    layers = [(type(layer).__name__, layer.name) for layer in cnn.build().layers]
    assert layers == [
        ("InputLayer", "image"), ("Conv2D", "conv1"), ("Conv2D", "conv2"), ("MaxPooling2D", "pool"),
        ("Dropout", "conv_dropout"), ("Flatten", "flatten"), ("Dense", "hidden"),
        ("Dropout", "dense_dropout"), ("Dense", "probabilities"),
    ]  # fmt: skip
    model = cnn.build()
    assert model.get_layer("conv_dropout").rate == 0.25
    assert model.get_layer("dense_dropout").rate == 0.5


@each_model
def test_hyperparameters_change_the_model(name):
    assert MODELS[name].build(units=8).count_params() < NUM_PARAMETERS[name]


@each_model
def test_an_update_moves_every_weight(name):
    recipe = registry.get(name)
    model = recipe.build()
    before = [w.copy() for w in model.get_weights()]
    model.compile(
        optimizer=recipe.make_optimizer(None),
        loss=recipe.make_loss(),
        metrics=recipe.make_metrics(),
    )
    labels = np.eye(10, dtype="float32")[np.arange(8)]
    logs = model.train_on_batch(_images(8, 28, 28, 1), labels, return_dict=True)
    assert set(logs) == {"loss", "accuracy"}
    pairs = zip(before, model.get_weights(), strict=True)
    assert all(np.any(old != new) for old, new in pairs)
