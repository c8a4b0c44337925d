"""on_nonfinite: a step with a gradient or loss that is not finite changes nothing, bit for bit."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradloop.engine.gradients import apply_gradients
from gradloop.engine.hooks import OnNonfinite
from gradloop.engine.loop import fit
from gradloop.engine.state import TrainState
from gradloop.engine.step import train_step
from gradloop.engine.step_function import make_train_function
from gradloop.engine.traced_step import operations_of
from gradloop.engine.variables import local_values
from tests.engine.nets import build_model, compile_arguments, make_config, mirrored

BATCH_SIZE, NUM_BATCHES = 4, 6
BAD_STEP = 3  # from 1


def batches(*, bad=(), without=()):
    """Batches by number from 1, of which some have an infinite feature in their last example."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(NUM_BATCHES, BATCH_SIZE, 4)).astype("float32")
    y = rng.integers(0, 3, (NUM_BATCHES, BATCH_SIZE))
    x[[n - 1 for n in bad], -1, 0] = np.inf
    kept = [n for n in range(NUM_BATCHES) if n + 1 not in without]
    dataset = tf.data.Dataset.from_tensor_slices((x[kept].reshape(-1, 4), y[kept].reshape(-1)))
    return dataset.batch(BATCH_SIZE)


def build_net():
    """With statistics, random numbers, a schedule, slots and a moving average of the weights."""
    keras.utils.set_random_seed(1)
    layers = [
        keras.layers.Dense(8),
        keras.layers.BatchNormalization(),
        keras.layers.Dropout(0.5),
        keras.layers.Dense(3, activation="softmax", dtype="float32"),
    ]
    return keras.Sequential([keras.Input((4,)), *layers])


def make_state(strategy=None):
    with (strategy or tf.distribute.get_strategy()).scope():
        rate = keras.optimizers.schedules.ExponentialDecay(0.1, 2, 0.5)
        optimizer = keras.optimizers.SGD(rate, momentum=0.9, use_ema=True, ema_momentum=0.5)
        return TrainState(
            build_net(), optimizer, loss="sparse_categorical_crossentropy", metrics=["accuracy"]
        )


def train(dataset, *, num_replicas=1, policy="float32", step=train_step, make=make_state, **fields):
    """Returns all variables after an execution, on each replica, and what the record says."""
    keras.utils.clear_session(free_memory=False)
    keras.config.set_dtype_policy(policy)
    state = make(mirrored(num_replicas) if num_replicas > 1 else None)
    state.build(dataset.element_spec)
    function = make_train_function(step, state, state.strategy, make_config(**fields))
    iterator = iter(state.strategy.experimental_distribute_dataset(dataset))
    function(iterator, tf.constant(NUM_BATCHES))
    assert not list(iterator)
    values = {
        name: [value.tobytes() for value in local_values(variable)]
        for name, variable in state.named_variables()
    }
    record = state.step_variables.record
    return values, None if record is None else record.parse(record.read())


WAYS = {
    "one device": {},
    "accumulated": {"gradient_accumulation_steps": 2},
    "eager": {"run_eagerly": True},
    "float16": {"policy": "mixed_float16"},
    "mirrored": {"num_replicas": 2},
}
SLOW = {
    "mirrored, accumulated": {"num_replicas": 2, "gradient_accumulation_steps": 2},
    "mirrored, float16": {"num_replicas": 2, "policy": "mixed_float16"},
    "XLA": {"jit_compile": True},
}


@pytest.mark.parametrize("way", [*WAYS, *(pytest.param(w, marks=pytest.mark.slow) for w in SLOW)])
def test_a_skipped_batch_was_never_there(way):
    found, left_out = train(batches(bad=[BAD_STEP]), on_nonfinite="skip", **(WAYS | SLOW)[way])
    expected, nothing = train(
        batches(without=[BAD_STEP]), on_nonfinite="skip", **(WAYS | SLOW)[way]
    )
    assert found == expected
    assert nothing.num_left_out == 0
    assert left_out[:3] == (NUM_BATCHES, 1, BAD_STEP)
    assert left_out.loss or "dense/kernel" in left_out.names[0]


