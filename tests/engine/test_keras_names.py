"""Private names of Keras and TensorFlow: docs/design.md lists what is used; each exists."""

import ast
import importlib
import re
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.src.trainers.data_adapters import array_data_adapter
from tensorflow.python.distribute.values import PerReplicaSpec

ROOT = Path(__file__).parents[2]
HEADING = "## Private names of Keras and TensorFlow"
PARTS = ("engine", "data", "models", "cli", "benchmarks")
PRIVATE_MODULES = ("keras.src", "tensorflow.python", "tensorflow.tsl", "tensorflow.core")
# Of other libraries, whose names are not Keras's or TensorFlow's.
OF_OTHERS = {"torch", "argparse", "parser", "os"}
NAMED_TUPLE = {"_replace", "_asdict", "_fields"}


def read_table(text):
    """Returns name -> the files that use it, and name -> why."""
    section = text.split(HEADING, 1)[1].split("\n## ", 1)[0]
    rows = [line.strip("|").split(" | ") for line in section.splitlines() if line.startswith("| `")]
    assert all(len(row) == 3 for row in rows), rows
    files = {name.strip(" `"): re.findall(r"`([^`]+)`", where) for name, where, _ in rows}
    assert len(files) == len(rows), "a name has two rows"
    return files, {name.strip(" `"): why.strip() for name, _, why in rows}


FILES, REASONS = read_table((ROOT / "docs" / "design.md").read_text("utf-8"))


# Each name exists.


def compiled_model():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    return model


def built(optimizer):
    optimizer.build([keras.Variable(1.0)])
    return optimizer


# Attributes that exist on instances alone.
INSTANCES = {
    "keras.Model": compiled_model,
    "keras.optimizers.Optimizer": lambda: built(keras.optimizers.SGD()),
    "keras.optimizers.RMSprop": lambda: built(keras.optimizers.RMSprop(momentum=0.5)),
    "keras.optimizers.Adam": lambda: built(keras.optimizers.Adam()),
    "keras.metrics.Metric": keras.metrics.BinaryAccuracy,
    "keras.losses.CategoricalCrossentropy": keras.losses.CategoricalCrossentropy,
    "keras.src.trainers.data_adapters.array_data_adapter.ArrayDataAdapter": lambda: (
        array_data_adapter.ArrayDataAdapter(np.zeros((2, 1)))
    ),
    "tensorflow.data.Dataset": lambda: tf.data.Dataset.range(1),
    "tensorflow.Graph": tf.Graph,
    "tensorflow.python.data.ops.shuffle_op._ShuffleDataset": lambda: tf.data.Dataset.range(
        1
    ).shuffle(1),
    "tensorflow.python.eager.polymorphic_function.polymorphic_function.Function": lambda: (
        tf.function(tf.zeros)
    ),
    "tensorflow.python.distribute.mirrored_strategy.MirroredExtended": lambda: (
        tf.distribute.MirroredStrategy(["CPU:0"]).extended
    ),
    "tensorflow.python.distribute.values.PerReplicaSpec": lambda: PerReplicaSpec(tf.TensorSpec([])),
}


def resolve(name):
    """Imports as much of a dotted name as is a module, and gets the rest as attributes."""
    owner, _, last = name.rpartition(".")
    if owner in INSTANCES:
        return getattr(INSTANCES[owner](), last)
    words, rest = owner.split("."), [last]
    while True:
        try:
            thing = importlib.import_module(".".join(words))
            break
        except ModuleNotFoundError:
            rest.insert(0, words.pop())
    for word in rest:
        thing = getattr(thing, word)
    return thing


@pytest.mark.parametrize("name", FILES)
def test_name_exists(name):
    resolve(name)


@pytest.mark.parametrize(
    "name",
    [
        "keras.Model._gone",
        "keras.optimizers.Adam._gone",
        "keras.src.trainers.data_adapters.gone.make",
        "tensorflow.python.framework.config.is_gone",
    ],
)
def test_a_name_that_is_gone_is_found(name):
    with pytest.raises((AttributeError, ModuleNotFoundError)):
        resolve(name)


def test_names_have_the_meaning_that_they_are_used_for():
    model = compiled_model()
    assert model._loss_tracker in model.metrics
    assert model._distribute_strategy is None  # outside a scope
    assert keras.metrics.BinaryAccuracy()._direction == "up"
    optimizer = keras.optimizers.Adam()
    variables = [keras.Variable(1.0), keras.Variable([2.0, 3.0])]
    optimizer.build(variables)
    assert optimizer._trainable_variables == variables
    index = optimizer._get_variable_index(variables[1])
    assert optimizer._velocities[index].shape == optimizer._momentums[index].shape == (2,)
    assert resolve("tensorflow.python.eager.polymorphic_function.attributes.NO_INLINE") == (
        "_noinline"
    )


