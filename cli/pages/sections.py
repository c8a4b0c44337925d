"""What the page of a run shows, section by section; None where there is nothing to show."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..config import JobConfig
from . import curves
from .markup import Markup, fold, table, tag
from .run_files import RunFiles, number, part
from .words import name_part, show_bytes, show_number, show_secs, show_value

_MAX_PICTURE_BYTES = 4 << 20
_MAX_LOG_LINES = 60
_SMALL_SHARE = 0.005


def head(run: RunFiles) -> Markup:
    """Returns the title of the page, and how the run ended."""
    status = str(run.summary.get("status") or "not ended")
    reason = run.summary.get("exit_reason")
    if not run.summary:
        reason = "there is no summary.json: the run is going on, or it was killed"
    tags = run.config.get("tags")
    words = tags if isinstance(tags, list) else []
    badges = [tag("span", str(word), class_="tag") for word in words]
    how = f" {reason}" if reason and reason != status else None
    return tag(
        "header",
        tag("h1", run.work),
        tag("p", tag("span", status, class_=f"status {_kind(status)}"), how),
        tag("p", tag("b", run.name), " in ", tag("code", str(run.path)), class_="where"),
        tag("p", *badges) if badges else None,
        _facts(run),
    )


def _kind(status: str) -> str:
    kinds = {"completed": "good", "stopped": "good", "failed": "bad", "diverged": "bad"}
    return kinds.get(status, "other")


def _facts(run: RunFiles) -> Markup:
    summary = run.summary
    accuracy = number(summary.get("test_accuracy"))
    logs = {
        f"test {k}": number(v) for k, v in part(summary, "test_logs").items() if k != "accuracy"
    }
    best = curves.best_epoch(run)
    speed = number(summary.get("steady_images_per_sec")) or number(summary.get("images_per_sec"))
    facts = {
        "test accuracy": f"{accuracy:.2%}" if accuracy is not None else None,
        **{name: show_number(value) for name, value in logs.items() if value is not None},
        "best epoch": f"{best[0]} ({best[1]} {show_number(best[2])})" if best else None,
        "steps": show_number(number(summary.get("num_steps"))) if summary else None,
        "training": show_secs(number(summary.get("train_secs")))
        if "train_secs" in summary
        else None,
        "examples a second": f"{speed:,.0f}" if speed else None,
        "peak memory": show_bytes(number(summary.get("peak_memory_bytes"))) if summary else None,
        "started": _moment(summary.get("started_at")),
        "ended": _moment(summary.get("ended_at")),
    }
    cards = [tag("div", tag("dt", name), tag("dd", text)) for name, text in facts.items() if text]
    return tag("dl", *cards, class_="facts")


def _moment(value: Any) -> str | None:
    return str(value).replace("T", " ")[:19] if isinstance(value, str) and value else None


def where_the_time_went(run: RunFiles) -> Markup | None:
    """Returns the parts of the wall time, the largest first."""
    timing = part(run.summary, "timing")
    rows: list[list[str]] = []
    small: list[list[str]] = []
    for name, values in part(timing, "parts").items():
        found = values if isinstance(values, dict) else {}
        secs, share = number(found.get("secs")), number(found.get("share"))
        if secs is not None and share is not None:
            bar = tag("div", class_="bar", style=f"width:{100 * min(max(share, 0), 1):.1f}%")
            row = [name_part(name), show_secs(secs), f"{share:.1%}", bar]
            (rows if share >= _SMALL_SHARE else small).append(row)
    if not rows:
        return None
    header = ["part", "time", "share", ""]
    body = table(header, rows, caption="Where the time went", class_="times")
    more = None
    if small:
        rest = table(header, small, caption="Smaller parts", class_="times")
        more = fold(f"{len(small)} smaller parts", rest)
    return section("Where the time went", _describe_time(timing), body, more, _traces(run))


def _describe_time(timing: dict[str, Any]) -> Markup:
    wall, step = number(timing.get("wall_secs")), part(timing, "step_secs")
    lines = [f"{show_secs(wall)} in all"] if wall is not None else []
    if number(step.get("p50")) is not None:
        percents = [f"{show_secs(number(step.get(p)))} ({p})" for p in ("p50", "p95", "p99")]
        lines.append(f"a step takes {', '.join(percents)}")
    return tag("p", "; ".join(lines) + ".")


def _traces(run: RunFiles) -> Markup | None:
    found = run.summary.get("traces")
    traces = [t for t in found if isinstance(t, dict)] if isinstance(found, list) else []
    rows = [[str(t.get("function")), str(t.get("cause"))] for t in traces]
    return (
        fold("Traced graphs", table(["function", "why"], rows, caption="Traces")) if rows else None
    )


def settings(run: RunFiles) -> Markup | None:
    """Returns all settings; those that are not the default come first."""
    if not run.config:
        return None
    fields = {field.name: field for field in dataclasses.fields(JobConfig)}
    changed, groups = [], dict[str, list[list[str]]]()
    for name, value in run.config.items():
        field = fields.get(name)
        text = show_value(value)
        if field is None:
            groups.setdefault("of another version", []).append([name, text, ""])
            continue
        groups.setdefault(field.metadata["group"], []).append([name, text, field.metadata["help"]])
        if value != _default(field):
            changed.append([name, text, show_value(_default(field))])
    first: Markup = tag("p", "All settings have their defaults.")
    if changed:
        header = ["setting", "value", "default"]
        first = table(header, changed, caption="Settings that differ from the defaults")
    folds = [
        fold(
            f"{group} ({len(rows)})", table(["setting", "value", "what it is"], rows, caption=group)
        )
        for group, rows in groups.items()
    ]
    return section("Settings", first, fold("All settings", *folds))


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def environment(run: RunFiles) -> Markup | None:
    """Returns versions, devices, and the state of the checkout."""
    rows = []
    for name, value in run.environment.items():
        if isinstance(value, dict):
            inner = [(f"{name}: {key}", item) for key, item in value.items()]
            rows += [[key, show_value(item)] for key, item in inner if item not in (None, [], {})]
        elif value is not None:
            rows.append([name.replace("_", " "), show_value(value)])
    if not rows:
        return None
    return section("Environment", table(["what", "value"], rows, caption="Environment"))


def later_results(run: RunFiles) -> Markup | None:
    """Returns what evaluate and predict found, once the run had ended."""
    rows = []
    for mode, summary in run.later.items():
        logs = part(summary, "test_logs") or {"accuracy": summary.get("test_accuracy")}
        found = {name: number(value) for name, value in logs.items()}
        words = [f"{n} {show_number(v)}" for n, v in found.items() if v is not None]
        rows.append([mode, str(summary.get("status") or "-"), ", ".join(words) or "-"])
    if not rows:
        return None
    return section("Later", table(["mode", "status", "on the test set"], rows, caption="Later"))


def log(run: RunFiles) -> Markup | None:
    """Returns the commands, the warnings, and the end of the log."""
    warnings = [line for line in run.log if "warning:" in line.lower() or "error:" in line]
    parts: list[Markup] = []
    if run.commands:
        parts += [tag("pre", "\n".join(run.commands), tabindex="0")]
    if warnings:
        items = [tag("li", line) for line in dict.fromkeys(warnings)]
        parts += [tag("h3", "Warnings and errors"), tag("ul", *items, class_="warnings")]
    if run.log:
        text = "\n".join(run.log[-_MAX_LOG_LINES:])
        parts += [fold("The end of train.log", tag("pre", text, tabindex="0"))]
    return section("Command and log", *parts) if parts else None


def pictures(run: RunFiles, names: Sequence[tuple[str, str]]) -> list[Markup]:
    """Returns those pictures of the folder that are there, embedded.

    Args:
      run: The run.
      names: Path below the folder, and what is to be seen.
    """
    found = []
    for name, text in names:
        source = _embed(run.path / name)
        if source is not None:
            image = tag("img", src=source, alt=text)
            found.append(tag("figure", image, tag("figcaption", text)))
    return found


def profiles(run: RunFiles) -> Markup | None:
    """Returns the pictures of profiles."""
    paths = sorted(run.path.glob("profile*/*.png"))
    names = [(str(p.relative_to(run.path)), f"Profile: {p.parent.name}") for p in paths]
    found = pictures(run, names)
    return section("Profile", *found) if found else None


def _embed(path: Path) -> str | None:
    try:
        content = path.read_bytes() if path.stat().st_size <= _MAX_PICTURE_BYTES else b""
    except OSError:
        return None
    if not content.startswith(b"\x89PNG"):
        return None
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"


def section(title: str, *children: str | None) -> Markup:
    """Returns a section of a page."""
    return tag("section", tag("h2", title), *children)
