"""Markup that cannot forget to escape: plain text becomes markup only through `element`, which escapes it.

What comes out is HTML that is well-formed XML, too.
"""

import html
import re
from collections.abc import Iterable, Sequence
from typing import TypeAlias

Attribute: TypeAlias = str | float | int


class Markup(str):
    """Text that is markup already and is put in as it is."""

    __slots__ = ()


Content: TypeAlias = Markup | str
"""What may stand in an element: markup as it is, any other text escaped."""

_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def escape(content: Content) -> Markup:
    """Return text as markup; characters that no page may hold become U+FFFD."""
    if isinstance(content, Markup):
        return content
    return Markup(html.escape(_UNPRINTABLE.sub("\ufffd", content.replace("\r\n", "\n").replace("\r", "\n"))))


def join(parts: Iterable[Content]) -> Markup:
    """Put pieces one after the other, escaping those that are plain text."""
    return Markup("".join(escape(part) for part in parts))


def element(tag: str, *contents: Content, **attributes: Attribute) -> Markup:
    """Make an element.

    Parameters
    ----------
    tag : str
        Its name.
    *contents : str or Markup
        What stands in it; plain text is escaped.
    **attributes : str or number
        ``class_`` stands for ``class``, other underscores for hyphens; numbers get two decimals.

    Returns
    -------
    Markup

    Examples
    --------
    >>> element("p", "1 < 2", class_="note")
    '<p class="note">1 &lt; 2</p>'
    """
    shown = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(_attribute(value))}"' for name, value in attributes.items()
    )
    inner = join(contents)
    return Markup(f"<{tag}{shown}>{inner}</{tag}>" if inner or tag not in _VOID else f"<{tag}{shown}/>")


_VOID = {"meta", "line", "circle", "rect", "path", "polyline", "br"}


def _attribute(value: Attribute) -> str:
    return value if isinstance(value, str) else f"{round(value, 2):g}" if abs(value) < 1e4 else str(round(value))


def table(
    caption: str, columns: Sequence[Content], rows: Sequence[Sequence[Content]], class_: str = "numbers"
) -> Markup:
    """Make a table whose first column names its rows, in a box that scrolls where the screen is narrow."""
    head = element("tr", *(element("th", name, scope="col") for name in columns))
    body = [
        element("tr", element("th", row[0], scope="row"), *(cell if _is_cell(cell) else element("td", cell)
                                                           for cell in row[1:]))
        for row in rows
    ]  # fmt: skip
    inner = element(
        "table",
        element("caption", element("span", caption)),
        element("thead", head),
        element("tbody", *body),
        class_=class_,
    )
    return element("div", inner, class_="scroll", tabindex="0", role="region", aria_label=caption)


def _is_cell(content: Content) -> bool:
    return isinstance(content, Markup) and content.startswith("<td")


def paragraph(*contents: Content, class_: str = "") -> Markup:
    """Make a paragraph."""
    return element("p", *contents, class_=class_) if class_ else element("p", *contents)


def details(summary: Content, *contents: Content) -> Markup:
    """Make something that opens on a click."""
    return element("details", element("summary", summary), *contents)
