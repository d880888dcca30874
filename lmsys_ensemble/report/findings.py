"""Everything that a report says, as numbers; the pages only write it down."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal
from warnings import catch_warnings, simplefilter

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import clone

from lmsys_ensemble.blending.blender import Blender
from lmsys_ensemble.blending.crossfit import CrossFit, cross_fit_blender
from lmsys_ensemble.blending.diagnosis import find_leaks
from lmsys_ensemble.blending.explanation import explain_choice, find_unused, fit_with_findings
from lmsys_ensemble.blending.members import MemberOrderWarning
from lmsys_ensemble.errors import ConfigError
from lmsys_ensemble.evaluation.evaluate import evaluate
from lmsys_ensemble.evaluation.intervals import Difference, paired_difference
from lmsys_ensemble.evaluation.metrics import class_prior, log_loss, log_loss_interval, row_log_losses
from lmsys_ensemble.files import defuse
from lmsys_ensemble.probabilities import Probabilities, swap_classes
from lmsys_ensemble.report.inputs import ReportInput, find_exchanged
from lmsys_ensemble.report.slices import Slicing, slice_battles
from lmsys_ensemble.schema import TEXT_COLUMNS

Kind = Literal["prior", "member", "equal", "blend"]

EQUAL_NAME, BLEND_NAME = "equal average", "blend"


@dataclass(frozen=True, eq=False)
class Model:
    """A prediction to measure.

    Attributes
    ----------
    name, kind : str
        What it is called, and what it is.
    probabilities : ndarray of shape (n_rows, n_classes)
        Of a fitted blend out of fold.
    swapped : ndarray of shape (n_rows, n_classes) or None
        For the battles with their responses exchanged.
    figures : DataFrame
        From `lmsys_ensemble.evaluation.evaluate.evaluate`.
    to_equal : Difference
        Of its log loss to the equal average's.
    """

    name: str
    kind: Kind
    probabilities: Probabilities
    swapped: Probabilities | None
    figures: pd.DataFrame
    to_equal: Difference

    def figure(self, metric: str) -> tuple[float, float, float]:
        """Return a measure and the ends of its interval."""
        row = self.figures[self.figures["metric"] == metric].iloc[0]
        return float(row["value"]), float(row["low"]), float(row["high"])


@dataclass(frozen=True, eq=False)
class SwapFigures:
    """How a model changes when the responses change places.

    Attributes
    ----------
    model : Model
        It.
    first_bonus : float
        Mean probability that the response shown first wins, less that of the second, over both orders: 0 for a
        model that does not care about the order.
    averaged : float
        Log loss of the average of both orders.
    gain : Difference
        Of that to the log loss of one order.
    """

    model: Model
    first_bonus: float
    averaged: float
    gain: Difference


@dataclass(frozen=True)
class SliceFigures:
    """Log loss on a part of the rows."""

    name: str
    n_rows: int
    equal: float
    blend: float
    low: float
    high: float
    difference: Difference | None


@dataclass(frozen=True, eq=False)
class Findings:
    """What a report says.

    Attributes
    ----------
    inputs : ReportInput
        What it is about.
    models : tuple of Model
        Class prior, members, equal average, blend.
    blender : Blender
        Fitted on all rows, or as it was given.
    cross_fit : CrossFit
        What the blend is measured by.
    why : str
        Why the blend is what it is.
    methods : DataFrame or None
        Cross-fitted methods, from `lmsys_ensemble.blending.selection.select_spec`; None for less than two groups.
    slices : dict of str to list of SliceFigures
        By what the rows are divided.
    swaps : list of SwapFigures
        Empty where there are no swapped predictions.
    worst : ndarray of int
        Positions of the rows with the highest loss under the blend.
    warnings : list of str
        What looks wrong about the members.
    leaks : tuple of str
        Names of members that know the labels.
    """

    inputs: ReportInput
    models: tuple[Model, ...]
    blender: Blender
    cross_fit: CrossFit
    why: str
    methods: pd.DataFrame | None
    slices: dict[str, list[SliceFigures]]
    swaps: list[SwapFigures]
    worst: NDArray[np.intp]
    warnings: list[str] = field(default_factory=list)
    leaks: tuple[str, ...] = ()

    @property
    def blend(self) -> Model:
        """The blend that the report is about."""
        return self.models[-1]

    @property
    def equal(self) -> Model:
        """The equal average of all members."""
        return self.models[-2]

    @property
    def members(self) -> tuple[Model, ...]:
        """The members by themselves."""
        return self.models[1:-2]

    @property
    def is_nested(self) -> bool:
        """Whether the choice of the method was repeated in every fold, so that the blend has two estimates."""
        return self.cross_fit.is_fitted and self.blender.method == "auto"

    @property
    def plain(self) -> "Difference | None":
        """Difference of the blend's method to the equal average, as if the method had been settled beforehand."""
        if self.methods is None or not self.is_nested:
            return None
        chosen = self.methods.query("method == @self.blender.method_ and calibration == @self.blender.calibration_")
        if chosen.empty:
            return None
        row = chosen.iloc[0]
        return Difference(float(row["difference"]), float("nan"), float(row["low"]), float(row["high"]))

    def worst_rows(self) -> pd.DataFrame:
        """Tabulate the worst rows for a spreadsheet: id, label, blend, log loss and texts, defused as formulas."""
        inputs, columns = self.inputs, list(self.inputs.task.columns)
        rows = self.worst
        table = pd.DataFrame({"id": [_safe(inputs.ids[row]) for row in rows]})
        table[[f"label_{name}" for name in columns]] = inputs.labels[rows]
        table[columns] = self.blend.probabilities[rows]
        table["log_loss"] = row_log_losses(inputs.labels[rows], self.blend.probabilities[rows])
        if inputs.battles is not None:
            battles = inputs.battles.take(rows)
            texts = (battles.prompts, battles.responses_a, battles.responses_b)
            for name, column in zip(TEXT_COLUMNS, texts, strict=True):
                table[name] = [defuse("\n\n".join(turns)) for turns in column]
        return table

    def summary(self) -> list[dict[str, Any]]:
        """Return log loss and accuracy of every model, with the difference to the equal average, as JSON types."""
        return [
            {
                "name": model.name,
                "kind": model.kind,
                **{
                    f"{metric}{end}": number
                    for metric in ("log_loss", "accuracy")
                    for end, number in zip(("", "_low", "_high"), model.figure(metric), strict=True)
                },
                "to_equal": model.to_equal.mean,
                "to_equal_low": model.to_equal.low,
                "to_equal_high": model.to_equal.high,
            }
            for model in self.models
        ]


def _safe(value: Any) -> Any:
    return defuse(value) if isinstance(value, str) else value


def measure(
    inputs: ReportInput, blender: Blender | None = None, *, n_worst: int = 10, fitted_elsewhere: bool = False
) -> Findings:
    """Compute everything that a report says; parameters are those of `lmsys_ensemble.report.page.write_report`."""
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
    warnings += [*find_exchanged(inputs), *find_unused(shown, list(inputs.members))]
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
        with catch_warnings(record=True) as caught:
            simplefilter("always", MemberOrderWarning)
            shown = given.in_order_of(list(inputs.members))
        doubts = [str(warning.message) for warning in caught]
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
    for name, kind, predicted, exchanged in predictions:
        difference = paired_difference(row_log_losses(labels, predicted), equal_losses, codes)
        yield Model(
            name, kind, predicted, exchanged, evaluate(labels, predicted, codes, exchanged), difference
        )  # fmt: skip


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
