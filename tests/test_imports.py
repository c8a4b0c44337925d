"""The direction of imports: who may import whom, read from the source with `ast`."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# What each part may import of the project, and of others, besides the standard library.
PARTS = {
    "engine": {"engine"},
    "data": {"data"},
    "models": {"models"},
    "benchmarks": {"benchmarks", "engine", "data", "models"},
    "train": {"engine", "data", "models"},
}
THIRD_PARTY = {
    "engine": {"keras", "numpy", "tensorflow", "tqdm"},
    "data": {"keras", "numpy", "tensorflow", "tqdm"},
    "models": {"keras", "numpy", "tensorflow"},
}
# Extras may be missing, and what is slow to import should cost only those who use it.
LAZY = {"matplotlib", "tensorboard"}

# From the top: a module imports modules of lower layers only. A new module needs a place here.
LAYERS = (
    {"report"},
    {"compare", "tune", "diagnosis"},
    {"loop", "trial"},
    {"source", "history"},
    {"function", "hooks", "tuning", "checkpoint"},
    {"profile_plot"},
    {"plots"},
    {"step", "writers", "strategy", "runtime", "run", "flags", "traces"},
    {"loops"},
    {"state"},
    {"gradients", "fused", "profile_summary"},
    {"config", "files", "comparison", "trace", "timing", "memory"},
)
SIDEWAYS = {("hooks", "checkpoint")}


@pytest.fixture(autouse=True)
def fresh_keras():
    """Replaces conftest's: nothing here runs Keras, and clearing its session takes time."""


def imports(source: str) -> Iterator[tuple[str, bool]]:
    """Yields each imported name in full, and whether it is imported only when it is needed."""
    tree = ast.parse(source)
    lazy = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or _is_for_types_only(node)
        for child in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            prefix = "." * node.level + (node.module or "")
            names = [f"{prefix}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from ((name, id(node) in lazy) for name in names)


def _is_for_types_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def violations(module: str, source: str) -> list[str]:
    """Returns one line for each import of `module` (`engine.hooks.base`) that is not allowed."""
    return [
        f"{module} imports {name}: {reason}"
        for name, is_lazy in imports(source)
        if (reason := _reason(module, name, is_lazy))
    ]


def _reason(module: str, name: str, is_lazy: bool) -> str:
    part, target = module.split(".")[0], name.split(".")[0]
    if not target:
        return "relative; name the whole path"
    if target in PARTS:
        if target not in PARTS[part]:
            return f"{part} may import {', '.join(sorted(PARTS[part]))}"
        return _reason_inside_engine(module, name) if part == target == "engine" else ""
    if part not in THIRD_PARTY or target in sys.stdlib_module_names | THIRD_PARTY[part]:
        return ""
    if target not in LAZY:
        return f"not a library that {part} depends on"
    return "" if is_lazy else "an extra; import it inside the function that needs it"


def _reason_inside_engine(module: str, name: str) -> str:
    if module == "engine":  # __init__.py gathers the public names.
        return ""
    importer, imported = module.split(".")[1], name.split(".")[1]
    layers = {member: depth for depth, layer in enumerate(LAYERS) for member in layer}
    for member in (importer, imported):
        if member not in layers:
            return f"{member} is not in LAYERS, tests/test_imports.py"
    allowed = importer == imported or (importer, imported) in SIDEWAYS
    return "" if allowed or layers[importer] < layers[imported] else "against the layers"


def _modules() -> dict[str, Path]:
    paths = [path for part in PARTS for path in (ROOT / part).rglob("*.py")]
    dotted = {".".join(p.relative_to(ROOT).with_suffix("").parts): p for p in paths}
    modules = {name.removesuffix(".__init__"): path for name, path in dotted.items()}
    return modules | {path.stem: path for path in [ROOT / "train.py"] if path.exists()}


@pytest.mark.parametrize("module", sorted(_modules()))
def test_imports_go_one_way(module):
    assert violations(module, _modules()[module].read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("part", ["engine", "data", "models"])
def test_every_part_is_looked_at(part):
    assert part in _modules()
    assert len([m for m in _modules() if m.startswith(f"{part}.")]) > 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("gradloop.data.pipeline", "import engine"),
        ("gradloop.data.pipeline", "from engine.config import TrainConfig"),
        ("gradloop.models.cnn", "from data import mnist"),
        ("gradloop.engine.loop", "import models.cnn"),
        ("gradloop.engine.loop", "def f():\n    from data import mnist"),
        ("gradloop.engine.loop", "import train"),
        ("gradloop.engine.config", "from engine.state import TrainState"),
        ("gradloop.engine.state", "from engine import loop"),
        ("gradloop.engine.state", "if TYPE_CHECKING:\n    from engine.loop import fit"),
        ("gradloop.engine.storage.checkpoint", "from engine.hooks.base import Hook"),
        ("gradloop.engine.step_function", "from engine import checkpoint"),
        ("gradloop.engine.loop", "from engine import fit"),
        ("engine.new", "from engine.config import TrainConfig"),
        ("gradloop.engine.step", "from .state import TrainState"),
        ("gradloop.engine.step", "from . import state"),
        ("gradloop.cli.plots", "import matplotlib.pyplot as plt"),
        ("gradloop.engine.step", "import torch"),
        ("gradloop.engine.step", "def f():\n    import torch"),
        ("gradloop.models.cnn", "import tqdm"),
    ],
)
def test_violations_are_found(module, source):
    assert len(violations(module, source)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("train", "import engine\nfrom data import mnist\nfrom models import registry"),
        ("benchmarks.arms.torch", "import torch\nimport engine"),
        ("engine", "from engine.loop import fit"),
        ("gradloop.engine.hooks.base", "from engine.hooks import recording"),
        ("gradloop.engine.hooks.recording", "from engine import checkpoint"),
        ("gradloop.engine.state", "from engine import gradients as gradients_lib"),
        (
            "gradloop.engine.loop",
            "import json\nimport keras\nfrom engine.function import make_train_function",
        ),
        ("gradloop.cli.plots", "def f():\n    import matplotlib.pyplot as plt"),
        ("gradloop.cli.plots", "if TYPE_CHECKING:\n    from matplotlib.axes import Axes"),
    ],
)
def test_legal_imports_pass(module, source):
    assert violations(module, source) == []
