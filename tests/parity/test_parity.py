"""The promise: the engine and fit give the same bits, in every weight, slot and log."""

import functools

import keras
import pytest
import tensorflow as tf

from gradloop import engine
from tests.parity import nets

EPOCHS = 2


def compare(
    make_state, make_dataset, *, strategy=None, class_weight=None, validates=False, **config
):
    config = {"epochs": EPOCHS, "steps_per_execution": 4} | config
    return engine.compare_with_fit(
        make_state,
        make_dataset,
        engine.TrainConfig(**config),
        make_validation_data=make_dataset if validates else None,
        strategy=strategy,
        class_weight=class_weight,
    )


def assert_same_bits(comparison):
    """Equal in all bits, and not because nothing happened."""
    assert comparison.is_equal, comparison.to_table()
    kernels = [
        v for v in comparison.variables if v.name.startswith("model/") and "kernel" in v.name
    ]
    assert kernels, comparison.to_table()
    assert all(v.has_moved for v in kernels), comparison.to_table()
    assert len(comparison.engine_history["loss"]) == EPOCHS
    assert comparison.engine_history["loss"][0] != comparison.engine_history["loss"][1]


def mirrored():
    return engine.make_strategy(engine.TrainConfig(strategy="mirrored", num_replicas=2))


STRATEGIES = {"one_device": tf.distribute.get_strategy, "two_replicas": mirrored}


@pytest.fixture(params=STRATEGIES)
def strategy(request):
    return STRATEGIES[request.param]()


@pytest.mark.parametrize("name", ["dense", "cnn", "lstm"])
def test_tutorial_models(name):
    make_state = functools.partial(nets.registered_net, name)
    comparison = compare(make_state, nets.image_data, validates=True)
    assert_same_bits(comparison)
    assert len(comparison.engine_history["val_accuracy"]) == EPOCHS


def test_convolutions_on_two_replicas():
    make_state = functools.partial(nets.registered_net, "cnn")
    assert_same_bits(compare(make_state, nets.image_data, strategy=mirrored()))


def test_batch_norm_dropout_l2_and_add_loss(strategy):
    comparison = compare(nets.stateful_net, nets.small_data, strategy=strategy, validates=True)
    assert_same_bits(comparison)
    assert len(comparison.engine_history["val_loss"]) == EPOCHS


def test_two_inputs_and_two_outputs(strategy):
    assert_same_bits(compare(nets.two_in_two_out_net, nets.two_in_two_out_data, strategy=strategy))


def decaying():
    return keras.optimizers.schedules.ExponentialDecay(0.02, decay_steps=3, decay_rate=0.7)


