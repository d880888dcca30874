"""The sections of the page on calibration and on which classes are taken for which."""

from collections.abc import Sequence

import numpy as np

from lmsys_ensemble.evaluation.metrics import reliability_table
from lmsys_ensemble.probabilities import Probabilities
from lmsys_ensemble.report.cells import class_names, section, with_interval
from lmsys_ensemble.report.figures import Bin, reliability_figure
from lmsys_ensemble.report.findings import Findings, Model
from lmsys_ensemble.report.markup import Content, Markup, details, element, join, paragraph, table


def calibration(findings: Findings) -> Markup:
    """Draw reliability before and after blending, by class."""
    note = (
        "Of all rows that were given a probability of about 30 % for a class, 30 % should turn out so: then the dots "
        "lie on the dashed line. Dots below it mean over-confidence, above it under-confidence. The grey bars show "
        "how many rows there are at each probability; points of fewer than 0.1 % of the rows are left out."
    )
    columns = ["", "Brier score", "calibration slope", "calibration error, all classes", "calibration error, top class"]
    rows = [
        [model.name, with_interval(*model.figure("brier_score")), with_interval(*model.figure("calibration_slope"), 3),
         *(with_interval(*model.figure(f"ece_{kind}")) for kind in ("classwise", "confidence"))]
        for model in findings.models[1:]
    ]  # fmt: skip
    legend = element(
        "p",
        element("span", _key("rect", x=3, y=3, width=8, height=8), "before: equal average of the members as they are",
                class_="equal"),
        element("span", _key("circle", cx=7, cy=7, r=4.5), "after: blend, with 95 % intervals", class_="chosen"),
        class_="legend",
    )  # fmt: skip
    return section(
        "calibration", "Calibration, before and after", paragraph(note), legend,
        _panels(findings, findings.blend, findings.equal),
        table("The Brier score is the mean squared error of the probabilities, from 0 to 2. A slope below 1 means "
              "over-confident, above 1 under-confident. The errors are 0 at best, and chance alone keeps them a "
              "little above it.", columns, rows),
        details("Every member by itself", *(
            join([element("h3", member.name), _panels(findings, member)]) for member in findings.members
        )),
    )  # fmt: skip


def _key(shape: str, **attributes: float) -> Markup:
    return element("svg", element(shape, class_="dot", **attributes), viewBox="0 0 14 14", aria_hidden="true")


def _panels(findings: Findings, after: Model, before: Model | None = None) -> Markup:
    labels = findings.inputs.labels
    afters = _bins(labels, after)
    befores = None if before is None else _bins(labels, before)
    panels = []
    for position, name in enumerate(class_names(findings.inputs.task)):
        now, then = afters[position], None if befores is None else befores[position]
        compared = f", compared with the {before.name}" if before else ""
        panels.append(reliability_figure(f"Reliability of {after.name} for “{name}”{compared}", name, now, then))
    return element("figure", *panels, class_="panels")


def _bins(labels: Probabilities, model: Model) -> list[list[Bin]]:
    """Return the points of every class."""
    points: list[list[Bin]] = [[] for _ in range(labels.shape[1])]
    for row in reliability_table(labels, model.probabilities).to_dict(orient="records"):
        points[row.pop("class")].append(Bin(**{str(name): value for name, value in row.items()}))
    return points


def confusion(findings: Findings) -> Markup:
    """Tabulate which class was most probable against which it was."""
    labels, predicted = findings.inputs.labels, findings.blend.probabilities
    n_classes = labels.shape[1]
    counts = labels.T @ np.eye(n_classes)[predicted.argmax(axis=1)]
    names = class_names(findings.inputs.task)
    rows: list[Sequence[Content]] = []
    for name, row in zip(names, counts, strict=True):
        shares = row / max(row.sum(), 1e-12)
        cells = [
            element("td", f"{100 * share:.1f} %", element("small", f"{count:,.0f} rows"), class_="share",
                    style=f"--share:{share:.3f}")
            for share, count in zip(shares, row, strict=True)
        ]  # fmt: skip
        rows.append([f"truly: {name}", *cells, f"{row.sum():,.0f}"])
    value, low, high = findings.blend.figure("accuracy")
    note = (
        f"The blend's most probable class is right in {100 * value:.1f} % of the rows (95 %: {100 * low:.1f} to "
        f"{100 * high:.1f} %)."
    )
    if "tie" in names:
        note += (
            " That ties are seldom predicted is no fault as such: log loss asks for honest probabilities, and a tie is "
            "seldom the most probable of three."
        )
    return section(
        "confusion", "Confusion matrix", paragraph(note),
        table("Of the rows of each true class, the share that was predicted as each class",
              ["", *(f"predicted: {name}" for name in names), "rows"], rows, "numbers matrix"),
    )  # fmt: skip
