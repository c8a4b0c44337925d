"""A person's own code, by `pkg.module:name`: found, and called with the arguments that it takes."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import inspect
import os
import pkgutil
import sys
import sysconfig
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import gradloop
from gradloop.engine.options import ConfigError
from gradloop.usage import did_you_mean

_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
_OPTIONAL = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
# Where code lies that is no person's own: this package and libraries.
_PACKAGE = Path(gradloop.__file__).parent
_OTHERS = [
    *((_PACKAGE / name).resolve() for name in (".", "engine", "data", "models", "cli")),
    *(Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "purelib", "platlib")),
]


def is_own(text: str) -> bool:
    """Returns whether a text names a person's own code and not one of the names that we know.

    Example:
      >>> is_own("nets.small:build"), is_own("cnn")
      (True, False)
    """
    return ":" in text


def load_object(text: str, field: str) -> Callable[..., Any]:
    """Imports a function or a class of a person's own.

    From here on, modules of the working directory can be imported, as with `python -m`: whether the
    command was `gradloop` or `python train.py` of another folder. Call it once TensorFlow is set up
    (`engine.configure_runtime`), because the module may use it. An exception in the module keeps
    its traceback: it is a bug there.

    Args:
      text: "pkg.module:name".
      field: The setting that it comes from, for errors: "model".

    Raises:
      ConfigError: If there is no such module or name, or it cannot be called.

    Example:
      >>> load_object("math:sqrt", "model")(9)
      3.0
    """
    module_name, _, name = text.partition(":")
    is_dotted = all(part.isidentifier() for part in module_name.split("."))
    if not is_dotted or not name or module_name.endswith(".py"):
        example = module_name.removesuffix(".py").replace("/", ".").strip(".") or "package.module"
        raise ConfigError(
            f"{field}={text!r} must be MODULE:NAME, the module as in an import statement: "
            f"{example}:{name or 'name'}."
        )
    module = _import(module_name, text, field)
    try:
        found = functools.reduce(getattr, name.split("."), module)
    except AttributeError:
        raise ConfigError(_describe_missing(module, name, text, field)) from None
    if not callable(found):
        raise ConfigError(
            f"{field}={text!r} is a {type(found).__name__}, and must be a function or a class."
        )
    return found


def make_importable() -> None:
    """Puts the working directory first where Python looks for modules."""
    directory = os.getcwd()
    if sys.path[:1] != [directory]:
        sys.path.insert(0, directory)


def lies_in_working_directory(file: str) -> bool:
    """Returns whether a file there is a person's: an environment, or we, may lie there, too."""
    path = Path(file).resolve()
    is_there = path.is_relative_to(Path.cwd().resolve()) and path.is_file()  # not "<string>"
    return is_there and not any(map(path.is_relative_to, _OTHERS))


def _import(module_name: str, text: str, field: str) -> ModuleType:
    make_importable()
    importlib.invalidate_caches()
    package = ""
    for part in module_name.split("."):  # which of them is missing
        name = f"{package}.{part}".strip(".")
        is_package = not package or hasattr(sys.modules[package], "__path__")
        is_there = name in sys.modules or (is_package and importlib.util.find_spec(name))
        if not is_there:
            raise ConfigError(_describe_missing_module(package, name, text, field))
        importlib.import_module(name)
        package = name
    return sys.modules[module_name]


def _describe_missing_module(package: str, name: str, text: str, field: str) -> str:
    folders = getattr(sys.modules[package], "__path__", []) if package else [os.getcwd()]
    prefix = f"{package}." if package else ""
    legal = [prefix + found.name for found in pkgutil.iter_modules(folders)]
    return (
        f"{field}={text!r}: there is no module {name!r}, in the working directory "
        f"{os.getcwd()} or installed.{did_you_mean(name, legal)}"
    )


