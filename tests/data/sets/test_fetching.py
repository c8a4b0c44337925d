"""What a source gives is verified, set aside if it is bad, and the next is tried."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest

from gradloop.data.sets import idx, sources
from gradloop.data.sets.idx import BadFileError, Fetched
from tests.data.sets.small_files import (
    IMAGES,
    ROOT,
    SMALL,
    assert_good,
    fail,
    good,
    make_files,
    make_spec,
    names,
    npz_bytes,
    write,
)

pytestmark = pytest.mark.usefixtures("cache")


def test_what_a_source_gives_is_verified_set_aside_and_the_next_is_tried(cache, capsys):
    def wrong(scratch):
        archive = scratch / "wrong.tgz"
        archive.write_bytes(b"x")
        return Fetched(make_files(seed=1), archive)

    assert_good(sources.load(make_spec(wrong, good)))
    err = capsys.readouterr().err
    assert "is altered, or belongs to another dataset" in err and "wrong.tgz.bad-1" in err
    assert names(cache) == sorted([*SMALL, "wrong.tgz.bad-1"])


def test_when_all_fail_one_error_lists_each_reason_and_the_fix(cache):
    def bad(scratch):
        raise BadFileError(scratch / "a.whl", "SHA-256 expected 1, actual 2")

    with pytest.raises(ValueError, match="no source") as caught:
        sources.load(make_spec(fail, bad))
    assert type(caught.value) is sources.DataError
    message = str(caught.value)
    assert "source 0: no such host" in message
    assert "source 1: SHA-256 expected 1, actual 2" in message
    assert str(cache) in message and "tiny.npz" in message
    assert all(name in message for name in SMALL)


def test_a_cache_that_cannot_be_written_still_gives_the_data(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("GRADLOOP_DATA", str(tmp_path / "file"))
    assert_good(sources.load(make_spec(good)))
    assert "cannot be written" in capsys.readouterr().err


CHILD = """
    import time
    from pathlib import Path
    from gradloop.data.sets import idx, sources
    from tests.data.sets import small_files as t
    idx.IDX_SHAPES.update(t.SMALL)
    def slow(scratch):
        with open({calls!r}, "a") as calls:
            calls.write("x")
        time.sleep(1.0)
        return t.good(scratch)
    while not Path({go!r}).exists():
        time.sleep(0.01)
    t.assert_good(sources.load(t.make_spec(slow)))
"""


def test_two_processes_that_start_together_do_not_disturb_each_other(cache, tmp_path):
    go, calls = tmp_path / "go", tmp_path / "calls"
    script = textwrap.dedent(CHILD).format(go=str(go), calls=str(calls))
    # One finds a bad file and sets it aside; the other must not set its replacement aside too.
    write(cache, {IMAGES: b"bad", **{n: b for n, b in make_files().items() if n != IMAGES}})
    children = [
        subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    go.touch()
    errors = [child.communicate(timeout=60)[1].decode() for child in children]
    assert [child.returncode for child in children] == [0, 0], errors
    assert calls.read_text() == "x"
    assert names(cache) == sorted([*SMALL, f"{IMAGES}.bad-1"])


def test_an_intact_keras_cache_is_used_and_a_bad_one_left_alone(tmp_path, capsys):
    def keras_cache(scratch):
        # The folder of MNIST's; the name decides only which .npz is read.
        folder = tmp_path / "keras" / "datasets"
        fetched = idx.read_folder("tiny", folder)
        assert fetched is not None
        return fetched

    npz = tmp_path / "keras" / "datasets" / "tiny.npz"
    write(npz.parent, {"tiny.npz": npz_bytes(y_test=np.zeros(10, np.uint8))})
    assert_good(sources.load(make_spec(keras_cache, good)))
    assert f"SHA-256 expected {make_spec().sha256['t10k-labels-idx1-ubyte']}" in (
        capsys.readouterr().err
    )
    assert names(npz.parent) == ["tiny.npz"]
