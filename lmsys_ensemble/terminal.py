r"""What is printed on a terminal is text, never a command to the terminal.

Ids, names, paths and texts come from strangers. An escape sequence in one of them could move the cursor, hide lines or
write to the clipboard; a direction mark could show other characters than there are.
"""

import json
import logging
import os
import re
import sys
import textwrap
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_CONTROLS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2028\u2029\u2066-\u2069\ud800-\udfff]"
)
"""C0 and C1 controls but tab and line feed, marks of direction, separators of lines, lone surrogates."""

_ANY_CONTROLS = re.compile(rf"[\t\n]|{_CONTROLS.pattern}")


def printable(text: object) -> str:
    r"""Return text with all that a terminal would obey escaped; tabs and line feeds stay.

    >>> printable("mine\x1b[2Jyours"), printable("grün\tand\n日本 🙂")
    ('mine\\x1b[2Jyours', 'grün\tand\n日本 🙂')
    """
    return _CONTROLS.sub(lambda match: match[0].encode("unicode_escape").decode(), str(text))


def printable_json(values: Any) -> str:
    r"""Return indented JSON that means the same everywhere and holds no character that a terminal would obey.

    >>> printable_json({"id": "\x9b2J"})
    '{\n  "id": "\\u009b2J"\n}'
    """
    text = json.dumps(values, indent=2, ensure_ascii=False)
    return _CONTROLS.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def has_control_characters(text: str) -> bool:
    """Tell whether `text` is more than one line of plain characters."""
    return _ANY_CONTROLS.search(text) is not None


class PrintableFormatter(logging.Formatter):
    """Formats log records for a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's text, tracebacks included."""
        return printable(super().format(record))


@contextmanager
def starting() -> Iterator[None]:
    """Show on a terminal that the command is starting while modules are imported, and erase that afterwards."""
    if not sys.stderr.isatty():
        yield
        return
    print("starting", end="", file=sys.stderr, flush=True)
    try:
        yield
    finally:
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def log_to_terminal(level: int) -> None:
    """Write log records of `level` and above to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(PrintableFormatter("%(message)s"))
    logging.basicConfig(level=level, handlers=[handler])


@contextmanager
def plain_warnings() -> Iterator[None]:
    """Write warnings of this library as sentences, without the place in its code that gave them."""
    before = warnings.formatwarning

    def plain(
        message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
    ) -> str:
        if category.__module__.startswith("lmsys_ensemble."):
            return f"{paragraph(message, f'warning: {message}')}\n"
        return before(message, category, filename, lineno, line)

    warnings.formatwarning = plain
    try:
        yield
    finally:
        warnings.formatwarning = before


def paragraph(error: BaseException | str, headline: str = "") -> str:
    """Return an error and its notes, wrapped between words; paths and options stay whole."""
    text = printable("\n".join([headline or f"error: {error}", *getattr(error, "__notes__", [])]))
    wrap = textwrap.TextWrapper(_width(), subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
    return "\n".join(wrap.fill(line) for line in text.splitlines())


def _width() -> int:
    """Return the width of the terminal that errors are written to; elsewhere one that logs can take."""
    if not sys.stderr.isatty():
        return 110
    try:
        return max(os.get_terminal_size(sys.stderr.fileno()).columns - 1, 20)
    except OSError:  # it says that it is a terminal, and has no size
        return 79
