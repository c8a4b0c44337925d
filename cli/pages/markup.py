"""HTML from Python. Text is escaped unless it is `Markup`: what a run writes is not trusted."""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Iterable
from importlib import resources


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def tag(name: str, /, *children: str | None, **attributes: object) -> Markup:
    """Returns an element.

    Args:
      name: Of the element.
      *children: What is in it, in order; text is escaped, None is left out.
      **attributes: An underscore stands for `-`, one at the end (`class_`) for nothing. None and
        False leave the attribute out, True writes its name alone.

    Example:
      >>> tag("p", "1 < 2, ", tag("b", "always"), class_="note")
      '<p class="note">1 &lt; 2, <b>always</b></p>'
    """
    words = [name, *(_attribute(key, value) for key, value in attributes.items())]
    opening = f"<{' '.join(word for word in words if word)}>"
    if name in ("img", "meta", "line", "rect", "circle", "path"):
        closing = "" if name in ("img", "meta") else f"</{name}>"
        return Markup(opening + closing)
    return Markup(f"{opening}{join(children)}</{name}>")


def join(children: Iterable[str | None]) -> Markup:
    """Returns children one after another; text is escaped, None is left out."""
    return Markup("".join(escape(child) for child in children if child is not None))


def escape(text: str) -> Markup:
    """Returns text as HTML; `Markup` as it is."""
    return text if isinstance(text, Markup) else Markup(html.escape(text))


def table(
    header: Iterable[str], rows: Iterable[Iterable[str | None]], *, caption: str, class_: str = ""
) -> Markup:
    """Returns a table that scrolls if it is too wide. The first cell of a row is its header."""
    head = tag("tr", *(tag("th", cell, scope="col") for cell in header))
    body = [tag("tr", *_cells(list(row))) for row in rows]
    name = tag("caption", caption)
    inner = tag("table", name, tag("thead", head), tag("tbody", *body), class_=class_ or None)
    return tag("div", inner, class_="scroll", tabindex="0", role="region", aria_label=caption)


def fold(summary: str, *children: str | None, is_open: bool = False) -> Markup:
    """Returns a part that a reader opens and closes."""
    return tag("details", tag("summary", summary), *children, open=is_open)


def document(title: str, *children: str | None) -> Markup:
    """Returns a whole page: it loads nothing, and runs no script but ours."""
    style, script = _resource("style.css"), _resource("script.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
    policy += f"script-src 'sha256-{digest}'"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("style", Markup(style)),
    )
    body = tag("body", tag("main", *children), tag("script", Markup(script)))
    return Markup(f'<!DOCTYPE html>\n<html lang="en">{head}{body}</html>\n')


def _cells(row: list[str | None]) -> list[Markup]:
    return [tag("th", row[0], scope="row"), *(tag("td", cell) for cell in row[1:])]


def _attribute(name: str, value: object) -> str:
    if value is None or value is False:
        return ""
    name = name.rstrip("_").replace("_", "-") if name != "viewBox" else name
    return name if value is True else f'{name}="{html.escape(str(value))}"'


def _resource(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text("utf-8")
