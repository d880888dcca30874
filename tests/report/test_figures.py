import math
from itertools import pairwise
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmsys_ensemble.report.figures import Bin, Interval, interval_figure, nice_ticks, reliability_figure, signed

ROWS = [
    Interval("equal average", 0.92, 0.90, 0.94, "equal"),
    Interval("a member with a name that is far too long <b>", 0.95, 0.93, 0.97),
    Interval("blend", 0.91, 0.89, 0.93, "chosen"),
]


def x_of(group):
    circle = group.find("circle")
    return None if circle is None else float(circle.get("cx"))


def rows_of(figure):
    return [group for group in figure.findall("g") if group.get("class") in {"plain", "equal", "chosen"}]


def parse(figure):
    parsed = ElementTree.fromstring(figure)
    assert parsed.tag == "svg"
    assert parsed.get("role") == "img"
    assert parsed.find("title").text == parsed.get("aria-label") != ""
    return parsed


def inside(parsed):
    """Return whether every position lies within the figure."""
    width, height = map(float, parsed.get("viewBox").split()[2:])
    limits = {"x": width, "x1": width, "x2": width, "cx": width, "y": height, "y1": height, "y2": height, "cy": height}
    return all(
        -0.01 <= float(element.get(name)) <= limit + 0.01
        for element in parsed.iter()
        for name, limit in limits.items()
        if element.get(name) is not None
    )


@given(st.floats(-100, 100), st.floats(1e-4, 100))
def test_ticks_are_few_evenly_spaced_and_inside(low, width):
    ticks = nice_ticks(low, low + width)
    assert 2 <= len(ticks) <= 8
    assert low - 1e-6 * width <= ticks[0]
    assert ticks[-1] <= low + width * 1.000001
    steps = [second - first for first, second in pairwise(ticks)]
    assert max(steps) == pytest.approx(min(steps), rel=1e-3)


def test_lower_values_are_further_left_and_the_whole_name_is_in_the_tooltip():
    parsed = parse(interval_figure("Log loss", ROWS, "log loss"))
    equal, member, blend = rows_of(parsed)
    assert x_of(blend) < x_of(equal) < x_of(member)
    assert member.find("title").text.startswith("a member with a name that is far too long <b>: 0.9500 (0.9300 to")
    assert member.find("text").text.endswith("…")
    assert inside(parsed)


def test_a_value_that_is_far_off_is_pointed_at_and_does_not_flatten_the_rest():
    alone = rows_of(parse(interval_figure("Log loss", ROWS, "log loss")))
    bad = Interval("bad", 8.25, 8.1, 8.4)
    with_bad = rows_of(parse(interval_figure("Log loss", [*ROWS, bad], "log loss", most=1.1)))
    assert [x_of(group) for group in with_bad] == [*(x_of(group) for group in alone), None]
    assert with_bad[-1].findall("text")[1].text.startswith("8.2500")


def test_a_zero_line_is_drawn_inside_even_if_all_values_lie_on_one_side():
    rows = [Interval("log", -0.002, -0.003, -0.001), Interval("stack", -0.003, -0.005, -0.001)]
    parsed = parse(interval_figure("Differences", rows, "difference", zero="equal average"))
    (line,) = [element for element in parsed.iter("line") if element.get("class") == "zero"]
    assert all(float(line.get("x1")) > x_of(group) for group in rows_of(parsed))
    assert inside(parsed)


@pytest.mark.parametrize("value", [0.0, 0.9, -0.4])
def test_one_row_without_an_interval_can_be_drawn(value):
    parsed = parse(interval_figure("One", [Interval("only", value, math.nan, math.nan)], "log loss"))
    assert inside(parsed)
    assert rows_of(parsed)[0].find("line") is None


def test_reliability_points_lie_where_they_should_and_rare_bins_are_left_out():
    after = [Bin(1, 0.15, 0.15, 0.01, 900), Bin(7, 0.75, 0.5, 0.02, 1098), Bin(9, 0.95, 0.0, 0.0, 1)]
    parsed = parse(reliability_figure("Reliability", "A wins", after, after[:2]))
    dots = [(float(dot.get("cx")), float(dot.get("cy"))) for dot in parsed.iter("circle")]
    assert len(dots) == 2
    (diagonal,) = [line for line in parsed.iter("line") if line.get("class") == "diagonal"]
    x1, y1, x2, y2 = (float(diagonal.get(name)) for name in ("x1", "y1", "x2", "y2"))
    below = [y - (y1 + (x - x1) / (x2 - x1) * (y2 - y1)) for x, y in dots]
    assert below[0] == pytest.approx(0, abs=0.05)
    assert below[1] > 40, "0.5 observed of 0.75 predicted is far below the diagonal"
    assert inside(parsed)


def test_minus_is_a_true_minus():
    assert signed(-0.00123, 4) == "−0.0012"
    assert signed(0.5, 2) == "0.50"
