"""Pieces that all sections of the page are made of."""

import math

from lmsys_ensemble.evaluation.intervals import Difference
from lmsys_ensemble.report.figures import signed
from lmsys_ensemble.report.markup import Content, Markup, element
from lmsys_ensemble.schema import Task

_CLASS_NAMES = {"model_a": "A wins", "model_b": "B wins"}
DASH = "\N{EN DASH}"


def class_names(task: Task) -> list[str]:
    """Return the classes as people call them."""
    return [_CLASS_NAMES.get(name, name) for name in task.classes]


def section(name: str, title: str, *contents: Content) -> Markup:
    """Make a section that the page's contents can point at."""
    return element("section", element("h2", title), *contents, id=name)


def with_interval(value: float, low: float, high: float, precision: int = 4) -> Markup:
    """Make a cell of a number above its interval."""
    if not math.isfinite(value):
        return element("td", DASH)
    ends = f"{signed(low, precision)} to {signed(high, precision)}" if math.isfinite(low) else DASH
    return element("td", signed(value, precision), element("small", ends))


def difference_cell(difference: Difference | None) -> Markup:
    """Make a cell of a difference above its interval."""
    if difference is None:
        return element("td", DASH)
    return with_interval(difference.mean, difference.low, difference.high)