# The table has each name that is used, and no other.


def private_uses(source):
    """Yields each use of a private name: a dotted name of a module, or an attribute alone."""
    tree = ast.parse(source)
    own = own_names(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if is_private_module(alias.name))
        elif isinstance(node, ast.ImportFrom) and is_private_module(node.module or ""):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Attribute) and is_foreign(node) and node.attr not in own:
            yield node.attr
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "hasattr"):
            name = ast.literal_eval(node.args[1]) if is_text(node.args[1]) else ""
            if is_private(name) and name not in own:
                yield name
        elif isinstance(node, ast.ClassDef):
            yield from overridden(node)


def own_names(tree):
    """Returns the private names that a module defines itself: of functions and of `self`."""
    functions = (n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef))
    assigned = (
        n.attr
        for n in ast.walk(tree)
        if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Store)
        if isinstance(n.value, ast.Name) and n.value.id == "self"
    )
    return {*functions, *assigned}


def is_private_module(name):
    return any(f"{name}.".startswith(f"{module}.") for module in PRIVATE_MODULES)


def is_private(name):
    return name.startswith("_") and not name.startswith("__")


def is_text(node):
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def is_foreign(node):
    """Returns whether it is an attribute of another object than the one whose code it is."""
    owner = ast.unparse(node.value)
    if not is_private(node.attr) or node.attr in NAMED_TUPLE or owner in ("self", "cls", "super()"):
        return False
    return owner.split(".")[0] not in OF_OTHERS


def overridden(node):
    """Yields private methods of a class of Keras's or TensorFlow's that a subclass overrides."""
    for base in node.bases:
        library, _, rest = ast.unparse(base).partition(".")
        thing = {"tf": tf, "keras": keras}.get(library)
        for word in rest.split(".") if thing else ():
            thing = getattr(thing, word)
        methods = (child.name for child in node.body if isinstance(child, ast.FunctionDef))
        if thing is not None:
            yield from (m for m in methods if is_private(m) and hasattr(thing, m))


def is_listed(use, file):
    return any(
        file in files and (name.endswith(f".{use}") or f"{name}.".startswith(f"{use}."))
        for name, files in FILES.items()
    )


def sources():
    paths = [path for part in PARTS for path in sorted((ROOT / part).rglob("*.py"))]
    return {str(path.relative_to(ROOT)): path.read_text("utf-8") for path in paths}


def test_every_private_name_that_is_used_is_listed():
    project = {name for source in sources().values() for name in own_names(ast.parse(source))}
    project -= {name.rpartition(".")[2] for name in FILES}
    missing = [
        f"{file}: {use}"
        for file, source in sources().items()
        for use in private_uses(source)
        if not is_listed(use, file) and use not in project
    ]
    assert missing == [], f"add a row to {HEADING!r} of docs/design.md"


@pytest.mark.parametrize("name", FILES)
def test_every_name_that_is_listed_is_used_where_it_says_and_has_a_reason(name):
    assert FILES[name], "no file"
    assert REASONS[name]
    last = "_noinline" if name.endswith("NO_INLINE") else name.rpartition(".")[2]
    for file in FILES[name]:
        assert re.search(rf"\b{last}\b", (ROOT / file).read_text("utf-8")), file


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("from keras.src.trainers import trainer", "keras.src.trainers.trainer"),
        ("import tensorflow.python.eager.context", "tensorflow.python.eager.context"),
        ("def f():\n    from tensorflow.tsl import x", "tensorflow.tsl.x"),
        ("model._secret()", "_secret"),
        ("self.model._secret()", "_secret"),
        ("hasattr(metric, '_secret')", "_secret"),
        ("class A(tf.data.Dataset):\n    def _inputs(self): pass", "_inputs"),
    ],
)
def test_uses_are_found(source, expected):
    assert list(private_uses(source)) == [expected]


@pytest.mark.parametrize(
    "source",
    [
        "import keras\nfrom tensorflow import data",
        "event._replace(name='x')",
        "self._mine",
        "class A:\n    def __init__(self): self._a = 1\n    def f(self, other): return other._a",
        "x.__name__",
        "torch._foreach_add(a, b)",
        "class A(tf.data.Dataset):\n    def _own_method(self): pass",
    ],
)
def test_other_names_pass(source):
    assert list(private_uses(source)) == []
