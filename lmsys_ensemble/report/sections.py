"""The sections of the page on the blend and how good it is."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from lmsys_ensemble.blending.explanation import describe_weights, explain_folds
from lmsys_ensemble.report.cells import DASH, class_names, difference_cell, section, with_interval
from lmsys_ensemble.report.figures import Interval, interval_figure, signed
from lmsys_ensemble.report.findings import Findings, Model
from lmsys_ensemble.report.markup import Content, Markup, element, join, paragraph, table
from lmsys_ensemble.report.verdict import describe_blend, estimates, verdict

_GLOSSARY = {
    "equal": "the average, every member counts the same",
    "greedy": "an average whose weights come from picking members one by one",
    "linear": "the average with the best weights",
    "log": "logarithmic pool, the members' probabilities to fitted powers, multiplied",
    "stack": "multinomial regression on the members' log probabilities",
}


def in_short(findings: Findings) -> Markup:
    """Say what came out, first in a sentence, then in numbers."""
    best = min(findings.members, key=lambda model: model.figure("log_loss")[0])
    blend_name = "blend, nested estimate" if findings.is_nested else "blend"
    rows = [
        ("best member", best, "", best.name),
        ("equal average", findings.equal, "", "every member counts the same"),
        (blend_name, findings.blend, "chosen", describe_blend(findings)),
    ]
    tiles = [
        element("div", element("span", f"log loss, {what}"), element("b", f"{model.figure('log_loss')[0]:.4f}"),
                element("span", note), class_=f"tile {class_}".strip())
        for what, model, class_, note in rows
    ]  # fmt: skip
    change = findings.blend.to_equal
    tiles.append(
        element("div", element("span", "blend minus equal average"), element("b", signed(change.mean, 4)),
                element("span", f"95 %: {signed(change.low, 4)} to {signed(change.high, 4)}"), class_="tile")
    )  # fmt: skip
    return section(
        "short", "In short", paragraph(verdict(findings), class_="alert" if findings.leaks else ""),
        element("div", *tiles, class_="tiles"), *filter(None, [estimates(findings)]),
        *(paragraph(warning, class_="alert") for warning in findings.warnings),
        element("div", _summary_figure(findings), _summary_table(findings), class_="pair"),
    )  # fmt: skip


def _kind(model: Model) -> str:
    return {"blend": "chosen", "equal": "equal"}.get(model.kind, "plain")


def _summary_figure(findings: Findings) -> Markup:
    prior = findings.models[0].figure("log_loss")[0]
    rows = [Interval(model.name, *model.figure("log_loss"), _kind(model)) for model in findings.models[1:]]
    most = 1.02 * max(prior, findings.equal.figure("log_loss")[2], findings.blend.figure("log_loss")[2])
    title = "Log loss of every member, of their equal average and of the blend"
    return element(
        "figure", interval_figure(title, rows, "log loss (lower is better)", most=most),
        element("figcaption", "Dots with 95 % intervals. These intervals are wide because some battles are simply "
                "hard, for all models alike: whether one model is better than another is told by the paired "
                "difference in the table, not by whether the intervals overlap."),
    )  # fmt: skip


def _summary_table(findings: Findings) -> Markup:
    columns = ["", "log loss", "minus equal average", "accuracy"]
    rows = [
        [model.name, with_interval(*model.figure("log_loss")),
         element("td", DASH) if model.kind == "equal" else difference_cell(model.to_equal),
         with_interval(*model.figure("accuracy"), 3)]
        for model in findings.models
    ]  # fmt: skip
    return table(
        "With 95 % intervals. The class prior says the same of every row: how often each class occurs.", columns, rows
    )


def the_blend(findings: Findings) -> Markup:
    """Show weights, temperatures and biases, and why."""
    blender, names = findings.blender, [model.name for model in findings.members]
    largest = max(float(np.max(blender.weights_)), 1e-9)
    rows: list[list[Content]] = []
    for name, weight, temperature in zip(names, blender.weights_, blender.temperatures_, strict=True):
        width = f"width:{100 * max(weight, 0) / largest:.1f}%"
        bar = element("span", element("i", style=width), class_="track")
        rows.append([name, signed(float(weight), 4), element("td", bar), f"{temperature:.4f}"])
    parts: list[Content] = [
        paragraph(findings.why, " The figures of this comparison are plain estimates." if findings.plain else ""),
        table("Weights and temperatures", ["member", "weight", "", "temperature"], rows),
        paragraph(
            describe_weights(blender), " A temperature above 1 makes a member less confident, 1 changes nothing."
        ),
        *_after_blending(findings),
    ]
    if findings.cross_fit.is_fitted:
        folds = f"Fitted without one fold at a time it became: {explain_folds(findings.cross_fit.blenders)}."
        if len({(one.method_, one.calibration_) for one in findings.cross_fit.blenders}) > 1:
            folds += (
                " The nested estimate counts that the choice depends on the rows; the plain ones take every method "
                "as if it had been settled beforehand."
            )
        parts.append(paragraph(folds))
    return section("blend", "The blend", *parts)


def _after_blending(findings: Findings) -> Iterator[Markup]:
    blender = findings.blender
    if blender.temperature_ != 1:
        yield paragraph(f"After blending, one temperature: {blender.temperature_:.4f}.")
    if np.any(blender.bias_):
        pairs = zip(class_names(findings.inputs.task), blender.bias_, strict=True)
        shown = ", ".join(f"{name} {'+' if value >= 0 else ''}{signed(value, 4)}" for name, value in pairs)
        yield paragraph(f"Class biases, added to the logits: {shown}.")


def methods(findings: Findings) -> Markup | None:
    """Compare all methods out of fold."""
    if findings.methods is None:
        return None
    records = findings.methods.to_dict(orient="records")
    title = "Log loss of every method less that of the equal average"
    labels = [_short_method(row["method"], row["calibration"]) for row in records]
    kinds = ["chosen" if row["selected"] else "plain" for row in records]
    choice = "chosen" if findings.blender.method == "auto" else "what auto would choose"
    intervals = [
        Interval(label, row["difference"], row["low"], row["high"], kind)
        for label, row, kind in zip(labels, records, kinds, strict=True)
    ]
    figure = element(
        "figure", interval_figure(title, intervals, "difference in log loss (further left is better)",
                                  zero="equal average"),
        element("figcaption", "Paired differences with 95 % intervals: left of the line is better than the equal "
                "average, and an interval that crosses the line may be chance."),
    )  # fmt: skip
    rows = [
        [element("b", f"{_breakable(label)} ({choice})") if row["selected"] else _breakable(label),
         f"{row['n_parameters']}", f"{row['log_loss']:.4f}",
         with_interval(row["difference"], row["low"], row["high"]) if row["n_parameters"] else element("td", DASH)]
        for label, row in zip(labels, records, strict=True)
    ]  # fmt: skip
    listing = table("From the fewest fitted numbers to the most",
                    ["method", "fitted numbers", "log loss", "minus equal average"], rows)  # fmt: skip
    note = (
        "Every row is predicted by a blend that was fitted on other rows. These are plain estimates: each method as if "
        "it had been settled beforehand. Method auto takes the simplest method that is within one standard error of "
        "the best, and only if it is better than the equal average beyond chance; where choosing so is not certain to "
        "gain itself, it takes the simplest method that is."
    )
    names = element("p", join(_glossary(records)), class_="soft")
    return section(
        "methods", "Methods compared", paragraph(note), element("div", figure, listing, class_="pair"), names
    )


def _glossary(records: Sequence[Mapping[Any, Any]]) -> Iterator[Content]:
    """Say what the short names of methods mean."""
    for method in dict.fromkeys(str(row["method"]) for row in records):
        yield join([element("b", method), f": {_GLOSSARY[method]}. "])
    yield join([element("b", "before"), ": a temperature for each member before blending. "])
    yield join([element("b", "after"), ": one temperature after blending. "])
    yield join([element("b", "bias"), ": class biases, added to the logits after blending."])


def _breakable(name: str) -> str:
    return name.replace("+", "+\N{ZERO WIDTH SPACE}")


def _short_method(method: str, calibration: str) -> str:
    return method if calibration == "none" else f"{method}, {calibration}"
