"""Which module may import what, and who does not keep to it, read from the source with `ast`."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]

# What each part may import of the project, besides itself and the modules of gradloop/.
PARTS = {
    "gradloop": set(),
    "engine": set(),
    "data": set(),
    "models": set(),
    "cli": {"engine", "data", "models"},
    "benchmarks": {"engine", "data", "models"},
    "train": {"cli"},
}
INSTALLED = {"engine", "data", "models", "cli"}
# What it may import of others, besides the standard library.
THIRD_PARTY = {
    "gradloop": set(),
    "engine": {"keras", "numpy", "tensorflow", "tqdm"},
    "data": {"keras", "numpy", "tensorflow", "tqdm"},
    "models": {"keras", "numpy", "tensorflow"},
    "cli": {"keras", "numpy", "tensorflow", "tqdm"},
    "train": set(),
}
# Extras may be missing, and what is slow to import should cost only those who use it.
LAZY = {
    "argcomplete", "matplotlib", "mlflow", "pyarrow", "setuptools", "tensorboard", "wandb", "yaml",
}  # fmt: skip

# The rooms of the engine from the ground up. A module imports its own room and those below; where
# a room is a set of modules, they import those before them. A new module needs a place here.
FLOORS = (
    (
        "values",
        "options",
        "config_checks",
        "config",
        "patching",
        "update_check",
        "replicas.rules",
        "replicas.rng",
        "replicas.sums",
        "protocols",
        "history",
        "resumption",
        "timing",
        "memory",
    ),
    (
        "arguments",
        "workers.cluster",
        "workers.peers",
        "devices",
        "gpus",
        "replicas.reduction",
        "replicas.split_batches",
        "runtime",
        "strategy",
    ),
    (
        "step_errors",
        "gradient_analysis",
        "nonfinite",
        "gradients",
        "loss_scaling",
        "compiled_updates",
        "fused_updates",
        "fused_lstm",
        "narrow_products",
        "variables",
        "workers.values",
        "step_logs",
    ),
    ("replicas.uneven", "trace_notes", "replicas.example_weights"),
    (
        "accumulation",
        "step_variables",
        "step_pieces",
        "metric_set",
        "building",
        "state",
        "step",
    ),
    (
        "hooks.info",
        "hooks.base",
    ),  # the interface that the loop calls; the hooks themselves are at the top
    ("checks",),
    (
        "execution_mode",
        "array_batches",
        "grouping",
        "retracing",
        "traced_step",
        "replicas.statistics",
        "undo",
        "replicas.updates",
        "replicas.xla",
        "replicated_step",
    ),
    ("graph_loops", "compiled_loop", "eager_loop", "step_function", "predict_function"),
    (
        "workers.slices",
        "inputs",
        "repeatable",
        "passes",
        "settings",
        "agreement",
        "planner",
        "workers.consensus",
        "source",
        "skip_watch",
        "session",
        "evaluation",
        "continuation",
        "loop",
        "prediction",
        "first_nonfinite",
    ),
    ("storage",),
    ("profiling",),
    ("hooks",),
    ("tuning",),
    ("parity",),
)


def imports(module: str, is_package: bool, source: str) -> Iterator[tuple[str, bool, int]]:
    """Yields each imported name in full, whether that is lazy, and the level of a relative one."""
    tree = ast.parse(source)
    lazy = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or _is_for_types_only(node)
        for child in ast.walk(node)
    }
    package = module.split(".") if is_package else module.split(".")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            prefix = ".".join([*above, *([node.module] if node.module else [])])
            names = [f"{prefix}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from ((name, id(node) in lazy, getattr(node, "level", 0)) for name in names)


def _is_for_types_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def violations(module: str, source: str, *, is_package: bool = False) -> list[str]:
    """Returns one line for each import of `module` (`gradloop.engine.loop`) that is not allowed."""
    return [
        f"{module} imports {name}: {reason}"
        for name, is_lazy, level in imports(module, is_package, source)
        if (reason := _reason(module, name, is_lazy, level))
    ]


def part_of(module: str) -> str:
    """Returns the part that a module belongs to; "" for a library."""
    first, *rest = module.split(".")
    if first == "gradloop" and rest and rest[0] in INSTALLED:
        return rest[0]
    return first if first in PARTS and first not in INSTALLED else ""


def _reason(module: str, name: str, is_lazy: bool, level: int) -> str:
    part, target = part_of(module), part_of(name)
    if name.split(".")[0] in INSTALLED:
        return "its name is gradloop." + name
    if not target:
        return _reason_of_library(part, name.split(".")[0], is_lazy)
    if target not in {part, "gradloop", *PARTS[part]}:
        return f"{part} may import {', '.join(sorted(PARTS[part])) or 'no other part'}"
    if target == part and part in INSTALLED and not level:
        return "inside a package, imports are relative"
    return _reason_inside_engine(module, name) if part == target == "engine" else ""


def _reason_of_library(part: str, library: str, is_lazy: bool) -> str:
    if part not in THIRD_PARTY or library in sys.stdlib_module_names | THIRD_PARTY[part]:
        return ""
    if library not in LAZY:
        return f"not a library that {part} depends on"
    return "" if is_lazy else "an extra; import it inside the function that needs it"


def _reason_inside_engine(module: str, name: str) -> str:
    if module == "gradloop.engine":  # __init__.py gathers the public names.
        return ""
    places = {
        room: (depth, i) for depth, rooms in enumerate(FLOORS) for i, room in enumerate(rooms)
    }
    importer, imported = (
        _room(one.removeprefix("gradloop.engine."), places) for one in (module, name)
    )
    for room, one in ((importer, module), (imported, name)):
        if room not in places:
            return f"{one} has no place in FLOORS, tests/import_rules.py"
    allowed = importer == imported or places[imported] < places[importer]
    return "" if allowed else f"{importer} is not above {imported}"


def _room(module: str, places: dict[str, tuple[int, int]]) -> str:
    """Returns the longest beginning of a dotted name that has a place: a room, or a module."""
    words = module.split(".")
    beginnings = (".".join(words[:n]) for n in range(len(words), 0, -1))
    return next((one for one in beginnings if one in places), words[0])


def modules() -> dict[str, Path]:
    paths = [path for part in PARTS for path in (ROOT / part).rglob("*.py")]
    links = {ROOT / "gradloop" / part for part in INSTALLED}
    paths = [path for path in paths if not links & set(path.parents)]
    """Returns each module of the project with its file."""
    found = {}
    for path in [*paths, ROOT / "train.py"]:
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        found["gradloop." + name if name.split(".")[0] in INSTALLED else name] = path
    return found
