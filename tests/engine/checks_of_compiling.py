"""Checks of the fields that say how steps are compiled."""

import pytest
import tensorflow as tf
from tensorflow.python.ops import gen_math_ops, math_grad

from gradloop.engine import step_function
from gradloop.engine.config import TrainConfig
from gradloop.engine.loop import fit
from gradloop.engine.step import train_step
from tests.engine.field_checks import plain, refuses, shows, train
from tests.engine.nets import make_config, make_pipeline, make_state, make_tiny, mirrored


def replaces_update(arrays, **fields):
    """Returns whether the optimizer's update is another one than Keras's while a step is traced."""
    found = []

    def spy(state, batch):
        found.append("update_step" in vars(state.optimizer))
        return train_step(state, batch)

    fit(make_tiny(), plain(arrays), make_config(**fields), train_step=spy)
    return found == [True]


@shows("numerics")
def numerics(name, arrays):
    assert replaces_update(arrays, numerics="fast")
    assert not replaces_update(arrays, numerics="exact")
    state = make_state(strategy=mirrored())
    refuses("numerics='fast' with 2 replicas", train, arrays, state=state, numerics="fast")


@shows("compile_update")
def compile_update(name, arrays):
    """test_compiled_updates.py shows the bits."""

    def outcome(**fields):
        train(arrays, state=(state := make_tiny()), **fields)
        return state.compiled_updates.outcome

    assert "compiled by XLA" in outcome(compile_update=True)
    assert not outcome(compile_update=False)
    state = make_state(strategy=mirrored())
    refuses("with a strategy's scope", train, arrays, state=state, compile_update=True)
    for forbidding in ({"numerics": "fast"}, {"jit_compile": True}, {"strategy": "mirrored"}):
        refuses("compile_update=true with", TrainConfig, compile_update=True, **forbidding)


@shows("narrow_products")
def narrow_products(name, arrays):
    """test_narrow_products.py shows the product."""
    found = []

    def spy(state, batch):
        found.append(math_grad.gen_math_ops is not gen_math_ops)
        return train_step(state, batch)

    def narrows(**fields):
        found.clear()
        fit(make_tiny(), plain(arrays), make_config(jit_compile=True, **fields), train_step=spy)
        return any(found)

    if not tf.config.list_physical_devices("GPU"):
        assert narrows(narrow_products=True)
        assert narrows(numerics="fast")
    assert not narrows()
    refuses("with jit_compile=auto", TrainConfig, narrow_products=True)
    update = {"jit_compile": True, "jit_scope": "update"}
    refuses("with jit_scope=update", TrainConfig, narrow_products=True, **update)
    xla = {"jit_compile": True, "narrow_products": True}
    refuses("precision=mixed_bfloat16", TrainConfig, precision="mixed_bfloat16", **xla)
    state = make_state(strategy=mirrored())
    refuses("XLA compiles no steps for a CPU here", train, arrays, state=state, **xla)


@shows("jit_compile")
def jit_compile(name, arrays):
    def loss_with_dropout(value):
        return fit(make_state(), plain(arrays), make_config(jit_compile=value)).history["loss"]

    # XLA draws other random numbers.
    is_auto = make_state().model.jit_compile
    assert loss_with_dropout(True) != loss_with_dropout(False)
    assert loss_with_dropout(None) == loss_with_dropout(is_auto)
    state = make_state(strategy=mirrored())
    fields = {"jit_compile": True, "jit_scope": "update"}
    refuses("jit_scope='update' with 2 replicas", train, arrays, state=state, **fields)


@shows("jit_scope")
def jit_scope(name, arrays):
    assert replaces_update(arrays, jit_compile=True, jit_scope="update")
    assert not replaces_update(arrays, jit_compile=True, jit_scope="step")

    def num_compiled_loops(value):
        calls = []
        with pytest.MonkeyPatch.context() as patch:
            loop = step_function.loop_compiled
            patch.setattr(
                step_function, "loop_compiled", lambda *args: (calls.append(args), loop(*args))[1]
            )
            fit(
                make_tiny(), make_pipeline(arrays),
                make_config(jit_compile=True, jit_scope=value, input="resident"),
            )  # fmt: skip
        return len(calls)

    assert num_compiled_loops("loop") == 1
    assert num_compiled_loops("step") == 0
    for found in (None, False):
        refuses("it says what XLA compiles", TrainConfig, jit_scope="loop", jit_compile=found)
