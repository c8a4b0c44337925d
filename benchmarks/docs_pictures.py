"""Makes the pictures of docs/command_line.md and the README's curves, from runs that it does.

    python -m benchmarks.docs_pictures        # or make docs-pictures; needs Chromium and matplotlib

The runs are seeded, so that their curves are the same each time; times and speeds are not.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from benchmarks import ROOT, browser

IMAGES = ROOT / "docs" / "images"
_FASHION = ("--model", "dense", "--dataset", "fashion_mnist", "--epochs", "8", "--quiet")
RUNS = (
    ("--run_dir", "runs/first", "--quiet"),
    (*_FASHION, "--run_dir", "runs/default", "--tags", "fashion,dense"),
    (*_FASHION, "--run_dir", "runs/faster", "--learning_rate", "0.003"),
    ("--mode", "predict", "--run_dir", "runs/default", "--resume", "--quiet"),
    ("--mode", "compare_runs", "runs/default", "runs/faster", "--run_dir", "runs/compared"),
)
PICTURES = {
    "runs/first/plots/history.png": "curves.png",
    "runs/default/plots/history.png": "history.png",
    "runs/default/plots/confusion_matrix.png": "confusion_matrix.png",
    "runs/default/plots/worst_mistakes.png": "worst_mistakes.png",
    "runs/compared/compare.png": "compare.png",
}
# Page, picture, width and height of the window, and the scheme.
SCREENS = (
    ("runs/default/report.html", "report.png", 1400, 1180, "light"),
    ("runs/default/report.html", "report_narrow.png", 400, 1180, "dark"),
    ("runs/compared/compare.html", "compare_page.png", 1400, 1180, "light"),
)
MAX_BYTES = 150_000
_NUM_COLORS = 200


def make(directory: Path, images: Path) -> None:
    """Does the runs in a directory, and writes the pictures.

    Raises:
      ValueError: If a picture is too large for a repository.
    """
    for flags in RUNS:
        print("train.py", *flags)
        subprocess.run([sys.executable, str(ROOT / "train.py"), *flags], cwd=directory, check=True)
    for source, name in PICTURES.items():
        save_small(directory / source, images / name)
    take_screens(directory, images)


def take_screens(directory: Path, images: Path) -> None:
    """Writes what a browser shows of the pages."""
    with browser.running(directory / "profile") as page:
        for source, name, width, height, scheme in SCREENS:
            features = [{"name": "prefers-color-scheme", "value": scheme}]
            page.call("Emulation.setEmulatedMedia", features=features)
            page.open(directory / source, width, height)
            page.screenshot(directory / name)
            save_small(directory / name, images / name)


def save_small(source: Path, path: Path) -> None:
    """Writes a picture with a palette.

    Raises:
      ValueError: If it is too large all the same.
    """
    with Image.open(source) as image:
        image.convert("RGB").quantize(_NUM_COLORS).save(path, optimize=True)
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise ValueError(f"{path} has {size:,} bytes, and {MAX_BYTES:,} are the limit.")
    print(f"{path}: {size:,} bytes")


def main(argv: Sequence[str] | None = None) -> None:
    """Makes all pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, default=IMAGES, help="where the pictures go")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as directory:
        make(Path(directory), arguments.images)


if __name__ == "__main__":
    main()
