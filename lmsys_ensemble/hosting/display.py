"""Bars on a terminal: a line per scorer, from the first second on, as wide as the terminal and no wider."""

import logging
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Literal, Self, TypeAlias, get_args

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from lmsys_ensemble.errors import ConfigError
from lmsys_ensemble.settings import suggest

logger = logging.getLogger(__name__)

Display: TypeAlias = Literal["auto", "bars", "lines", "off"]
"""``auto`` shows bars on a terminal and is silent elsewhere; ``lines`` writes one line per scorer when it is done."""

REDRAW_SECONDS = 0.2

_BAR_CELLS = (6, 40)
"""Fewest and most characters of the bar itself."""


def check_display(display: Display) -> Display:
    """Return how progress is shown; raise `ConfigError` for an unknown way."""
    known = get_args(Display)
    if display not in known:
        raise ConfigError(f"progress must be one of {', '.join(known)}, got {display!r}{suggest(str(display), known)}")
    return display


@dataclass(frozen=True)
class Standing:
    """How far a scorer is.

    Attributes
    ----------
    name, device : str
        Of the scorer; the device is empty until it is known.
    phase : str
        What is being done (``loading``...); empty while rows are scored and afterwards.
    n_done, n_wanted : int
        Rows of the user's table, or passes over them.
    unit : str
        ``rows`` or ``passes``.
    elapsed : str
        Time since the start.
    tokens_per_second : float
        0 where there are no tokens.
    left : str
        Time that is left; empty where it is not known.
    """

    name: str
    device: str = ""
    phase: str = ""
    n_done: int = 0
    n_wanted: int = 0
    unit: str = "rows"
    elapsed: str = "00:00"
    tokens_per_second: float = 0.0
    left: str = ""


def draw(standing: Standing, width: int) -> str:
    """Return a line of at most `width` characters; what does not fit is left out whole, the least needed first."""
    short = standing.name
    full = f"{short} ({standing.device})" if standing.device else short
    if standing.phase:
        phase = f": {standing.phase}"
        lines = [f"{full}{phase} [{standing.elapsed}]", f"{short}{phase} [{standing.elapsed}]", f"{short}{phase}"]
        return _first_that_fits(lines, width) or _shortened(short, phase, width)
    left = f"{standing.left} left" if standing.left else ""
    rate = f"{standing.tokens_per_second:,.0f} tokens/s" if standing.tokens_per_second else ""
    percent = f"{standing.n_done / standing.n_wanted if standing.n_wanted else 1.0:.0%}"
    count = f"{standing.n_done}/{standing.n_wanted} {standing.unit}"
    for title in (full, short):
        for notes in ([standing.elapsed, rate, left], [standing.elapsed, left], [left or standing.elapsed]):
            ending = f"| {count} [{', '.join(note for note in notes if note)}]"
            room = width - len(f"{title}: {percent:>4}|{ending}")
            if room >= _BAR_CELLS[0]:
                return f"{title}: {percent:>4}|{_bar(standing, min(room, _BAR_CELLS[1]))}{ending}"
    lines = [f"{short}: {percent}, {count}, {left}"] if left else []
    lines.append(f"{short}: {percent}, {count}")
    return _first_that_fits(lines, width) or _shortened(short, f": {percent}", width)


def _bar(standing: Standing, n_cells: int) -> str:
    n_wanted = max(standing.n_wanted, 1)
    n_done = standing.n_done if standing.n_wanted else 1
    return tqdm.format_meter(n_done, n_wanted, 0, bar_format="{bar}", ncols=n_cells)


def _first_that_fits(lines: Sequence[str], width: int) -> str:
    return next((line for line in lines if len(line) <= width), "")


def _shortened(name: str, ending: str, width: int) -> str:
    """Cut the name, and only where nothing else is left to leave out."""
    room = width - len(ending)
    if room >= len(name):
        return name + ending
    return name[: room - 1] + "…" + ending if room >= 2 else ending.removeprefix(": ")[: max(width, 0)]


class _Line(tqdm):  # type: ignore[type-arg]
    """A line of the terminal; tqdm keeps several of them apart, and apart from what is logged."""

    monitor_interval = 0

    def __init__(self, position: int, standing: Callable[[], Standing]):
        self.standing = standing
        super().__init__(position=position, dynamic_ncols=True, file=sys.stderr)

    def __str__(self) -> str:
        width = self.format_dict["ncols"] or 80
        return draw(self.standing(), width - 1)  # a full last column makes some terminals begin a new line


class Screen:
    """Shows one line per scorer and redraws all of them inside a ``with`` block; at its end they stay as they are.

    Parameters
    ----------
    names : sequence of str
        Of the scorers, in the order of the lines.
    display : {"auto", "bars", "lines", "off"}
        How progress is shown.
    """

    def __init__(self, names: Sequence[str], display: Display):
        self.display: Display = ("bars" if sys.stderr.isatty() else "off") if display == "auto" else display
        self._begun = time.perf_counter()
        self._standings: list[Callable[[], Standing]] = [self._starting(name) for name in names]
        self._lines: list[_Line] = []
        self._end = threading.Event()
        self._stack = ExitStack()

    def elapsed(self) -> str:
        """Return the time since the start, as ``02:31``."""
        return str(tqdm.format_interval(time.perf_counter() - self._begun))

    def show(self, position: int, standing: Callable[[], Standing]) -> None:
        """Show on a line, from now on, what a function returns."""
        self._standings[position] = standing

    def __enter__(self) -> Self:
        if self.display == "bars":
            for position in range(len(self._standings)):
                self._lines.append(_Line(position, partial(self._standing, position)))
            if threading.current_thread() is threading.main_thread():  # handlers belong to the process
                self._stack.enter_context(logging_redirect_tqdm())
            redrawing = threading.Thread(target=self._redraw, name="redraws progress", daemon=True)
            redrawing.start()
            self._stack.callback(redrawing.join)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        self._stack.close()
        lines, self._lines = self._lines, []
        for line in lines:
            line.close()

    def _standing(self, position: int) -> Standing:
        return self._standings[position]()

    def _redraw(self) -> None:
        while not self._end.wait(REDRAW_SECONDS):
            for line in self._lines:
                line.refresh()

    def _starting(self, name: str) -> Callable[[], Standing]:
        return lambda: Standing(name, phase="starting", elapsed=self.elapsed())
