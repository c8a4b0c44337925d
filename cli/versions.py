"""Versions of gradloop and of what it runs on, read without importing any of it."""

from __future__ import annotations

import importlib.metadata
import platform

import gradloop

_PACKAGES = {"TensorFlow": "tensorflow", "Keras": "keras", "NumPy": "numpy"}


def describe_versions() -> str:
    """Returns one line."""
    found = {name: _version(package) for name, package in _PACKAGES.items()}
    found |= {"Python": platform.python_version()}
    others = ", ".join(f"{name} {version}" for name, version in found.items())
    return f"gradloop {gradloop.__version__} ({others})"


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # or of another name, as tensorflow-cpu
        return "unknown"
