"""The second pass of a row with its two responses exchanged: which rows get it, and how the two become one."""

import math

import numpy as np
from numpy.typing import NDArray

from lmsys_ensemble.probabilities import Logits, Probabilities, log_probabilities, softmax, swap_classes
from lmsys_ensemble.runtime.options import Space
from lmsys_ensemble.schema import Task


def closest_to_call(blended: Probabilities, share: float, known: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Return the rows that get a second pass, closest first, ties in the table's order.

    Closest is where A and B are most nearly as likely: what a pass with the responses exchanged can turn around. On
    human labels this chose better than the margin of the two largest classes and the entropy (benchmarks/swap.py).

    Parameters
    ----------
    blended : ndarray of shape (n_rows, n_classes)
        The blend of the forward passes, and of nothing else: what an earlier run has left of second passes must not
        change the choice.
    share : float
        Share of the rows, rounded up.
    known : ndarray of bool of shape (n_rows,)
        Rows that have a forward pass; the others cannot be chosen.
    """
    n_chosen = min(math.ceil(share * len(blended)), int(known.sum()))
    apart = np.where(known, np.abs(blended[:, 0] - blended[:, 1]), np.inf)
    return np.argsort(apart, kind="stable")[:n_chosen]


def average_passes(forward: Logits, backward: Logits, task: Task, space: Space) -> Probabilities:
    """Return probabilities out of both passes of every row.

    Parameters
    ----------
    forward : ndarray of shape (n_rows, n_classes)
        Logits of the rows as they are.
    backward : ndarray of shape (n_rows, n_classes)
        Logits of the rows with their responses exchanged, classes in the order in which the model gave them; NaN
        where there was no such pass.
    task : Task
        Classes and their order.
    space : {"probability", "log"}
        Where the average is taken.

    Returns
    -------
    ndarray of shape (n_rows, n_classes)
        NaN where there is no forward pass.
    """
    result = softmax(forward)
    rows = np.flatnonzero(np.isfinite(backward).all(axis=1) & np.isfinite(forward).all(axis=1))
    ahead, back = result[rows], softmax(swap_classes(backward[rows], task))
    if space == "log":
        result[rows] = softmax((log_probabilities(ahead) + log_probabilities(back)) / 2)
    else:
        result[rows] = (ahead + back) / 2
    return result
