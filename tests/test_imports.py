"""The direction of imports, room by room: the rules are in import_rules.py."""

import re

import pytest

from tests.import_rules import FLOORS, PARTS, ROOT, modules, part_of, violations


@pytest.fixture(autouse=True)
def fresh_keras():
    """Replaces conftest's: nothing here runs Keras, and clearing its session takes time."""


@pytest.mark.parametrize("module", sorted(modules()))
def test_imports_go_one_way(module):
    path = modules()[module]
    source = path.read_text(encoding="utf-8")
    assert violations(module, source, is_package=path.name == "__init__.py") == []


def test_every_part_is_looked_at():
    for part in PARTS:
        assert [m for m in modules() if part_of(m) == part], part
    rooms = {room for rooms in FLOORS for room in rooms}
    for room in rooms:  # none that is gone
        assert any(f"{m}.".startswith(f"gradloop.engine.{room}.") for m in modules()), room


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("gradloop.files", "from gradloop import engine"),
        ("gradloop.machine", "import numpy"),
        ("gradloop.data.pipeline", "from gradloop import engine"),
        ("gradloop.data.pipeline", "from ..engine.config import TrainConfig"),
        ("gradloop.data.pipeline", "import gradloop.data.arrays"),
        ("gradloop.models.cnn", "from gradloop.data import mnist"),
        ("gradloop.engine.loop", "import models.cnn"),
        ("gradloop.engine.loop", "def f():\n    from gradloop.data import mnist"),
        ("gradloop.engine.loop", "from gradloop.cli import report"),
        ("gradloop.engine.loop", "from ..cli import report"),
        ("gradloop.engine.config", "from .state import TrainState"),
        ("gradloop.engine.state", "from . import loop"),
        ("gradloop.engine.state", "if TYPE_CHECKING:\n    from .loop import fit"),
        ("gradloop.engine.loop", "from .storage import checkpoint"),
        ("gradloop.engine.loop", "from .hooks import ProgressBar"),
        ("gradloop.engine.step_function", "from .source import Source"),
        ("gradloop.engine.storage.checkpoint", "from ..hooks.stopping import StopOnNaN"),
        ("gradloop.engine.profiling.summary", "from ..tuning import trial"),
        ("gradloop.engine.loop", "from gradloop.engine.config import TrainConfig"),
        ("gradloop.engine.new", "from .config import TrainConfig"),
        ("gradloop.engine.storage.figures", "import matplotlib.pyplot as plt"),
        ("gradloop.engine.step", "import torch"),
        ("gradloop.engine.step", "def f():\n    import torch"),
        ("gradloop.models.cnn", "import tqdm"),
        ("gradloop.cli.job", "from benchmarks import race"),
        ("benchmarks.ladder", "from gradloop.cli import report"),
        ("benchmarks.ladder", "import engine"),
        ("train", "from gradloop import engine"),
    ],
)
def test_violations_are_found(module, source):
    assert len(violations(module, source)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("train", "from gradloop.cli.main import main"),
        ("gradloop.cli.main", "from gradloop import engine\nfrom gradloop.data import mnist"),
        ("gradloop.cli.main", "from .config import JobConfig"),
        ("benchmarks.arms.torch", "import torch\nfrom gradloop import engine"),
        ("gradloop.engine", "from .engine.loop import fit"),
        ("gradloop.engine.loop", "from .hooks.base import Hook\nfrom .source import Source"),
        ("gradloop.engine.hooks.recording", "from ..storage import checkpoint"),
        ("gradloop.engine.hooks.stopping", "from .base import Hook"),
        ("gradloop.engine.state", "from . import gradients as gradients_lib"),
        ("gradloop.engine.loop", "import json\nimport keras\nfrom gradloop.files import json_text"),
        ("gradloop.engine.storage.figures", "def f():\n    import matplotlib.pyplot as plt"),
        (
            "gradloop.engine.profiling.plot",
            "if TYPE_CHECKING:\n    from matplotlib.axes import Axes",
        ),
    ],
)
def test_legal_imports_pass(module, source):
    assert violations(module, source) == []


def test_the_engine_lists_devices_in_one_place():
    listing = re.compile(r"\blist_(physical|logical)_devices\b")
    found = [path for path in (ROOT / "engine").rglob("*.py") if listing.search(path.read_text())]
    assert found == [ROOT / "engine" / "devices.py"]
