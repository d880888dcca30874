"""Figures as inline SVG, drawn by hand: no scripts, no fonts, no colours of their own (the page's style has them)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lmsys_ensemble.report.markup import Markup, element

MAX_LABEL = 26
"""Characters of a row's label; what is longer is cut, and whole in the tooltip and in the table beside it."""

_ENLARGED = 1.12
"""Size on a wide screen; on a narrow one figures shrink to fit."""

_FEWEST = 0.001
"""Share of the rows below which a reliability diagram draws no point: such points only show noise."""

_CHARACTER = 7.4
"""Width of a character of a label, a little more than it is in most fonts."""


@dataclass(frozen=True)
class Interval:
    """A row of an interval figure: a dot with its interval.

    Attributes
    ----------
    label : str
        Name of the row.
    value, low, high : float
        Dot, and ends of its interval; NaN ends are not drawn.
    kind : str
        ``plain``, ``equal`` or ``chosen``: its colour.
    """

    label: str
    value: float
    low: float
    high: float
    kind: str = "plain"


@dataclass(frozen=True)
class Bin:
    """A point of a reliability diagram; see `lmsys_ensemble.evaluation.metrics.reliability_table`."""

    bin: int
    predicted: float
    observed: float
    standard_error: float
    n_rows: int


@dataclass(frozen=True)
class Scale:
    """A linear scale from values to positions."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Return the position of a value."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def nice_ticks(low: float, high: float, about: int = 6) -> list[float]:
    """Return round numbers between two values, about so many.

    >>> nice_ticks(0.9, 0.95)
    [0.9, 0.91, 0.92, 0.93, 0.94, 0.95]
    """
    raw = max(high - low, 1e-9) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(count * step, 10) for count in range(first, last + 1)]


def signed(value: float, precision: int) -> str:
    """Format a number with a true minus sign."""
    return f"{value:.{precision}f}".replace("-", "\N{MINUS SIGN}")


def interval_figure(
    title: str,
    rows: Sequence[Interval],
    axis: str,
    *,
    zero: str | None = None,
    most: float | None = None,
) -> Markup:
    """Draw values with their intervals, one below the other.

    Parameters
    ----------
    title : str
        What the figure shows, for those who do not see it, too.
    rows : sequence of Interval
        From top to bottom.
    axis : str
        What the numbers are.
    zero : str, optional
        Draw a line at 0 and name it so.
    most : float, optional
        Values above it are only pointed at, so that one bad row does not flatten the others.
    """
    most = math.inf if most is None else most
    left = min(max(len(row.label) for row in rows), MAX_LABEL) * _CHARACTER + 12
    width, row_height, top = left + 320, 26, 22 if zero else 8
    bottom = top + row_height * len(rows)
    ends = [end for row in rows for end in (row.value, row.low, row.high) if math.isfinite(end) and end <= most]
    low, high = min(ends, default=0.0), max(ends, default=1.0)
    low, high = (min(low, 0.0), max(high, 0.0)) if zero else (low, high)
    pad = max((high - low) * 0.06, 1e-4)
    scale = Scale(low - pad, high + pad, left, width - 14)
    parts = [_vertical_axis(scale, top, bottom, axis)]
    if zero:
        x = scale(0)
        parts.append(element("line", x1=x, x2=x, y1=top, y2=bottom, class_="zero"))
        anchor = "end" if x > width - 100 else "middle"
        parts.append(element("text", zero, x=x, y=top - 8, text_anchor=anchor, class_="tick"))
    for position, row in enumerate(rows):
        parts.append(_interval_row(row, scale, left, top + row_height * (position + 0.5), most))
    return _svg(title, width, bottom + 44, parts)


def _vertical_axis(scale: Scale, top: float, bottom: float, name: str) -> Markup:
    ticks = nice_ticks(scale.low, scale.high)
    step = ticks[1] - ticks[0] if len(ticks) > 1 else 0.1
    digits = max(len(f"{tick:.6f}".rstrip("0").partition(".")[2]) for tick in (*ticks, step))
    parts = []
    for tick in ticks:
        x = scale(tick)
        parts.append(element("line", x1=x, x2=x, y1=top, y2=bottom, class_="grid"))
        parts.append(element("text", signed(tick, digits), x=x, y=bottom + 16, text_anchor="middle", class_="tick"))
    middle = (scale.start + scale.end) / 2
    parts.append(element("text", name, x=middle, y=bottom + 36, text_anchor="middle", class_="axis"))
    return element("g", *parts)


def _interval_row(row: Interval, scale: Scale, left: float, y: float, most: float) -> Markup:
    shown = row.label if len(row.label) <= MAX_LABEL else f"{row.label[: MAX_LABEL - 1]}…"
    spoken = f"{row.label}: {signed(row.value, 4)}"
    parts = [element("text", shown, x=left - 10, y=y + 4, text_anchor="end", class_="label")]
    if row.value > most:
        parts.append(
            element("text", f"{row.value:.4f} \N{RIGHTWARDS ARROW}", x=scale.end, y=y + 4, text_anchor="end",
                    class_="label")
        )  # fmt: skip
    else:
        if math.isfinite(row.low) and math.isfinite(row.high):
            spoken += f" ({signed(row.low, 4)} to {signed(row.high, 4)})"
            ends = scale(row.low), min(scale(row.high), scale.end)
            parts.append(element("line", x1=ends[0], x2=ends[1], y1=y, y2=y, class_="interval"))
        parts.append(element("circle", cx=scale(row.value), cy=y, r=4.5, class_="dot"))
    return element("g", element("title", spoken), *parts, class_=row.kind)


def reliability_figure(title: str, heading: str, after: Sequence[Bin], before: Sequence[Bin] | None = None) -> Markup:
    """Draw predicted against observed for one class, with a strip of how many rows there are.

    Parameters
    ----------
    title, heading : str
        For those who do not see it, and above the panel.
    after : sequence of Bin
        Points.
    before : sequence of Bin, optional
        The same of what it is compared with.
    """
    width, left, right, top, bottom, strip = 260, 44, 248, 26, 230, 36
    across, up = Scale(0, 1, left, right), Scale(0, 1, bottom, top)
    parts = [element("text", heading, x=(left + right) / 2, y=14, text_anchor="middle", class_="heading")]
    for tick in (0, 0.25, 0.5, 0.75, 1):
        x, y, name = across(tick), up(tick), f"{tick:g}"
        parts.append(element("line", x1=x, x2=x, y1=top, y2=bottom, class_="grid"))
        parts.append(element("line", x1=left, x2=right, y1=y, y2=y, class_="grid"))
        parts.append(element("text", name, x=left - 6, y=y + 4, text_anchor="end", class_="tick"))
        parts.append(element("text", name, x=x, y=bottom + strip + 18, text_anchor="middle", class_="tick"))
    parts.append(element("line", x1=left, x2=right, y1=bottom, y2=top, class_="diagonal"))
    if before is not None:
        parts.append(_reliability_curve(before, across, up, "equal"))
    parts.append(_reliability_curve(after, across, up, "chosen"))
    parts.append(_strip(after, across, bottom + strip, strip - 6))
    x, y = (left + right) / 2, (top + bottom) / 2
    parts.append(
        element("text", "predicted probability", x=x, y=bottom + strip + 36, text_anchor="middle", class_="axis")
    )
    parts.append(
        element("text", "observed share", x=11, y=y, text_anchor="middle", class_="axis",
                transform=f"rotate(-90 11 {y:g})")
    )  # fmt: skip
    return _svg(title, width, bottom + strip + 44, parts)


def _reliability_curve(bins: Sequence[Bin], across: Scale, up: Scale, kind: str) -> Markup:
    fewest = _FEWEST * sum(row.n_rows for row in bins)
    drawn = [row for row in bins if row.n_rows >= fewest]
    points = [(across(row.predicted), up(row.observed)) for row in drawn]
    parts = [element("polyline", points=" ".join(f"{x:.2f},{y:.2f}" for x, y in points), class_="curve")]
    for (x, y), row in zip(points, drawn, strict=True):
        spoken = f"predicted {row.predicted:.3f}, observed {row.observed:.3f}, {row.n_rows} rows"
        marks = []
        if kind == "chosen":
            low, high = (min(max(row.observed + side * 1.96 * row.standard_error, 0), 1) for side in (-1, 1))
            marks = [element("line", x1=x, x2=x, y1=up(low), y2=up(high), class_="interval")]
            marks.append(element("circle", cx=x, cy=y, r=3.5, class_="dot"))
        else:
            marks.append(element("rect", x=x - 3, y=y - 3, width=6, height=6, class_="dot"))
        parts.append(element("g", element("title", spoken), *marks))
    return element("g", *parts, class_=kind)


def _strip(rows: Sequence[Bin], across: Scale, base: float, height: float) -> Markup:
    """Draw the number of rows in every bin as bars, the tallest as high as there is room."""
    tallest = max(row.n_rows for row in rows)
    step = 0.1
    bars = []
    for row in rows:
        tall = height * row.n_rows / tallest
        bars.append(
            element("rect", element("title", f"{row.n_rows} rows"), x=across(row.bin * step) + 1, y=base - tall,
                    width=across(step) - across(0) - 2, height=tall, class_="bar")
        )  # fmt: skip
    return element("g", *bars)


def _svg(title: str, width: float, height: float, parts: Sequence[Markup]) -> Markup:
    return element(
        "svg", element("title", title), *parts, viewBox=f"0 0 {width:g} {height:g}", width=width * _ENLARGED,
        role="img", aria_label=title,
    )  # fmt: skip
