"""Held-out figures of a trained model, beside the baselines that know nothing of the texts."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from lmsys_ensemble.data.battles import Battles
from lmsys_ensemble.data.corpus import Labelled
from lmsys_ensemble.evaluation.intervals import mean_interval, paired_difference
from lmsys_ensemble.evaluation.metrics import accuracy, log_loss, log_loss_interval, row_accuracies, row_log_losses
from lmsys_ensemble.probabilities import Probabilities

ALL = "all"


def length_features(battles: Battles) -> NDArray[np.float64]:
    """Return what the length-only baseline sees, of shape (n_rows, 3).

    Difference of the logarithms of the responses' lengths in characters, its absolute value, and their mean.
    """
    a, b = (
        np.log1p([sum(map(len, turns)) for turns in column]) for column in (battles.responses_a, battles.responses_b)
    )
    return np.stack([a - b, np.abs(a - b), (a + b) / 2], axis=1)


def length_baseline(learn: Labelled, held: Labelled) -> Probabilities:
    """Fit multinomial logistic regression on lengths to the rows learned from, and predict those held out."""
    n_rows, n_classes = learn.labels.shape
    features = np.repeat(length_features(learn.battles), n_classes, axis=0)
    classes = np.tile(np.arange(n_classes), n_rows)
    weights = learn.labels.ravel()
    if len(set(classes[weights > 0])) < 2:  # nothing to tell apart
        return np.tile(learn.labels.mean(axis=0), (len(held), 1))
    model = LogisticRegression(max_iter=1000)
    model.fit(features[weights > 0], classes[weights > 0], sample_weight=weights[weights > 0])
    result = np.zeros((len(held), n_classes))
    result[:, model.classes_] = model.predict_proba(length_features(held.battles))
    return result


def validate(learn: Labelled, held: Labelled, probabilities: Probabilities) -> dict[str, Any]:
    """Measure predictions on held-out rows, overall and by source, beside what `baselines` gives; see `measure`."""
    return measure(held, probabilities, *baselines(learn, held))


def baselines(learn: Labelled, held: Labelled) -> tuple[Probabilities, Probabilities]:
    """Return what the class prior and the length-only baseline predict for rows held out.

    Both are fitted to the rows of the same source that were learned from: the hardest form of both. Rows of a source
    that was not learned from are predicted by what fits all rows.

    Returns
    -------
    tuple of ndarray of shape (n_held, n_classes)
        Class prior, length-only baseline.
    """
    prior, lengths = (np.zeros(held.labels.shape) for _ in range(2))
    for source in sorted(set(held.sources)):
        inside = held.sources == source
        same = np.flatnonzero(learn.sources == source)
        own = learn.take(same) if len(same) else learn
        prior[inside] = own.labels.mean(axis=0)
        lengths[inside] = length_baseline(own, held.take(np.flatnonzero(inside)))
    prior = np.clip(prior, 1e-6, None)
    prior /= prior.sum(axis=1, keepdims=True)
    return prior, lengths


def measure(
    held: Labelled, probabilities: Probabilities, prior: Probabilities, lengths: Probabilities
) -> dict[str, Any]:
    """Measure predictions on held-out rows, overall and by source.

    Parameters
    ----------
    held : Labelled
        The rows.
    probabilities, prior, lengths : ndarray of shape (n_held, n_classes)
        Predictions of the model, of the class prior and of the length-only baseline.

    Returns
    -------
    dict
        By source, and for ``all``: ``rows``, ``log_loss`` and ``accuracy`` with their 95 % bootstrap intervals over
        groups, ``class_prior``, ``length_only`` (log losses), and the interval of the paired difference to the latter.
    """
    figures = {}
    for source in [*sorted(set(held.sources)), ALL]:
        rows = held.sources == source if source != ALL else np.ones(len(held), dtype=bool)
        figures[source] = _measure(
            held.labels[rows], probabilities[rows], prior[rows], lengths[rows], held.groups[rows]
        )
    return figures


def _measure(
    labels: Probabilities,
    probabilities: Probabilities,
    prior: Probabilities,
    lengths: Probabilities,
    groups: NDArray[np.object_],
) -> dict[str, Any]:
    low, high = log_loss_interval(labels, probabilities, groups)
    least, most = mean_interval(row_accuracies(labels, probabilities), groups)
    gain = paired_difference(row_log_losses(labels, probabilities), row_log_losses(labels, lengths), groups)
    return {
        "rows": len(labels),
        "log_loss": round(log_loss(labels, probabilities), 4),
        "log_loss_interval": [round(low, 4), round(high, 4)],
        "accuracy": round(accuracy(labels, probabilities), 4),
        "accuracy_interval": [round(least, 4), round(most, 4)],
        "class_prior": round(log_loss(labels, prior), 4),
        "length_only": round(log_loss(labels, lengths), 4),
        "length_only_accuracy": round(accuracy(labels, lengths), 4),
        "difference_to_length_only": round(gain.mean, 4),
        "difference_interval": [round(gain.low, 4), round(gain.high, 4)],
    }