@pytest.mark.parametrize(
    ("way", "action"),
    [
        ("one device", "stop"),
        ("accumulated", "rollback"),
        pytest.param("mirrored", "stop", marks=pytest.mark.slow),
        pytest.param("mirrored, accumulated", "rollback", marks=pytest.mark.slow),
    ],
)
def test_after_a_bad_step_nothing_changes_any_more(way, action):
    found, left_out = train(batches(bad=[BAD_STEP, 5]), on_nonfinite=action, **(WAYS | SLOW)[way])
    after = range(BAD_STEP, NUM_BATCHES + 1)
    expected, _ = train(batches(without=after), on_nonfinite=action, **(WAYS | SLOW)[way])
    assert found == expected
    assert left_out[:3] == (NUM_BATCHES, 1, BAD_STEP)


def test_each_bad_step_is_skipped_and_the_first_is_named():
    found, left_out = train(batches(bad=[2, 4, 5]), on_nonfinite="skip")
    expected, _ = train(batches(without=[2, 4, 5]), on_nonfinite="skip")
    assert found == expected
    assert left_out[:3] == (NUM_BATCHES, 3, 2)


def make_plain(strategy):
    """Without BatchNorm, whose gradient TensorFlow multiplies in another order before an update."""
    with (strategy or tf.distribute.get_strategy()).scope():
        return TrainState(build_model(), **compile_arguments())


@pytest.mark.parametrize("num_replicas", [1, 2])
def test_where_all_is_finite_the_bits_are_those_of_fit(num_replicas):
    options = {"num_replicas": num_replicas, "make": make_plain}
    found, left_out = train(batches(), on_nonfinite="skip", **options)
    expected, _ = train(batches(), **options)
    assert found == expected
    assert left_out == (NUM_BATCHES, 0, 0, False, [])


@pytest.mark.parametrize("action", [None, "off"])
def test_else_the_batch_is_trained_on(action):
    values, left_out = train(batches(bad=[BAD_STEP]), on_nonfinite=action)
    assert left_out is None
    kernel = next(v for name, v in values.items() if name.endswith("dense/kernel"))
    assert np.isnan(np.frombuffer(kernel[0], "float32")).any()


def make_scaled(strategy):
    """A scale that the first gradients overflow, and a loss that does not."""
    optimizer = keras.optimizers.LossScaleOptimizer(
        keras.optimizers.SGD(0.1), initial_scale=2.0**120, dynamic_growth_steps=2
    )
    loss = "sparse_categorical_crossentropy"
    return TrainState(build_net(), optimizer, loss=loss)


def test_a_scaled_gradient_that_overflows_is_left_to_the_loss_scale():
    dataset = batches().map(lambda x, y: (x * 1e4, y))
    found, left_out = train(dataset, policy="mixed_float16", make=make_scaled, on_nonfinite="skip")
    expected, _ = train(dataset, policy="mixed_float16", make=make_scaled)
    assert found == expected
    assert left_out.num_left_out == 0
    (scale,) = next(v for name, v in found.items() if name.endswith("dynamic_scale"))
    assert np.frombuffer(scale, "float32") < 2.0**120


def make_pair(strategy):
    """A model and a critic, each with its optimizer."""
    state = make_state(strategy)
    critic = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    optimizer = keras.optimizers.Adam(0.1)
    optimizer.build(critic.trainable_variables)
    return TrainState(state.model, extras={"critic": critic, "critic_optimizer": optimizer})


def two_updates(state, batch):
    """The second one alone sees the bad example."""
    x, _ = batch
    critic, finite = state.extras["critic"], tf.where(tf.math.is_finite(x), x, 0.0)
    loss = state.minimize(
        lambda: state.mean(critic(finite) ** 2), critic.trainable_variables,
        optimizer=state.extras["critic_optimizer"],
    )  # fmt: skip
    state.minimize(lambda: state.mean(state.call_model(x, training=True)[:, 0]))
    return {"critic_loss": loss}


def test_of_two_updates_the_bad_one_is_left_out_and_named():
    options = {"step": two_updates, "make": make_pair}
    found, left_out = train(batches(bad=[BAD_STEP]), on_nonfinite="skip", **options)
    expected, _ = train(batches(without=[BAD_STEP]), on_nonfinite="skip", **options)
    equal = {name for name in found if found[name] == expected[name]}
    own = {name for name in found if name.startswith(("model/", "optimizer/", "metrics/acc"))}
    assert own and own <= equal
    assert any(name.startswith("critic") for name in set(found) - equal)  # was made before
    assert left_out[:3] == (NUM_BATCHES, 1, BAD_STEP)
    assert not any("critic" in name for name in left_out.names)


