"""Signs that a scorer's rows or columns are not in order, or that it knows nothing."""

from itertools import permutations

import numpy as np
from numpy.typing import NDArray

from lmsys_ensemble.blending.checks import Array
from lmsys_ensemble.evaluation.intervals import standard_error
from lmsys_ensemble.evaluation.metrics import row_accuracies, row_log_losses
from lmsys_ensemble.probabilities import Probabilities, log_probabilities

MIN_ROWS = 200
"""With fewer rows a good scorer can look like a shuffled one by chance."""

LEAK_ROWS = 20
"""With fewer rows a confident scorer can agree with all labels by chance."""

LEAK_TOLERANCE = 0.005
"""How far a copy of the labels may be from them: what rounding to two decimals does."""

MAX_CLASSES = 5
"""With more classes not all orders of the columns are tried."""


class MemberWarning(UserWarning):
    """A scorer looks misaligned with the labels, or worse than knowing nothing."""


def find_leaks(members: list[Probabilities], labels: Probabilities) -> list[int]:
    """Find scorers that say what only the labels can say.

    Parameters
    ----------
    members : list of ndarray of shape (n_rows, n_classes)
        Checked probabilities, one array per scorer.
    labels : ndarray of shape (n_rows, n_classes)
        One-hot or soft labels.

    Returns
    -------
    list of int
        Positions of the scorers that are the labels themselves but for rounding, or, with `MIN_ROWS` rows at least,
        whose most probable class is right in every row.
    """
    if len(labels) < LEAK_ROWS or np.ptp(labels, axis=0).max() <= LEAK_TOLERANCE:
        return []
    leaks = []
    for position, member in enumerate(members):
        copied = np.abs(member - labels).max() <= LEAK_TOLERANCE
        never_wrong = len(labels) >= MIN_ROWS and len(np.unique(labels.argmax(axis=1))) > 1
        never_wrong = never_wrong and bool((row_accuracies(labels, member) == 1).all())
        if copied or never_wrong:
            leaks.append(position)
    return leaks


def diagnose_members(
    members: list[Probabilities], labels: Probabilities, weights: Array, codes: NDArray[np.intp]
) -> list[str]:
    """List what looks wrong about the scorers.

    Parameters
    ----------
    members : list of ndarray of shape (n_rows, n_classes)
        Checked probabilities, one array per scorer.
    labels : ndarray of shape (n_rows, n_classes)
        One-hot or soft labels.
    weights : ndarray of shape (n_rows,)
        Weights of the rows.
    codes : ndarray of shape (n_rows,)
        Numbers of the rows' groups.

    Returns
    -------
    list of str
        One sentence per finding: the scorer knows the labels; it would lose nothing if its rows were shuffled; another
        order of its columns fits far better; or it is worse than the class prior.
    """
    leaks = find_leaks(members, labels)
    findings = [
        f"scorer {position} is a leak: it says what the labels say in every row, so that it cannot be a prediction and "
        "no figure it takes part in means anything. Check that it is not the file of the labels"
        for position in leaks
    ]
    if len(labels) < MIN_ROWS:
        return findings
    prior = np.average(labels, axis=0, weights=weights)
    prior_loss = float(-(prior @ log_probabilities(prior[None])[0]))
    for position, member in enumerate(members):
        if position in leaks:
            continue
        logs = log_probabilities(member)
        loss = float(np.average(row_log_losses(labels, member), weights=weights))
        gain, error = _gain_over_shuffled(logs, labels, weights, codes)
        name = f"scorer {position} (log loss {loss:.4f})"
        if gain <= 2 * error + 1e-12:
            findings.append(
                f"{name}: shuffling its rows would not hurt it (order gains {gain:.4f} +- {error:.4f}); "
                "check that its rows are those of the labels"
            )
        elif order := _better_order(member, labels, weights, codes):
            findings.append(
                f"{name}: its columns would fit much better in the order {order}; check the order of classes"
            )
        elif loss > prior_loss:
            findings.append(
                f"{name} is worse than the class prior ({prior_loss:.4f}), which knows nothing of a row; "
                "check the order of its rows and columns, or calibrate it with calibration='before+after'"
            )
    return findings


def _gain_over_shuffled(
    logs: Array, labels: Probabilities, weights: Array, codes: NDArray[np.intp]
) -> tuple[float, float]:
    """Compute how much the log loss would rise if rows were shuffled, and the standard error of that.

    The expectation over all shuffles is exact: shuffled predictions are independent of the labels, so that
    the rise is the covariance of labels and log probabilities.
    """
    centred_logs = logs - np.average(logs, axis=0, weights=weights)
    centred_labels = labels - np.average(labels, axis=0, weights=weights)
    products = (centred_logs * centred_labels).sum(axis=1)
    return float(np.average(products, weights=weights)), standard_error(products, weights, codes)


def _better_order(
    member: Probabilities, labels: Probabilities, weights: Array, codes: NDArray[np.intp]
) -> tuple[int, ...] | None:
    """Return an order of the columns whose log loss is lower by 4 standard errors, if there is one."""
    n_classes = labels.shape[1]
    if n_classes > MAX_CLASSES:
        return None
    orders = list(permutations(range(n_classes)))
    losses = [row_log_losses(labels, member[:, list(order)]) for order in orders]
    best = int(np.argmin([np.average(row, weights=weights) for row in losses]))
    gains = losses[0] - losses[best]
    beyond_doubt = np.average(gains, weights=weights) > 4 * standard_error(gains, weights, codes)
    return orders[best] if best and beyond_doubt else None
