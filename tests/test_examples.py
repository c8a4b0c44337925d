"""Every example on a page or in a docstring runs: `>>>` lines with what they print, and blocks."""

import dataclasses
import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import gradloop
from gradloop import data, engine
from gradloop.data import mnist, pipeline

ROOT = Path(__file__).parents[1]
PUBLIC = [name for name in engine.__all__ if callable(getattr(engine, name))]
# Exceptions, enums and what only the engine creates need no example of how to create them.
WITHOUT = {
    "CheckpointError", "Comparison", "ConfigError", "History", "HookInfo", "Progress", "StopKind",
}  # fmt: skip


def build_model():
    return keras.Sequential([keras.Input([4]), keras.layers.Dense(1)])


@pytest.fixture
def names(tmp_path, monkeypatch):
    """What examples may use without saying so; the brief for writing one."""
    monkeypatch.chdir(tmp_path)
    keras.utils.clear_session(free_memory=False)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(32, 4)).astype("float32"), rng.normal(size=(32, 1)).astype("float32")
    train_ds = tf.data.Dataset.from_tensor_slices((x, y)).batch(8)
    state = engine.TrainState(build_model(), "sgd", loss="mse")
    state.build(train_ds.element_spec)
    keras.utils.clear_session(free_memory=False)
    modules = {"engine": engine, "data": data, "pipeline": pipeline, "mnist": mnist}
    libraries = {"keras": keras, "np": np, "tf": tf, "dataclasses": dataclasses}
    return modules | libraries | {
        "build_model": build_model, "state": state, "train_ds": train_ds, "tmp_path": tmp_path,
        "config": engine.TrainConfig(), "strategy": tf.distribute.get_strategy(),
    }  # fmt: skip


def find_examples():
    for found in pkgutil.walk_packages(gradloop.__path__, "gradloop."):
        module = importlib.import_module(found.name)
        for example in doctest.DocTestFinder(exclude_empty=True).find(module):
            if example.examples:
                yield example


EXAMPLES = {example.name: example for example in find_examples()}


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_example_in_a_docstring(name, names):
    example = EXAMPLES[name]
    example.globs = dict(example.globs) | names
    said = []
    options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    doctest.DocTestRunner(optionflags=options).run(example, out=said.append)
    assert not said, "".join(said)


@pytest.mark.parametrize("name", sorted(set(PUBLIC) - WITHOUT))
def test_public_name_has_an_example(name):
    thing = getattr(engine, name)
    assert f"{thing.__module__}.{thing.__qualname__}" in EXAMPLES


def test_an_example_that_prints_something_else_is_found(names):
    example = doctest.DocTestParser().get_doctest(">>> 1 + 1\n3\n", names, "wrong", None, 0)
    said = []
    doctest.DocTestRunner().run(example, out=said.append)
    assert "Expected:\n    3\nGot:\n    2" in "".join(said)


def python_blocks(page):
    return re.findall(r"(?ms)^```python\n(.*?)^```", (ROOT / page).read_text("utf-8"))


def test_the_readme_runs(monkeypatch, tmp_path):
    """As it stands, on fewer examples; the tests have the logical devices that it asks for."""
    monkeypatch.chdir(tmp_path)
    (x, y), (x_test, y_test) = mnist.load_data()
    few = (x[:256], y[:256]), (x_test[:128], y_test[:128])
    monkeypatch.setattr(mnist, "load_data", lambda: few)
    scope = {"tf": tf}
    for block in python_blocks("README.md"):
        exec(compile(block, "README.md", "exec"), scope)
    assert scope["history"].epoch == [0]
    assert sorted(scope["history"].history) == ["accuracy", "loss"]


def test_the_page_on_parity_runs(names):
    def make_state():
        return engine.TrainState(build_model(), "sgd", loss="mse")

    scope = names | {"make_state": make_state, "make_dataset": lambda: names["train_ds"]}
    for block in python_blocks("docs/parity.md"):
        exec(compile(block, "docs/parity.md", "exec"), scope)
    assert scope["comparison"].is_equal


def test_the_page_on_hooks_runs(names):
    (block,) = python_blocks("docs/hooks.md")
    exec(compile(block, "docs/hooks.md", "exec"), names)
    assert names["history"].epoch == [0, 1]  # the hook ends it


def test_the_page_on_rounds_of_data_learns_without_a_new_trace():
    (block,) = python_blocks("docs/rounds_of_data.md")
    scope = {}
    exec(compile(block, "docs/rounds_of_data.md", "exec"), scope)
    assert [history.num_traces for history in scope["histories"]] == [1] + [0] * 29
    assert scope["scores"][0] < 0.25 and min(scope["scores"][-5:]) > 0.6


def test_no_page_has_a_block_that_no_test_runs():
    tested = {"README.md", "docs/parity.md", "docs/custom_steps.md", "docs/profiling.md"}
    tested |= {"docs/rounds_of_data.md", "docs/hooks.md"}
    tested |= {"docs/command_line.md"}  # by tests/cli/test_own_work_page.py
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]
    assert {str(p.relative_to(ROOT)) for p in pages if python_blocks(p)} == tested
