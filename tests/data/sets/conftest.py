import pytest

from gradloop.data.sets import idx
from tests.data.sets.small_files import SMALL


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Small datasets, and a cache and a Keras home of this test alone."""
    for name, shape in SMALL.items():
        monkeypatch.setitem(idx.IDX_SHAPES, name, shape)
    monkeypatch.setenv("GRADLOOP_DATA", str(tmp_path / "cache"))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    return tmp_path / "cache" / "tiny"
