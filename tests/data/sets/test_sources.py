"""The cache and the folders that people name: nothing unverified is used."""

import gzip
import hashlib
import io
import pickle
from pathlib import Path

import numpy as np
import pytest

from gradloop.data.sets import idx, sources
from tests.data.sets.small_files import (
    IMAGES,
    ROOT,
    SMALL,
    Bomb,
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


def never(scratch):
    raise AssertionError("this source must not be tried")


def test_a_source_fills_the_cache_and_the_cache_comes_first(cache, capsys):
    assert_good(sources.load(make_spec(fail, good, never)))
    err = capsys.readouterr().err
    assert "trying source 0" in err and "no such host" in err and "trying source 1" in err
    assert names(cache) == sorted(SMALL)
    assert_good(sources.load(make_spec(never)))
    assert capsys.readouterr().err == ""


def test_cache_dir_is_the_variable_else_the_users_cache(tmp_path, monkeypatch):
    assert sources.cache_dir() == tmp_path / "cache"
    monkeypatch.delenv("GRADLOOP_DATA")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert sources.cache_dir() == tmp_path / "xdg" / "gradloop"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert sources.cache_dir() == Path.home() / ".cache" / "gradloop"
    assert ROOT not in sources.cache_dir().parents


def test_an_empty_data_dir_is_downloaded_into_instead_of_the_cache(cache, tmp_path):
    assert_good(sources.load(make_spec(good), tmp_path / "mine"))
    assert names(tmp_path / "mine" / "tiny") == sorted(SMALL)
    assert not cache.exists()
    assert_good(sources.load(make_spec(never), tmp_path / "mine"))


def altered(content):
    return content[:-1] + bytes([content[-1] ^ 1])


FAULTS = {
    "is truncated": lambda content: content[:100],
    "is altered": altered,
    "has the wrong shape": lambda _: idx.encode(np.zeros((60, 5, 5), np.uint8)),
    "is not an IDX file": lambda content: b"<html>" + content[6:],
}


@pytest.mark.parametrize("words", FAULTS)
def test_a_bad_cache_file_is_set_aside_and_named(cache, capsys, words):
    for number in (1, 2):
        write(cache, {**make_files(), IMAGES: FAULTS[words](make_files()[IMAGES])})
        assert_good(sources.load(make_spec(good)))
        err = capsys.readouterr().err
        assert words in err and str(cache / IMAGES) in err and f"{IMAGES}.bad-{number}" in err
    assert names(cache) == sorted([*SMALL, f"{IMAGES}.bad-1", f"{IMAGES}.bad-2"])
    assert (cache / f"{IMAGES}.bad-1").read_bytes() == FAULTS[words](make_files()[IMAGES])


@pytest.mark.parametrize("words", FAULTS)
def test_a_bad_file_in_a_named_folder_is_an_error_and_stays(tmp_path, words):
    bad = FAULTS[words](make_files()[IMAGES])
    write(tmp_path / "mine", {**make_files(), IMAGES: bad})
    with pytest.raises(sources.DataError, match=words) as caught:
        sources.load(make_spec(never), tmp_path / "mine")
    message = str(caught.value)
    assert "\n" not in message
    assert str(tmp_path / "mine" / IMAGES) in message
    assert hashlib.sha256(bad).hexdigest() in message
    assert make_spec().sha256[IMAGES] in message
    assert sorted(p.name for p in (tmp_path / "mine").iterdir()) == sorted(SMALL)
    assert (tmp_path / "mine" / IMAGES).read_bytes() == bad


def test_a_data_dir_that_was_downloaded_into_is_a_named_folder_too(tmp_path):
    sources.load(make_spec(good), tmp_path / "mine")
    path = tmp_path / "mine" / "tiny" / IMAGES
    path.write_bytes(altered(path.read_bytes()))
    with pytest.raises(sources.DataError, match="is altered"):
        sources.load(make_spec(never), tmp_path / "mine")
    assert path.exists()


def test_a_named_folder_that_lacks_files_says_which(tmp_path):
    files = make_files()
    del files["t10k-labels-idx1-ubyte"]
    write(tmp_path / "mine", files)
    with pytest.raises(sources.DataError, match="missing: t10k-labels-idx1-ubyte"):
        sources.load(make_spec(never), tmp_path / "mine")


def test_a_file_for_a_data_dir_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(sources.DataError, match="expected a folder"):
        sources.load(make_spec(never), tmp_path / "file")


def test_files_put_there_by_hand_are_taken_gzipped_or_not_or_as_npz(tmp_path):
    some = {n: b for n, b in make_files().items() if "train" in n}
    rest = {f"{n}.gz": gzip.compress(b) for n, b in make_files().items() if "t10k" in n}
    write(tmp_path / "mixed", {**some, **rest})
    write(tmp_path / "npz", {"tiny.npz": npz_bytes()})
    assert_good(sources.load(make_spec(never), tmp_path / "mixed"))
    assert_good(sources.load(make_spec(never), tmp_path / "npz"))


def npy_bytes(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (lambda: npz_bytes(x_test=np.zeros((10, 3, 3), np.uint8)), "wrong shape"),
        (lambda: npz_bytes(x_test=np.zeros((10, 4, 4), np.float32)), "expected arrays of uint8"),
        (lambda: npz_bytes()[:300], "cannot be read"),
        (lambda: b"garbage", "cannot be read"),
        (lambda: npy_bytes(np.zeros(3)), "cannot be read"),
    ],
)
def test_a_bad_npz_is_an_error_that_says_why(tmp_path, content, words):
    write(tmp_path / "mine", {"tiny.npz": content()})
    with pytest.raises(sources.DataError, match=words):
        sources.load(make_spec(never), tmp_path / "mine")


def test_a_truncated_gzip_is_an_error(tmp_path):
    files = {f"{n}.gz": gzip.compress(b) for n, b in make_files().items()}
    files[f"{IMAGES}.gz"] = files[f"{IMAGES}.gz"][:-20]
    write(tmp_path / "mine", files)
    with pytest.raises(sources.DataError, match=f"{IMAGES}.gz"):
        sources.load(make_spec(never), tmp_path / "mine")


def test_nothing_is_unpickled_from_a_file_without_a_pinned_hash(tmp_path):
    trap = tmp_path / "unpickled"
    for content in (npz_bytes(x_train=np.array([Bomb(trap)], object)), pickle.dumps(Bomb(trap))):
        write(tmp_path / "mine", {"tiny.npz": content})
        with pytest.raises(sources.DataError, match="cannot be read"):
            sources.load(make_spec(never), tmp_path / "mine")
    assert not trap.exists()
