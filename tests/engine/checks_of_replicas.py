"""Checks of the fields that say on what a run trains, and what several replicas do."""

import keras
import tensorflow as tf

from gradloop.engine.config import TrainConfig
from gradloop.engine.runtime import configure_runtime
from gradloop.engine.strategy import make_strategy
from tests.engine.field_checks import refuses, shows, train
from tests.engine.nets import build_dense, make_state, mirrored


@shows("strategy")
def strategy(name, arrays):
    for value, kind in (
        ("one_device", tf.distribute.OneDeviceStrategy),
        ("mirrored", tf.distribute.MirroredStrategy),
    ):
        made = make_strategy(TrainConfig(strategy=value))
        assert isinstance(made, kind)
        train(arrays, state=make_state(build_dense, strategy=made), strategy=value)
        message = f"strategy='{value}', but the state was created under no strategy"
        refuses(message, train, arrays, strategy=value)
    state = make_state(build_dense, strategy=mirrored())
    for value in ("default", "one_device"):
        message = f"strategy='{value}', but the state was created under MirroredStrategy"
        refuses(message, train, arrays, state=state, strategy=value)
    train(arrays, strategy="default")


@shows("replica_rng")
def replica_rng(name, arrays):
    """distribution/test_replica_rng.py shows the masks."""

    def weights(value):
        train(arrays, state=(state := make_state(strategy=mirrored())), replica_rng=value)
        return state.model.layers[0].kernel.numpy().tolist()

    assert weights("same") != weights("distinct")


@shows("sync_statistics")
def sync_statistics(name, arrays):
    """distribution/test_replica_statistics.py shows what they are."""

    def num_values(**fields):
        state = make_state(
            lambda: keras.Sequential([keras.layers.BatchNormalization(), *build_dense().layers]),
            strategy=mirrored(),
        )
        train(arrays, state=state, steps_per_epoch=6, **fields)
        return len(state.values_to_save(state.model.layers[0].moving_mean))

    assert (num_values(sync_statistics=True), num_values(sync_statistics=False)) == (1, 2)


@shows("clip")
def clip(name, arrays):
    """distribution/test_clipping.py has the numbers."""

    def clipped():
        return {
            "optimizer": keras.optimizers.SGD(0.1, clipnorm=0.05),
            "loss": "sparse_categorical_crossentropy",
        }

    def weights(value):
        train(arrays, state=(state := make_state(build_dense, clipped, mirrored())), clip=value)
        return state.model.layers[0].kernel.numpy().tolist()

    assert weights("global") != weights("replica")


@shows("uneven", "parity")
def uneven(name, arrays):
    """distribution/test_uneven.py has the numbers."""

    def weights(**fields):
        x, y = arrays[0][:17], arrays[1][:17]
        dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(4)  # a last batch of 1
        train(
            arrays, dataset, state=(state := make_state(build_dense, strategy=mirrored())), **fields
        )
        return state.model.layers[0].kernel.numpy().tolist()

    exact, as_in_fit = weights(), weights(parity="fit")
    assert exact != as_in_fit
    if name == "uneven":
        assert weights(uneven="fit") == as_in_fit
        assert weights(uneven="exact", parity="fit") == exact


@shows("num_replicas")
def num_replicas(name, arrays):
    state = make_state(build_dense, strategy=mirrored(2))
    assert state.strategy.num_replicas_in_sync == 2
    assert mirrored(3).num_replicas_in_sync == 3
    train(arrays, state=state, num_replicas=2)
    message = "num_replicas=3, but the strategy of the state has 2"
    refuses(message, train, arrays, state=state, num_replicas=3)
    refuses("num_replicas=2, but the strategy of the state has 1", train, arrays, num_replicas=2)


@shows("tf32")
def tf32(name, arrays):
    """test_gpus.py shows what is refused without a GPU."""
    is_enabled = tf.config.experimental.tensor_float_32_execution_enabled
    before = is_enabled()
    try:
        for value in (False, True):
            configure_runtime(TrainConfig(tf32=value))
            assert is_enabled() == value
            refuses("tf32=.* is not in effect", train, arrays, tf32=not value)
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(before)


@shows("all_reduce", "all_reduce_pack_mib")
def exchange(name, arrays):
    """test_reduction.py shows what they do."""
    value = {"all_reduce": "ring", "all_reduce_pack_mib": 2}[name]
    made = make_strategy(TrainConfig(strategy="mirrored", **{name: value}))
    assert made is not make_strategy(TrainConfig(strategy="mirrored"))
    train(arrays, state=make_state(build_dense, strategy=made), **{name: value})
    state = make_state(build_dense, strategy=mirrored())
    refuses(f"{name}={value}, but the strategy", train, arrays, state=state, **{name: value})
    refuses("there is one replica", TrainConfig, strategy="default", **{name: value})
