"""report.html: the page of a run, in its folder."""

from __future__ import annotations

from pathlib import Path

from gradloop.files import write_atomically

from . import curves, predictions, run_files, sections
from .markup import Markup, document, tag

NAME = "report.html"


def write(folder: str | Path) -> Path:
    """Writes report.html into the folder of a run, from the files that are there.

    It needs no TensorFlow, and the page needs no network. What is missing or damaged is left out,
    and the page says so. Of several workers, the chief calls it.

    Args:
      folder: Of a run that has ended or is going on.

    Returns:
      The page's path.

    Raises:
      OSError: If it cannot be written.
    """
    path = Path(folder) / NAME
    text = make(run_files.read(folder))
    # What a run wrote may hold halves of characters, which UTF-8 does not know.
    content = text.encode("utf-8", errors="replace")
    write_atomically(path, lambda file: file.write(content), mode="wb")
    return path


def make(run: run_files.RunFiles) -> Markup:
    """Returns the page of a run."""
    drawn = curves.make(run)
    parts = {
        "Curves": sections.section("Curves", *drawn) if drawn else None,
        "Later": sections.later_results(run),
        "Predictions": predictions.section(run),
        "Where the time went": sections.where_the_time_went(run),
        "Profile": sections.profiles(run),
        "Settings": sections.settings(run),
        "Environment": sections.environment(run),
        "Command and log": sections.log(run),
    }
    optional = ("Later", "Profile")
    missing = [name for name, part in parts.items() if part is None and name not in optional]
    note = None
    if missing:
        note = tag("p", f"Not there: {', '.join(missing).lower()}.", class_="note")
    footer = tag("footer", "Written by gradloop from the files of the run.", note)
    return document(f"{run.work}: {run.name}", sections.head(run), *parts.values(), footer)
