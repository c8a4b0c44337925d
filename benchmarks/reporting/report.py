"""Makes docs/benchmarks.md, the README's section on speed and the charts from the records.

    python -m benchmarks.reporting.report            # writes them
    python -m benchmarks.reporting.report --check    # writes nothing, exits with 1 if one is stale

All records of a workload on a kind of machine count, as runs of one race. Tables and conclusions
are made from the records alone. Why a target is missed is written by hand, by workload, in
docs/benchmarks_notes.md; a target that is missed and has no reason there is named.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import RESULTS, ROOT
from benchmarks.reporting import charts, pages, races
from benchmarks.reporting.races import Race, Record
from gradloop.files import write_atomically
from gradloop.usage import EXIT_USAGE

PAGE = Path("docs/benchmarks.md")
NOTES = Path("docs/benchmarks_notes.md")
README = Path("README.md")
IMAGES = Path("docs/images")
BEGIN, END = "<!-- benchmarks:begin -->", "<!-- benchmarks:end -->"
EXIT_STALE = 1
# A record has one of these.
_KINDS = {"arms", "cells", "images", "accuracies", "inference", "gallery", "memory_arms"}


class ReportError(ValueError):
    """A record or a file cannot be used; the message says which, and why."""


def read_races(directory: Path) -> dict[tuple[str, str], Race]:
    """Returns the races by name and hardware, in the order of `pages.rank`.

    Raises:
      ReportError: If a file is not a record.
    """
    raced = races.group(map(_read_record, sorted(directory.glob("*.json"))))
    return {key: raced[key] for key in sorted(raced, key=pages.rank)}


def _read_record(path: Path) -> dict[str, Any]:
    try:
        record: dict[str, Any] = json.loads(path.read_text("utf-8"))
        missing = {"workload", "hardware", "date", "command", "environment"} - record.keys()
    except (OSError, ValueError, AttributeError) as error:
        raise ReportError(f"{path} cannot be read as a record: {error}") from error
    if missing:
        raise ReportError(
            f"{path} has no {', '.join(sorted(missing))}: it is not a record of this version; "
            "remove it and measure again."
        )
    if not _KINDS & record.keys():
        raise ReportError(f"{path} has no {', '.join(sorted(_KINDS))}: it is not a record.")
    if "arms" in record and "stopped_by" not in record:
        raise ReportError(
            f"{path} does not say what it was stopped_by: it is of a former method, whose ratios "
            "do not compare pairs; remove it and measure again."
        )
    return record


def make_texts(root: Path) -> dict[Path, str]:
    """Returns the texts of docs/benchmarks.md and of the README, made from the records.

    Args:
      root: Of the checkout.

    Raises:
      ReportError: If a record or the README cannot be used.
    """
    raced = read_races(root / RESULTS)
    images = {path.name: record for path, record in chart_paths(raced).items()}
    readme = (root / README).read_text("utf-8")
    return {
        PAGE: pages.make_page(raced, images, _read(root / NOTES)),
        README: put_between_markers(readme, pages.make_readme_part(raced)),
    }


def chart_paths(raced: Mapping[tuple[str, str], Race]) -> dict[Path, Record]:
    """Returns the path of each chart to the record that it shows."""
    drawn = {key: race.fullest for key, race in raced.items() if "arms" in race.newest}
    names = [name for name, _ in drawn]
    # The machine is in the name of a picture only if the workload ran on several.
    return {
        IMAGES / f"benchmarks_{name}{'' if names.count(name) == 1 else '_' + hardware}.svg": record
        for (name, hardware), record in drawn.items()
    }


def find_unexplained(root: Path) -> list[str]:
    """Returns a line for each target that is missed, and has no reason in the notes.

    Raises:
      ReportError: If a record cannot be used.
    """
    return pages.find_unexplained(read_races(root / RESULTS), _read(root / NOTES))


def put_between_markers(text: str, part: str) -> str:
    """Returns a text with the part between its markers replaced.

    Raises:
      ReportError: If the text does not have both markers once, in this order.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end) or BEGIN in rest or END in after:
        raise ReportError(f"{README} must have one {BEGIN} and after it one {END}.")
    return f"{before}{BEGIN}\n{part.strip()}\n{END}{after}"


def write(root: Path) -> list[Path]:
    """Writes all files and returns those that changed."""
    texts = make_texts(root)
    texts |= {
        path: charts.draw(record)
        for path, record in chart_paths(read_races(root / RESULTS)).items()
    }
    changed = [path for path, text in texts.items() if _read(root / path) != text]
    for path in changed:
        _write(root / path, texts[path])
    return changed


def find_stale(root: Path) -> list[Path]:
    """Returns the files that differ from what `write` would write; draws nothing."""
    stale = [path for path, text in make_texts(root).items() if _read(root / path) != text]
    drawn = chart_paths(read_races(root / RESULTS))
    return stale + [
        path for path, record in drawn.items() if charts.digest(record) not in _read(root / path)
    ]


def _read(path: Path) -> str:
    return path.read_text("utf-8") if path.exists() else ""


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda file: file.write(text))


def main(argv: Sequence[str] | None = None) -> int:
    """Writes or checks the files.

    Returns:
      0; 1 if --check finds a file out of date; 2 if a record or the README cannot be used.
    """
    parser = argparse.ArgumentParser(
        prog="benchmarks.reporting.report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit with 1 if a file is out of date"
    )
    parser.add_argument("--root", type=Path, default=ROOT, help="the checkout (default: this one)")
    arguments = parser.parse_args(argv)
    try:
        if arguments.check:
            stale = find_stale(arguments.root)
            for path in stale:
                print(f"{path} is out of date: run `python -m benchmarks.reporting.report`")
            return EXIT_STALE if stale else 0
        changed = write(arguments.root)
    except (ReportError, charts.NoMatplotlib, OSError) as error:
        print(f"benchmarks.reporting.report: error: {error}", file=sys.stderr)
        return EXIT_USAGE
    for line in find_unexplained(arguments.root):
        print(f"no reason in {NOTES}: {line}", file=sys.stderr)
    print("\n".join(f"wrote {path}" for path in changed) or "all files are up to date")
    return 0


if __name__ == "__main__":
    sys.exit(main())