def test_an_update_that_is_not_due_is_not_bad():
    def step(state, batch):
        x, _ = batch
        when = tf.reduce_all(tf.math.is_finite(x))
        return {"loss": state.minimize(lambda: state.mean(state.model(x)[:, 0]), when=when)}

    _, left_out = train(batches(bad=[BAD_STEP]), on_nonfinite="skip", step=step)
    assert left_out.num_left_out == 0


def test_a_loss_alone_can_be_bad():
    def step(state, batch):
        x, _ = batch
        is_bad = tf.logical_not(tf.reduce_all(tf.math.is_finite(x)))
        x = tf.where(tf.math.is_finite(x), x, 0.0)

        def loss():
            value = state.mean(state.model(x)[:, 0])
            return value + tf.where(is_bad, float("inf"), 0.0)

        return {"loss": state.minimize(loss)}

    _, left_out = train(batches(bad=[BAD_STEP]), on_nonfinite="skip", step=step)
    assert left_out == (NUM_BATCHES, 1, BAD_STEP, True, [])


def test_a_sparse_gradient_is_looked_at():
    variable = keras.Variable(tf.ones((5, 2)))
    optimizer = keras.optimizers.SGD(1.0)
    optimizer.build([variable])
    state = TrainState(build_net(), extras={"optimizer_of_rows": optimizer})
    state.step_variables._create_record()
    state.notes.checks_finite = True
    guard = state.step_variables.guard(state.notes)
    for value, expected in ((float("nan"), 1.0), (1.0, 1.0)):
        rows = tf.IndexedSlices(tf.fill((1, 2), value), tf.constant([3]), tf.constant([5, 2]))
        apply_gradients(optimizer, [rows], [variable], guard=guard)
        assert variable.numpy()[3].tolist() == [expected] * 2  # the record is closed by then
    guard.record.reopen()
    apply_gradients(optimizer, [rows], [variable], guard=guard)
    assert variable.numpy()[3].tolist() == [0.0, 0.0]


def operations_in(**fields):
    state = make_state()
    traced = []

    def step(state, batch):
        logs = train_step(state, batch)
        traced.append(tf.compat.v1.get_default_graph())
        return logs

    hooks = [OnNonfinite("skip")] if fields.get("on_nonfinite") == "skip" else []
    fit(state, batches(), make_config(**fields), train_step=step, hooks=hooks)
    return [operation.type for operation in operations_of(traced[-1])]


def test_without_it_the_graph_of_a_step_has_nothing_more():
    plain = operations_in()
    assert operations_in(on_nonfinite="off") == plain
    assert "If" not in plain and "StatelessIf" not in plain and "IsFinite" not in plain
    assert "IsFinite" in operations_in(on_nonfinite="skip")


def test_a_metric_that_the_step_leaves_alone_is_still_known():
    """What takes a step back must not count as an update of all metrics."""

    def step(state, batch):
        x, _ = batch
        loss = state.minimize(lambda: state.mean(state.model(x)[:, 0]))
        return {"loss": loss}

    def history(action, hooks):
        state, config = make_plain(None), make_config(on_nonfinite=action)
        fit(state, batches(), config, hooks=hooks)  # has made what a step needs
        return fit(state, batches(), config, train_step=step, hooks=hooks).history["loss"]

    assert history("skip", [OnNonfinite("skip")]) == history(None, []) != [0.0]


@pytest.mark.parametrize("run_eagerly", [False, True])
def test_a_step_that_updates_past_the_state_is_refused(run_eagerly):
    class Own(keras.Sequential):
        def train_step(self, data):
            return super().train_step(data)

    state = TrainState(Own(build_net().layers), "sgd", loss="sparse_categorical_crossentropy")
    config = make_config(on_nonfinite="skip", run_eagerly=run_eagerly)
    with pytest.raises(ValueError, match=r"on_nonfinite is set, but train_step does not call"):
        fit(state, batches(bad=[BAD_STEP]), config, hooks=[OnNonfinite("skip")])
