"""A picture of a run's curves: training loss and log loss on the rows held out, as SVG that stands by itself."""

from collections.abc import Mapping, Sequence

from lmsys_ensemble.report.figures import Scale, nice_ticks
from lmsys_ensemble.report.markup import Markup, element

PICTURE_FILE = "curves.svg"

_STYLE = (
    "svg{background:#fff;font:12px system-ui,sans-serif;color:#333}text{fill:#333}.grid{stroke:#ddd}"
    ".curve{fill:none;stroke-width:1.5}.loss{stroke:#9aa7b5}.held{stroke:#0b5cad;stroke-width:2.5}"
    "circle.held{fill:#0b5cad;stroke:none}text.loss{fill:#6b7885;stroke:none}text.held{fill:#0b5cad;stroke:none}"
)
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 640, 320, 56, 624, 40, 272
_SMOOTHED_OVER = 20
"""Points of the training loss that one drawn point averages at most, so that single steps do not hide the trend."""


def draw_curves(curve: Sequence[Mapping[str, float]], name: str) -> str:
    """Return the picture as SVG; empty where nothing was trained.

    Parameters
    ----------
    curve : sequence of mapping
        As `lmsys_ensemble.training.watching.curve` returns it.
    name : str
        Of the model.
    """
    losses = _smooth([(row["step"], row["loss"]) for row in curve if "loss" in row and row["loss"] == row["loss"]])
    held = [(row["step"], row["held_log_loss"]) for row in curve if "held_log_loss" in row]
    points = [*losses, *held]
    if not points:
        return ""
    steps, values = [step for step, _ in points], [value for _, value in points]
    across = Scale(min(0, *steps), max(*steps, 1), _LEFT, _RIGHT)
    pad = max((max(values) - min(values)) * 0.08, 0.01)
    up = Scale(min(values) - pad, max(values) + pad, _BOTTOM, _TOP)
    parts = [element("style", Markup(_STYLE)), _axes(across, up)]
    parts.append(_line(losses, across, up, "loss"))
    if held:
        parts.append(_line(held, across, up, "held"))
        parts += [element("circle", cx=across(step), cy=up(value), r=3, class_="held") for step, value in held]
    parts.append(element("text", "training loss", x=_LEFT, y=24, class_="loss"))
    if held:
        parts.append(element("text", "log loss on rows held out", x=_LEFT + 110, y=24, class_="held"))
    return element(
        "svg", element("title", f"{name}: curves of the training"), *parts,
        xmlns="http://www.w3.org/2000/svg", viewBox=f"0 0 {_WIDTH} {_HEIGHT}", width=_WIDTH, role="img",
    )  # fmt: skip


def _axes(across: Scale, up: Scale) -> Markup:
    parts = []
    for tick in nice_ticks(up.low, up.high):
        y = up(tick)
        parts.append(element("line", x1=_LEFT, x2=_RIGHT, y1=y, y2=y, class_="grid"))
        parts.append(element("text", f"{tick:g}", x=_LEFT - 8, y=y + 4, text_anchor="end"))
    for tick in nice_ticks(across.low, across.high):
        parts.append(element("text", f"{tick:g}", x=across(tick), y=_BOTTOM + 18, text_anchor="middle"))
    parts.append(element("text", "step", x=(_LEFT + _RIGHT) / 2, y=_BOTTOM + 38, text_anchor="middle"))
    return element("g", *parts)


def _line(points: Sequence[tuple[float, float]], across: Scale, up: Scale, kind: str) -> Markup:
    drawn = " ".join(f"{across(step):.1f},{up(value):.1f}" for step, value in points)
    return element("polyline", points=drawn, class_=f"curve {kind}")


def _smooth(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Average every point with those before it."""
    over = min(_SMOOTHED_OVER, max(len(points) // 10, 1))
    smoothed = []
    for position, (step, _) in enumerate(points):
        window = [value for _, value in points[max(position - over + 1, 0) : position + 1]]
        smoothed.append((step, sum(window) / len(window)))
    return smoothed
