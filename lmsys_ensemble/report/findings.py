"""Everything that a report says, as numbers; the pages only write it down."""

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lmsys_ensemble.blending.blender import Blender
from lmsys_ensemble.blending.crossfit import CrossFit
from lmsys_ensemble.evaluation.intervals import Difference
from lmsys_ensemble.evaluation.metrics import row_log_losses
from lmsys_ensemble.files import escape_formula
from lmsys_ensemble.probabilities import Probabilities
from lmsys_ensemble.report.inputs import ReportInput
from lmsys_ensemble.schema import TEXT_COLUMNS

Kind = Literal["prior", "member", "equal", "blend"]


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
        For the battles with their responses swapped.
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
        """Tabulate the worst rows for a spreadsheet: id, label, blend, log loss and texts, formulas escaped."""
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
                table[name] = [escape_formula("\n\n".join(turns)) for turns in column]
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
    return escape_formula(value) if isinstance(value, str) else value
