"""Measuring members, their equal average and their blend: what the findings of a report are computed by."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from sklearn.base import clone

from lmsys_ensemble.blending.blender import Blender
from lmsys_ensemble.blending.crossfit import CrossFit, cross_fit_blender
from lmsys_ensemble.blending.diagnosis import find_leaks
from lmsys_ensemble.blending.explanation import explain_choice, find_unused, fit_with_findings
from lmsys_ensemble.errors import ConfigError
from lmsys_ensemble.evaluation.evaluate import evaluate
from lmsys_ensemble.evaluation.intervals import paired_difference
from lmsys_ensemble.evaluation.metrics import class_prior, log_loss, log_loss_interval, row_log_losses
from lmsys_ensemble.notices import collected_warnings
from lmsys_ensemble.probabilities import Probabilities, swap_classes
from lmsys_ensemble.report.findings import Findings, Kind, Model, SliceFigures, SwapFigures
from lmsys_ensemble.report.inputs import ReportInput, find_swapped
from lmsys_ensemble.report.slices import Slicing, slice_battles

EQUAL_NAME, BLEND_NAME = "equal average", "blend"


def measure(
    inputs: ReportInput, blender: Blender | None = None, *, n_worst: int = 10, fitted_elsewhere: bool = False
) -> Findings:
    """Compute everything that a report says; parameters are those of `lmsys_ensemble.write_report`."""
    members, labels, codes = list(inputs.members.values()), inputs.labels, inputs.codes
    settings = Blender("auto") if blender is None else blender
    if fitted_elsewhere and not hasattr(settings, "blend_"):
        raise ConfigError("fitted_elsewhere is for a blender that was fitted on other rows; pass a fitted one")
    compared = clone(settings)
    if settings.method != "auto":
        compared = Blender("auto", n_folds=settings.n_folds, seed=settings.seed)
    warnings = fit_with_findings(compared, members, labels, codes, list(inputs.members))
    shown, why, doubts = _shown_blender(inputs, blender, compared)
    warnings += doubts
    warnings += [*find_swapped(inputs), *find_unused(shown, list(inputs.members))]
    if fitted_elsewhere:
        cross_fit = CrossFit((shown,), np.zeros(inputs.n_rows, dtype=np.intp))
    else:
        cross_fit = cross_fit_blender(settings if blender is None else shown, members, labels, codes)
    models = tuple(_models(inputs, cross_fit))
    losses = row_log_losses(labels, models[-1].probabilities)
    return Findings(
        inputs, models, shown, cross_fit, why, compared.selection_,
        {part.title: _slice_figures(inputs, part, models[-2], models[-1]) for part in slice_battles(inputs)},
        [_swap_figures(inputs, model, model.swapped) for model in models if model.swapped is not None],
        np.argsort(-losses, kind="stable")[:n_worst], warnings,
        tuple(list(inputs.members)[position] for position in find_leaks(members, labels)),
    )  # fmt: skip


def _shown_blender(inputs: ReportInput, given: Blender | None, compared: Blender) -> tuple[Blender, str, list[str]]:
    """Return the blender whose weights are shown, why it is as it is, and what is doubtful about that."""
    members, doubts = list(inputs.members.values()), []
    if given is None or (given.method == "auto" and not hasattr(given, "blend_")):
        shown = compared
    elif hasattr(given, "blend_"):
        given.predict_proba([member[:1] for member in members])  # says what does not match
        with collected_warnings() as collected:
            shown = given.in_order_of(list(inputs.members))
        doubts = [str(warning) for warning in collected]
    else:
        shown = clone(given)
        fit_with_findings(shown, members, inputs.labels, inputs.codes, list(inputs.members))
    if shown.weights is not None:
        return shown, "Its weights were fixed by hand, so nothing was compared.", doubts
    return shown, explain_choice(shown, inputs.n_groups), doubts


def _models(inputs: ReportInput, cross_fit: CrossFit) -> Iterator[Model]:
    members, swapped = list(inputs.members.values()), list(inputs.swapped.values())
    labels, codes = inputs.labels, inputs.codes
    average = Blender()
    equal = average.predict_proba(members)
    predictions: list[tuple[str, Kind, Probabilities, Probabilities | None]] = [
        ("class prior", "prior", class_prior(labels, inputs.n_rows), None),
        *((name, "member", member, inputs.swapped.get(name)) for name, member in inputs.members.items()),
        (EQUAL_NAME, "equal", equal, average.predict_proba(swapped) if swapped else None),
        (
            BLEND_NAME, "blend", cross_fit.predict_proba(members),
            cross_fit.predict_proba(swapped) if swapped else None,
        ),
    ]  # fmt: skip
    equal_losses = row_log_losses(labels, equal)
    for name, kind, predicted, predicted_swapped in predictions:
        difference = paired_difference(row_log_losses(labels, predicted), equal_losses, codes)
        figures = evaluate(labels, predicted, codes, predicted_swapped)
        yield Model(name, kind, predicted, predicted_swapped, figures, difference)


def _slice_figures(inputs: ReportInput, slicing: Slicing, equal: Model, blend: Model) -> list[SliceFigures]:
    result = []
    for position, name in enumerate(slicing.names):
        rows = np.flatnonzero(slicing.codes == position)
        labels = inputs.labels[rows]
        codes = pd.factorize(inputs.codes[rows])[0]
        by_equal, by_blend = equal.probabilities[rows], blend.probabilities[rows]
        difference, low, high = None, float("nan"), float("nan")
        if codes.max() > 0:
            low, high = log_loss_interval(labels, by_blend, codes)
            difference = paired_difference(row_log_losses(labels, by_blend), row_log_losses(labels, by_equal), codes)
        result.append(
            SliceFigures(name, len(rows), log_loss(labels, by_equal), log_loss(labels, by_blend), low, high, difference)
        )
    return result


def _swap_figures(inputs: ReportInput, model: Model, swapped: Probabilities) -> SwapFigures:
    both = (model.probabilities + swap_classes(swapped, inputs.task)) / 2
    losses = row_log_losses(inputs.labels, model.probabilities)
    averaged = row_log_losses(inputs.labels, both)
    orders = (model.probabilities, swapped)
    bonus = float(np.mean([order[:, 0].mean() - order[:, 1].mean() for order in orders]))
    gain = paired_difference(averaged, losses, inputs.codes)
    return SwapFigures(model, bonus, log_loss(inputs.labels, both), gain)
