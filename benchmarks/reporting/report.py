"""Makes docs/benchmarks.md, the README's section on speed and the charts from the records.

    python -m benchmarks.reporting.report            # writes them
    python -m benchmarks.reporting.report --check    # writes nothing, exits with 1 if one is stale

The newest record in benchmarks/results counts, for each workload on each machine. Tables and
conclusions are made from the records alone. Explanations of missed targets are written by hand, in
docs/benchmarks_notes.md and in a record's `notes`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import RESULTS, ROOT
from benchmarks.reporting import charts, pages
from benchmarks.reporting.targets import Record, name_of
from gradloop.files import write_atomically
from gradloop.usage import EXIT_USAGE

PAGE = Path("docs/benchmarks.md")
NOTES = Path("docs/benchmarks_notes.md")
README = Path("README.md")
IMAGES = Path("docs/images")
BEGIN, END = "<!-- benchmarks:begin -->", "<!-- benchmarks:end -->"
EXIT_STALE = 1


class ReportError(ValueError):
    """A record or a file cannot be used; the message says which, and why."""


def read_records(directory: Path) -> list[Record]:
    """Returns the newest record of each workload and machine, in the order of `pages.rank`.

    Raises:
      ReportError: If a file is not a record.
    """
    newest: dict[tuple[str, str], Record] = {}
    for path in sorted(directory.glob("*.json")):
        record = _read_record(path)
        key = (name_of(record), record["hardware"])
        if key not in newest or record["date"] >= newest[key]["date"]:
            newest[key] = record
    return [newest[key] for key in sorted(newest, key=pages.rank)]


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
    if not {"arms", "cells", "images", "accuracies"} & record.keys():
        raise ReportError(f"{path} has no arms, cells, images or accuracies: it is not a record.")
    return record


def make_texts(root: Path) -> dict[Path, str]:
    """Returns the texts of docs/benchmarks.md and of the README, made from the records.

    Args:
      root: Of the checkout.

    Raises:
      ReportError: If a record or the README cannot be used.
    """
    records = read_records(root / RESULTS)
    notes = root / NOTES
    hand_written = notes.read_text("utf-8").strip() if notes.exists() else ""
    images = {path.name: record for path, record in chart_paths(records).items()}
    readme = (root / README).read_text("utf-8")
    return {
        PAGE: pages.make_page(records, images, hand_written),
        README: put_between_markers(readme, pages.make_readme_part(records)),
    }


def chart_paths(records: Sequence[Record]) -> dict[Path, Record]:
    """Returns the path of each chart to the record that it shows."""
    raced = [record for record in records if "arms" in record]
    names = [name_of(record) for record in raced]
    # The machine is in the name of a picture only if the workload ran on several.
    return {
        IMAGES / f"benchmarks_{name}{'' if names.count(name) == 1 else '_' + r['hardware']}.svg": r
        for name, r in zip(names, raced, strict=True)
    }


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
        for path, record in chart_paths(read_records(root / RESULTS)).items()
    }
    changed = [path for path, text in texts.items() if _read(root / path) != text]
    for path in changed:
        _write(root / path, texts[path])
    return changed


def find_stale(root: Path) -> list[Path]:
    """Returns the files that differ from what `write` would write; draws nothing."""
    stale = [path for path, text in make_texts(root).items() if _read(root / path) != text]
    drawn = chart_paths(read_records(root / RESULTS))
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
    print("\n".join(f"wrote {path}" for path in changed) or "all files are up to date")
    return 0


if __name__ == "__main__":
    sys.exit(main())
