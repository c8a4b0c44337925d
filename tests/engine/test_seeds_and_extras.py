"""What a custom step draws, and what else it uses: seeds that resume, extras of any structure."""

import keras
import pytest
import tensorflow as tf

from gradloop import engine
from gradloop.data import pipeline
from tests.engine.test_step_pieces import (
    REPLICAS,
    assert_equal,
    batches,
    data,
    fit,
    make_state,
    values,
)

__all__ = ["data"]  # the fixture


# Seeds.


def drawing(state, batch):
    first, second = (tf.random.stateless_uniform([], seed=state.seed()) for _ in range(2))
    state.minimize(lambda: state.mean(state.model(batch[0])) * first)
    return {"first": first, "second": second, "last": engine.last(first)}


@REPLICAS
def test_each_call_step_and_replica_has_its_seed(data, num_replicas):
    seen = []

    def step(state, batch):
        seeds = [state.seed(), state.seed()]
        tf.numpy_function(lambda *s: seen.extend(map(tuple, s)), seeds, [])
        state.minimize(lambda: state.mean(state.model(batch[0])))

    fit(make_state(num_replicas), data, step, epochs=2)
    assert len(seen) == 2 * 2 * 6 * num_replicas
    assert len(set(seen)) == len(seen)


def test_seeds_depend_on_the_seed_of_the_run(data):
    def draw(seed):
        state = make_state()
        keras.utils.set_random_seed(seed)
        return fit(state, data, drawing).history

    assert draw(3) == draw(3)
    assert draw(3)["first"] != draw(4)["first"]


@REPLICAS
def test_a_resumed_run_takes_the_same_seeds(data, tmp_path, num_replicas):
    class Stop(engine.Hook):
        every_steps = 4

        def on_save_point(self, info):
            engine.save_checkpoint(tmp_path, info.state)
            info.request_stop("enough", immediately=True)

    dataset = pipeline.make_dataset(*data, global_batch_size=4, shuffle=True)
    config = engine.TrainConfig(epochs=2)
    whole = make_state(num_replicas)
    history = engine.fit(whole, dataset, config, train_step=drawing)
    engine.fit(make_state(num_replicas), dataset, config, hooks=[Stop()], train_step=drawing)
    state = make_state(num_replicas)
    keras.utils.set_random_seed(99)  # the seed is the checkpoint's
    state.build(dataset.element_spec)
    engine.restore_checkpoint(tmp_path, state)
    resumed = engine.fit(state, dataset, config, train_step=drawing, resume=True)
    assert resumed.history == history.history
    assert_equal(values(state), values(whole))


# Extras.


def test_extras_may_be_dicts_and_lists(data, tmp_path):
    def make():
        critics = [keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)]) for _ in range(2)]
        optimizers = {str(i): keras.optimizers.SGD(0.1) for i in range(2)}
        for critic, optimizer in zip(critics, optimizers.values(), strict=True):
            optimizer.build(critic.trainable_variables)
        return make_state(extras={"critics": critics, "of": {"critics": optimizers}})

    def step(state, batch):
        x, y = batch
        for index, critic in enumerate(state.extras["critics"]):
            state.minimize(
                lambda critic=critic: state.mean((y - critic(x)) ** 2),
                critic.trainable_variables,
                optimizer=state.extras["of"]["critics"][str(index)],
            )

    keras.utils.clear_session()
    state = make()
    fit(state, data, step)
    names = [name for name, _ in state.named_variables()]
    for owner in ("critics/0/", "critics/1/", "of/critics/0/", "of/critics/1/"):
        assert any(name.startswith(owner) for name in names), owner
    engine.save_checkpoint(tmp_path / "c.npz", state)
    keras.utils.clear_session()
    other = make()
    other.build(batches(data).element_spec)
    engine.restore_checkpoint(tmp_path / "c.npz", other)
    assert_equal(values(other), values(state))


@pytest.mark.parametrize(
    ("extras", "name"),
    [({"nets": [3]}, "nets/0"), ({"a": {"b": [keras.optimizers.SGD()]}}, "a/b/0")],
)
def test_an_extra_at_any_depth_is_checked(extras, name):
    with pytest.raises(ValueError, match=name):
        make_state(extras=extras)