def _describe_missing(module: ModuleType, name: str, text: str, field: str) -> str:
    own = sorted(
        key
        for key, value in vars(module).items()
        if callable(value) and getattr(value, "__module__", None) == module.__name__
    )
    legal = f" It has {', '.join(own)}." if own else " It has no functions or classes of its own."
    return (
        f"{field}={text!r}: the module {module.__name__!r} has no {name!r}."
        f"{legal}{did_you_mean(name, own)}"
    )


def call_with(
    function: Callable[..., Any],
    offered: Mapping[str, Any],
    chosen: Mapping[str, Any],
    prefix: str,
) -> Any:
    """Calls a function with those of the offered arguments that it takes, and all chosen ones.

    An exception of the function keeps its traceback; one of Keras's about chosen values does not.

    Args:
      function: A person's, or a class.
      offered: Passed where a parameter has that name.
      chosen: A person's, which win over those offered.
      prefix: Of the chosen names in `--set`: "model".

    Raises:
      ConfigError: If the function takes no argument of a chosen name, or needs one that is missing;
        if Keras refuses a chosen value.

    Example:
      >>> def build(input_shape, units=4):
      ...     return input_shape, units
      >>> call_with(build, {"input_shape": (3,), "num_classes": 2}, {"units": 8}, "model")
      ((3,), 8)
    """
    arguments = arguments_for(function, offered, chosen, prefix)
    try:
        return function(**arguments)
    except (ValueError, TypeError) as error:
        if not chosen or not _is_kerass(function):
            raise
        values = ", ".join(f"{name}={value!r}" for name, value in chosen.items())
        sentence = " ".join(str(error).split())
        raise ConfigError(f"{_name(function)} cannot be made with {values}: {sentence}") from error


def arguments_for(
    function: Callable[..., Any],
    offered: Mapping[str, Any],
    chosen: Mapping[str, Any],
    prefix: str,
) -> dict[str, Any]:
    """Returns what `call_with` passes. Raises ConfigError as it does."""
    parameters = _parameters(function)
    takes_all = _takes_all(function)
    legal = [name for name, p in parameters.items() if p.kind in _BY_NAME]
    for name, value in chosen.items():
        if name not in legal and not takes_all:
            takes = f"It takes {', '.join(legal)}." if legal else "It takes no arguments by name."
            raise ConfigError(
                f"set={prefix}.{name}={value!r}, but {_name(function)} has no argument {name!r}. "
                f"{takes}{did_you_mean(name, legal)}"
            )
    taken = {name: value for name, value in offered.items() if name in legal}
    arguments = taken | dict(chosen)
    for name, parameter in parameters.items():
        is_needed = parameter.default is parameter.empty and parameter.kind not in _OPTIONAL
        if is_needed and name not in arguments:
            given = f" It is given {', '.join(offered)} where it takes them." if offered else ""
            raise ConfigError(
                f"{_name(function)} needs {name!r}, which has no default: pass --set "
                f"{prefix}.{name}=VALUE.{given}"
            )
    return arguments


def takes(function: Callable[..., Any], name: str) -> inspect.Parameter | None:
    """Returns the parameter that an argument of that name goes to; None if there is none."""
    found = _parameters(function)
    parameter = found.get(name)
    if parameter is None and _takes_all(function):
        return next(p for p in found.values() if p.kind is p.VAR_KEYWORD)
    return parameter if parameter is not None and parameter.kind in _BY_NAME else None


def _takes_all(function: Callable[..., Any]) -> bool:
    # Keras's classes have `**kwargs`, and refuse what they do not name.
    kinds = {p.kind for p in _parameters(function).values()}
    return not _is_kerass(function) and inspect.Parameter.VAR_KEYWORD in kinds


def _is_kerass(function: Callable[..., Any]) -> bool:
    return getattr(function, "__module__", "").startswith("keras.")


def _parameters(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """Returns those of a function, or of a class's constructor; {} where none are told."""
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):
        return {}


def _name(function: Callable[..., Any]) -> str:
    module = getattr(function, "__module__", "")
    return f"{module}:{getattr(function, '__qualname__', function)}"
