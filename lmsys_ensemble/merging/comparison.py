"""What merging costs: models measured on the same labelled rows, with the interval of their difference."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lmsys_ensemble.data.corpus import Labelled, read_labelled
from lmsys_ensemble.evaluation.intervals import mean_interval, paired_difference
from lmsys_ensemble.evaluation.metrics import accuracy, log_loss, log_loss_interval, row_accuracies, row_log_losses
from lmsys_ensemble.merging.parts import Part
from lmsys_ensemble.modeling.learned_rows import SeenRowsWarning, read_learned_rows
from lmsys_ensemble.notices import warn
from lmsys_ensemble.probabilities import Probabilities


def read_rows(files: Sequence[str | Path], parts: Sequence[Part]) -> Labelled | None:
    """Read labelled rows to measure on; None where there are no files.

    Parameters
    ----------
    files : sequence of str or Path
        Files of labelled battles.
    parts : sequence of Part
        Adapters that should not have learned from the rows.

    Raises
    ------
    InputError
        If a file, its battles or its labels cannot be used.

    Warns
    -----
    SeenRowsWarning
        If an adapter has learned from some of the rows.
    """
    if not files:
        return None
    data = read_labelled([Path(file) for file in files], parts[0].recipe.task)
    for part in parts:
        learned = read_learned_rows(part.folder, part.recipe)
        n_seen = 0 if learned is None else int(learned.find(data.battles)[0].sum())
        if n_seen:
            warn(
                f"{part.folder} has learned from {n_seen} of the {len(data)} rows that are measured on, so that its "
                "figures are too good. Measure on rows that no adapter was trained on",
                SeenRowsWarning,
            )
    return data


def compare(data: Labelled, systems: Mapping[str, Probabilities], one: str, other: str) -> dict[str, Any]:
    """Measure systems on the same rows, and how far `one` of them is from the `other`.

    Parameters
    ----------
    data : Labelled
        The rows.
    systems : mapping of str to ndarray of shape (n_rows, n_classes)
        Probabilities by name.
    one, other : str
        Names of the two whose difference is stated.

    Returns
    -------
    dict
        ``rows``; ``log_loss`` and ``accuracy`` by system, each with its 95 % bootstrap interval over groups; of `one`
        minus `other` the mean ``difference`` of log losses and the ``accuracy_difference``, with the intervals of the
        paired differences, and the ``largest_difference`` of a probability.
    """
    labels, groups = data.labels, data.groups
    by_loss, by_accuracy = (
        paired_difference(measured(labels, systems[one]), measured(labels, systems[other]), groups)
        for measured in (row_log_losses, row_accuracies)
    )
    return {
        "rows": len(data),
        "log_loss": {name: round(log_loss(labels, values), 4) for name, values in systems.items()},
        "log_loss_interval": {
            name: [round(edge, 4) for edge in log_loss_interval(labels, values, groups)]
            for name, values in systems.items()
        },
        "accuracy": {name: round(accuracy(labels, values), 4) for name, values in systems.items()},
        "accuracy_interval": {
            name: [round(edge, 4) for edge in mean_interval(row_accuracies(labels, values), groups)]
            for name, values in systems.items()
        },
        "difference": round(by_loss.mean, 5),
        "difference_interval": [round(by_loss.low, 5), round(by_loss.high, 5)],
        "accuracy_difference": round(by_accuracy.mean, 5),
        "accuracy_difference_interval": [round(by_accuracy.low, 5), round(by_accuracy.high, 5)],
        "largest_difference": round(float(np.abs(systems[one] - systems[other]).max()), 5),
    }
