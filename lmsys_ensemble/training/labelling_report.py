"""Which rows got pseudo-labels and which did not, by class and by confidence: as values for JSON and as text."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmsys_ensemble.data.tables import MAX_LISTED_FAULTS
from lmsys_ensemble.probabilities import Probabilities

KEPT = "kept"

REASONS = {
    KEPT: "kept",
    "overlap": "prompt and responses are in the evaluation set",
    "incomplete": "not all models have scored the row",
    "confidence": "confidence below the least that was asked for",
    "max_per_class": "more confident rows fill the likeliest class",
    "balance": "the rarest class has fewer rows",
}
"""What becomes of rows; of several reasons the first one counts, in this order."""

BANDS = (0.0, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
"""Where bands of confidence begin."""


@dataclass(frozen=True)
class PseudoLabelReport:
    """Summary of pseudo-labelling.

    Attributes
    ----------
    ids, reasons : tuple
        Every row, and what became of it: a key of `REASONS`.
    by_class, by_confidence : dict
        ``rows``, ``kept`` and ``dropped`` (by reason) of every likeliest class, and of every band of confidence.
    mean_label : dict
        Mean probability of every class over the rows that are kept, None where there are none.
    """

    ids: tuple[object, ...]
    reasons: tuple[str, ...]
    by_class: dict[str, Any]
    by_confidence: dict[str, Any]
    mean_label: dict[str, float] | None

    def counts(self) -> dict[str, int]:
        """Return the number of rows by what became of them."""
        found = Counter(self.reasons)
        return {reason: found[reason] for reason in REASONS if found[reason]}

    def to_dict(self) -> dict[str, Any]:
        """Return all of it, with the ids of dropped rows, as values that JSON takes."""
        dropped: dict[str, list[object]] = {reason: [] for reason in self.counts() if reason != KEPT}
        for row, reason in zip(self.ids, self.reasons, strict=True):
            if reason != KEPT:
                dropped[reason].append(row)
        return {
            "rows": len(self.ids),
            "kept": self.counts().get(KEPT, 0),
            "dropped": dropped,
            "by_class": self.by_class,
            "by_confidence": self.by_confidence,
            "mean_label": self.mean_label,
        }

    def to_text(self) -> str:
        """Return what people read; of dropped rows the first ids."""
        values = self.to_dict()
        lines = [f"{values['rows']:,} rows, {values['kept']:,} kept, {values['rows'] - values['kept']:,} dropped"]
        for reason, ids in values["dropped"].items():
            listed = ", ".join(map(str, ids[:MAX_LISTED_FAULTS])) + (", …" if len(ids) > MAX_LISTED_FAULTS else "")
            lines.append(f"  {len(ids):6,}  {REASONS[reason]}: {listed}")
        for title, parts in (("likeliest class", self.by_class), ("confidence", self.by_confidence)):
            width = max(map(len, (title, *parts)))
            lines.append(f"{title:{width}}     rows     kept  dropped")
            lines += [
                f"{name:{width}}  {part['rows']:7,}  {part['kept']:7,}  {part['rows'] - part['kept']:7,}"
                for name, part in parts.items()
            ]
        if self.mean_label is not None:
            means = ", ".join(f"{name} {value:.3f}" for name, value in self.mean_label.items())
            lines.append(f"mean label of the rows kept: {means}")
        return "\n".join(lines)


def make_report(
    ids: Sequence[object], reasons: Sequence[str], labels: Probabilities, classes: Sequence[str]
) -> PseudoLabelReport:
    """Count rows.

    Parameters
    ----------
    ids : sequence
        Of every row.
    reasons : sequence of str
        What became of every row, a key of `REASONS`.
    labels : ndarray of shape (n_rows, n_classes)
        Probabilities of every row.
    classes : sequence of str
        Names of the classes.
    """
    likeliest, bands = labels.argmax(axis=1), np.digitize(labels.max(axis=1), BANDS) - 1
    kept = np.array([reason == KEPT for reason in reasons], dtype=bool)
    mean = None
    if kept.any():
        means = zip(classes, labels[kept].mean(axis=0).tolist(), strict=True)
        mean = {name: round(value, 6) for name, value in means}
    found = np.array(reasons, dtype=object)
    return PseudoLabelReport(
        ids=tuple(ids),
        reasons=tuple(reasons),
        by_class={name: _count(found[likeliest == code]) for code, name in enumerate(classes)},
        by_confidence={
            _band(band): _count(found[bands == band]) for band in range(len(BANDS)) if (bands == band).any()
        },
        mean_label=mean,
    )


def _count(reasons: NDArray[np.object_]) -> dict[str, Any]:
    found = Counter(reasons.tolist())
    dropped = {reason: found[reason] for reason in REASONS if reason != KEPT and found[reason]}
    return {"rows": len(reasons), "kept": found[KEPT], "dropped": dropped}


def _band(band: int) -> str:
    if band == 0:
        return f"below {BANDS[1]:.2f}"
    return f"{BANDS[band]:.2f} to {BANDS[band + 1]:.2f}" if band + 1 < len(BANDS) else f"{BANDS[band]:.2f} and above"
