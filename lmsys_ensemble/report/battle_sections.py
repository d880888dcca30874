"""The sections of the page that need more than probabilities: parts of the rows, swaps, texts; and the method."""

from collections.abc import Sequence

import numpy as np

from lmsys_ensemble.evaluation.intervals import N_BOOTSTRAP
from lmsys_ensemble.evaluation.metrics import N_BINS, row_log_losses
from lmsys_ensemble.report.cells import class_names, difference_cell, section, with_interval
from lmsys_ensemble.report.figures import Interval, interval_figure, signed
from lmsys_ensemble.report.findings import Findings, SliceFigures
from lmsys_ensemble.report.markup import Content, Markup, details, element, join, paragraph, table

PREVIEW_CHARACTERS = 320
MAX_CHARACTERS = 20_000
"""Of one text on the page; what is longer is cut, which is said."""


def slices(findings: Findings) -> Markup | None:
    """Show log loss by parts of the rows."""
    if not findings.slices:
        return None
    note = "Where the blend is good and where it is not, and whether it beats the equal average there, too."
    parts = [_slicing(title, rows, findings) for title, rows in findings.slices.items()]
    return section("slices", "By length, turns, source, language and script", paragraph(note), *parts)


def _slicing(title: str, rows: Sequence[SliceFigures], findings: Findings) -> Markup:
    overall = findings.blend.figure("log_loss")
    intervals = [Interval(row.name, row.blend, row.low, row.high, "plain") for row in rows]
    figure = element(
        "figure",
        interval_figure(f"Log loss of the blend. {title}", [*intervals, Interval("all rows", *overall, "chosen")],
                        "log loss of the blend (lower is better)"),
    )  # fmt: skip
    body = [
        [row.name, f"{row.n_rows:,}", f"{row.equal:.4f}", f"{row.blend:.4f}", difference_cell(row.difference)]
        for row in rows
    ]
    listing = table("Differences with 95 % intervals", ["", "rows", "equal average", "blend", "difference"], body)
    return join([element("h3", title), element("div", figure, listing, class_="pair")])


def swaps(findings: Findings) -> Markup | None:
    """Show what happens when the two responses are swapped."""
    if not findings.swaps:
        return None
    note = (
        "Every battle was predicted a second time with its two responses swapped. A model that only looks at what "
        "the responses say gives the same verdict both times. Averaging both orders costs twice the time; the last "
        "two columns show what it gains."
    )
    columns = ["", "verdicts that flip", "mean distance of probabilities", "bonus for being first",
               "log loss, both orders averaged", "minus one order"]  # fmt: skip
    rows: list[list[Content]] = []
    for swap in findings.swaps:
        flips = [100 * number for number in swap.model.figure("swap_flip_rate")]
        rows.append([
            swap.model.name,
            element("td", f"{flips[0]:.1f} %", element("small", f"{flips[1]:.1f} to {flips[2]:.1f} %")),
            with_interval(*swap.model.figure("swap_total_variation")), signed(swap.first_bonus, 4),
            f"{swap.averaged:.4f}", difference_cell(swap.gain),
        ])  # fmt: skip
    caption = (
        "With 95 % intervals. The distance is the total variation, from 0 to 1. The bonus is how much more probable "
        "a win is for the response that is shown first, over both orders; 0 is fair."
    )
    return section("swaps", "Swap consistency", paragraph(note), table(caption, columns, rows))


def worst(findings: Findings) -> Markup | None:
    """Show the rows that cost most."""
    if not len(findings.worst):
        return None
    losses = row_log_losses(findings.inputs.labels, findings.blend.probabilities)
    share = losses[findings.worst].sum() / losses.sum()
    note = (
        f"The {len(findings.worst)} rows with the highest log loss under the blend, which make {100 * share:.1f} % of "
        "the whole loss. Often the label is a surprise to a person, too."
    )
    articles = [_worst_row(findings, int(row), float(losses[row]), rank) for rank, row in enumerate(findings.worst, 1)]
    return section("worst", "The worst rows", paragraph(note), *articles)


