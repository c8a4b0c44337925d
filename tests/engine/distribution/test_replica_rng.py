"""replica_rng: the dropout masks of replicas are alike, as in fit, or each has its own."""

import keras
import tensorflow as tf

from gradloop import engine
from tests.engine.nets import (
    build_model,
    compile_arguments,
    make_config,
    make_pipeline,
    make_state,
    mirrored,
)
from tests.engine.observers import StopAfter

WIDTH = 16


def mask_step(state, batch):
    """Trains, and logs each replica's dropout mask for the same ones, as a number."""
    logs = engine.train_step(state, batch)
    kept = tf.cast(state.extras["dropout"](tf.ones([WIDTH]), training=True) > 0, tf.float32)
    code = tf.reduce_sum(kept * 2.0 ** tf.range(WIDTH, dtype=tf.float32))
    replica = tf.distribute.get_replica_context().replica_id_in_sync_group
    of_each = tf.one_hot(replica, 2) * code * 2  # logs are the mean over two replicas
    return {**logs, "first": engine.last(of_each[0]), "second": engine.last(of_each[1])}


def make_masked(strategy=None):
    strategy = strategy or mirrored()
    keras.utils.clear_session(free_memory=False)  # for the same names
    with strategy.scope():
        model = build_model()
        dropout = keras.layers.Dropout(0.5, seed=5)
        return engine.TrainState(model, **compile_arguments(), extras={"dropout": dropout})


def train(state, dataset, *hooks, resume=False, **fields):
    config = make_config(epochs=4, steps_per_epoch=1, **fields)
    return engine.fit(state, dataset, config, train_step=mask_step, hooks=hooks, resume=resume)


def masks(history):
    return list(zip(history.history["first"], history.history["second"], strict=True))


def test_replicas_draw_the_same_masks_or_each_its_own(dataset):
    same = masks(train(make_masked(), dataset))
    assert all(first == second > 0 for first, second in same)
    distinct = masks(train(make_masked(), dataset, replica_rng="distinct"))
    assert len({mask for pair in distinct for mask in pair}) == 8


def test_a_step_that_runs_eagerly_draws_the_masks_of_the_compiled_one(dataset):
    expected = masks(train(make_masked(), dataset, replica_rng="distinct"))
    found = train(make_masked(), dataset, replica_rng="distinct", run_eagerly=True)
    assert masks(found) == expected


def test_the_state_of_generators_is_alike_on_all_replicas_and_that_of_fit(dataset):
    states = {}
    for value in ("same", "distinct"):
        state = make_masked()
        train(state, dataset, replica_rng=value)
        named = {n: v for n, v in state.named_variables() if "seed_generator" in n}
        assert len(named) == 2
        values = {n: state.values_to_save(v) for n, v in named.items()}
        assert all(len(copies) == 1 for copies in values.values())
        states[value] = {n: copies[0].tolist() for n, copies in values.items()}
    assert states["same"] == states["distinct"]


def test_a_run_that_is_resumed_has_the_bits_of_one_that_never_stopped(arrays, tmp_path):
    dataset = make_pipeline(arrays)
    whole = make_masked()
    expected = train(whole, dataset, replica_rng="distinct")
    state = make_masked()
    save = engine.SaveCheckpoint(tmp_path)
    train(state, dataset, StopAfter(2), save, replica_rng="distinct")
    state = make_masked()
    state.build(dataset.element_spec)
    engine.restore_checkpoint(tmp_path, state)
    found = train(state, dataset, resume=True, replica_rng="distinct")
    assert masks(found) == masks(expected)
    assert state.weights_sha256() == whole.weights_sha256()


def test_one_replica_has_the_numbers_of_fit(dataset):
    digests = set()
    for value in ("same", "distinct"):
        keras.utils.clear_session(free_memory=False)
        state = make_state()
        engine.fit(state, dataset, make_config(replica_rng=value))
        digests.add(state.weights_sha256())
    assert len(digests) == 1