OPTIMIZERS = {
    "sgd_momentum": lambda: keras.optimizers.SGD(0.05, momentum=0.9, nesterov=True),
    "rmsprop": lambda: keras.optimizers.RMSprop(0.01, momentum=0.5, centered=True),
    "adam_clipnorm": lambda: keras.optimizers.Adam(0.01, clipnorm=0.05),
    "adam_global_clipnorm": lambda: keras.optimizers.Adam(0.01, global_clipnorm=0.05),
    "adam_clipvalue": lambda: keras.optimizers.Adam(0.01, clipvalue=0.01),
    "adamw_decay_schedule_ema": lambda: keras.optimizers.AdamW(
        decaying(), weight_decay=0.1, use_ema=True, ema_momentum=0.9
    ),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers(name):
    assert_same_bits(compare(lambda: nets.small_net(OPTIMIZERS[name]()), nets.small_data))


@pytest.mark.parametrize("name", ["adam_global_clipnorm", "adamw_decay_schedule_ema"])
def test_optimizers_on_two_replicas(name):
    assert_same_bits(
        compare(lambda: nets.small_net(OPTIMIZERS[name]()), nets.small_data, strategy=mirrored())
    )


def test_sample_weights(strategy):
    make_state = functools.partial(nets.small_net, weighted_metrics=["accuracy"])
    make_dataset = functools.partial(nets.small_data, weighted=True)
    assert_same_bits(compare(make_state, make_dataset, strategy=strategy))


def test_class_weights(strategy):
    comparison = compare(
        nets.small_net, nets.small_data, strategy=strategy, class_weight={0: 0.2, 4: 5.0}
    )
    assert_same_bits(comparison)
    unweighted = compare(nets.small_net, nets.small_data, strategy=strategy)
    assert comparison.engine_history["loss"] != unweighted.engine_history["loss"]


@pytest.mark.parametrize("steps_per_execution", [1, 4, 32, 3, "auto"])
def test_steps_per_execution(steps_per_execution):
    # 7 steps an epoch, the last of 4 examples instead of 16: 4 and 3 do not divide, 32 is beyond.
    assert_same_bits(
        compare(nets.stateful_net, nets.small_data, steps_per_execution=steps_per_execution)
    )


def test_steps_per_epoch_below_the_dataset(strategy):
    # The second epoch goes on where the first one stopped.
    assert_same_bits(compare(nets.small_net, nets.small_data, strategy=strategy, steps_per_epoch=3))


@pytest.mark.filterwarnings("ignore:The data ended after:UserWarning")
@pytest.mark.filterwarnings("ignore:Your input ran out of data:UserWarning")
def test_steps_per_epoch_beyond_the_dataset():
    assert_same_bits(compare(nets.small_net, nets.small_data, steps_per_epoch=9))


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision(policy, strategy):
    keras.config.set_dtype_policy(policy)
    comparison = compare(nets.stateful_net, nets.small_data, strategy=strategy)
    assert_same_bits(comparison)
    has_loss_scale = any("dynamic_scale" in v.name for v in comparison.variables)
    assert has_loss_scale == (policy == "mixed_float16")


def test_jit_compile_on_both_sides():
    comparison = compare(nets.stateful_net, nets.small_data, jit_compile=True)
    assert_same_bits(comparison)
    assert "equal to fit(jit_compile=True): " in comparison.to_table()


def test_many_steps_in_one_program_of_xla():
    """They have the bits of fit's compiled steps, and not those of fit."""
    from gradloop.data import pipeline

    def make_dataset():
        x, y = nets.arrays(nets.NUM_FEATURES), nets.labels()
        return pipeline.make_dataset(x, y, global_batch_size=16, shuffle=True, seed=7)

    xla = {"jit_compile": True, "jit_scope": "loop"}
    assert_same_bits(compare(nets.stateful_net, make_dataset, **xla))


def test_reshuffled_pipeline(strategy):
    """The pipeline's own order, another one each epoch, under both loops."""
    from gradloop.data import pipeline

    def make_dataset():
        return pipeline.make_dataset(
            nets.arrays(nets.NUM_FEATURES),
            nets.labels(),
            global_batch_size=16,
            shuffle=True,
            seed=7,
        )

    assert_same_bits(compare(nets.small_net, make_dataset, strategy=strategy))


def test_reshuffled_dataset(strategy):
    """`shuffle` draws a new order for each iterator: the engine makes as many of them as fit."""

    def make_dataset():
        return nets.small_data().unbatch().shuffle(100, seed=3).batch(16)

    known = tf.data.experimental.assert_cardinality(7)
    assert_same_bits(
        compare(nets.small_net, lambda: make_dataset().apply(known), strategy=strategy)
    )


def test_sparse_gradients(strategy):
    """An embedding's gradient has as many rows as the batch has examples."""

    def make_dataset():
        return nets.batches(nets.labels(9), nets.labels())

    def make_state():
        model = keras.Sequential(
            [
                keras.Input((), dtype="int64"),
                keras.layers.Embedding(9, 6, name="kernels"),
                keras.layers.Dense(nets.NUM_CLASSES, activation="softmax"),
            ]
        )
        loss = keras.losses.SparseCategoricalCrossentropy()
        return engine.TrainState(model, keras.optimizers.SGD(0.1, momentum=0.9), loss=loss)

    assert_same_bits(compare(make_state, make_dataset, strategy=strategy))


class TestFaults:
    """The suite fails when the engine is wrong: each planted fault must be found and named."""

    def test_loss_divided_by_the_number_of_replicas_once_more(self, monkeypatch):
        right = engine.TrainState.compute_loss

        def wrong(self, *args, **kwargs):
            return right(self, *args, **kwargs) / self.strategy.num_replicas_in_sync

        monkeypatch.setattr(engine.TrainState, "compute_loss", wrong)
        comparison = compare(
            lambda: nets.small_net(keras.optimizers.SGD(0.1)), nets.small_data, strategy=mirrored()
        )
        with pytest.raises(AssertionError, match="first at step 1, in model/"):
            assert_same_bits(comparison)

    def test_metric_not_reset(self, monkeypatch):
        monkeypatch.setattr(engine.TrainState, "reset_metrics", lambda self: None)
        comparison = compare(nets.small_net, nets.small_data)
        with pytest.raises(AssertionError, match="but not the logs of accuracy, loss"):
            assert_same_bits(comparison)

    def test_a_run_that_trains_nothing_is_not_equal(self):
        comparison = compare(lambda: nets.small_net(keras.optimizers.SGD(0.0)), nets.small_data)
        assert comparison.is_equal
        with pytest.raises(AssertionError):
            assert_same_bits(comparison)