def _worst_row(findings: Findings, row: int, loss: float, rank: int) -> Markup:
    inputs, names = findings.inputs, class_names(findings.inputs.task)
    body: list[Sequence[Content]] = [
        [model.name, *(f"{value:.3f}" for value in model.probabilities[row])]
        for model in (*findings.members, findings.equal, findings.blend)
    ]
    body.insert(0, ["label", *(f"{value:.3g}" for value in inputs.labels[row])])
    heading = element("h3", f"{rank}. id ", element("bdi", str(inputs.ids[row])), f": log loss {loss:.2f}")
    parts = [heading, table("Label and probabilities", ["", *names], body)]
    if inputs.battles is not None:
        battle = inputs.battles[row]
        parts.append(_text("Prompt", battle.prompt))
        parts.append(
            element("div", element("div", _text("Response A", battle.response_a)),
                    element("div", _text("Response B", battle.response_b)), class_="pair")
        )  # fmt: skip
    return element("article", *parts)


def _text(title: str, turns: Sequence[str]) -> Markup:
    """Show turns as one text: its beginning, and the rest on a click."""
    whole = turns[0] if len(turns) == 1 else "\n\n".join(f"[turn {n}] {turn}" for n, turn in enumerate(turns, 1))
    shown = whole[:MAX_CHARACTERS]
    if not whole.strip():
        return join([element("h4", title), paragraph("(empty)", class_="soft")])
    if len(whole) <= PREVIEW_CHARACTERS:
        return join([element("h4", title), element("div", shown, class_="text", dir="auto")])
    cut = f", cut after {MAX_CHARACTERS:,}" if len(whole) > MAX_CHARACTERS else ""
    return join([
        element("h4", title),
        element("div", f"{whole[:PREVIEW_CHARACTERS].rstrip()} …", class_="text", dir="auto"),
        details(f"the whole text, {len(whole):,} characters{cut}",
                element("div", shown, class_="text", dir="auto")),
    ])  # fmt: skip


def measured(findings: Findings, version: str) -> Markup:
    """Say how everything was measured."""
    inputs, blender = findings.inputs, findings.blender
    n_groups, prior = inputs.n_groups, inputs.labels.mean(axis=0)
    shares = ", ".join(
        f"{name} {100 * share:.1f} %" for name, share in zip(class_names(inputs.task), prior, strict=True)
    )
    grouped = "every row by itself" if n_groups == inputs.n_rows else f"{n_groups:,} groups that are never divided"
    soft = " Some labels are soft, and then every figure is the expectation over the annotators." if np.any(
        (inputs.labels > 0) & (inputs.labels < 1)) else ""  # fmt: skip
    items = [
        f"Rows: {inputs.n_rows:,}, {grouped}. Labels: {shares}.{soft}",
        _blend_measured(findings),
        "Members and the equal average have nothing to fit and are measured as they are. This is honest only if no "
        "member was trained on these rows.",
        f"Intervals are 95 % percentile intervals of {N_BOOTSTRAP:,} bootstrap resamples of whole groups. Differences "
        "are paired: both predictions are resampled with the same rows, so that what makes a row hard cancels out.",
        "Log loss is the mean of −ln p(label), in nats; rows are divided by their sums first, and probabilities are "
        "floored at 1e-15.",
        f"Calibration errors use {N_BINS} bins of equal width, the diagrams 10; the calibration slope is the factor on "
        "log probabilities that fits the labels best, with free class biases.",
        f"Made by lmsys-ensemble {version}; folds and resamples have fixed seeds ({blender.seed} and 0), so that the "
        "same input gives the same page.",
    ]
    return section("measured", "How it was measured", element("ul", *(element("li", item) for item in items)))


def _blend_measured(findings: Findings) -> str:
    settings = findings.cross_fit.blenders[0]
    if findings.cross_fit.is_fitted:
        choice = ", the choice of the method included" if settings.method == "auto" else ""
        return (
            f"The blend is measured out of fold: the rows were dealt into {len(findings.cross_fit.blenders)} folds, "
            f"and every row is predicted by a blend that was fitted on the other folds{choice}. The weights "
            "shown are those of a fit on all rows."
        )
    why = "it was said to be fitted on other rows" if hasattr(settings, "blend_") else "nothing in it was fitted"
    return f"The blend is measured as it is, because {why}."
