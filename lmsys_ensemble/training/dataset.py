"""Labelled battles for training: divided by group, encoded in both orders."""

import numpy as np
from numpy.typing import NDArray

from lmsys_ensemble.data.corpus import Labelled
from lmsys_ensemble.encoding.tokens import Encoded, Encoder
from lmsys_ensemble.evaluation.folds import holdout_split
from lmsys_ensemble.probabilities import Probabilities, swap_classes
from lmsys_ensemble.schema import Task
from lmsys_ensemble.training.settings import DataSettings


def split(data: Labelled, settings: DataSettings, seed: int) -> tuple[Labelled, Labelled]:
    """Divide into rows to learn from and rows held out, by group within each source; caps apply to the former.

    Raises
    ------
    InputError
        If a source has too few groups to hold any out.
    """
    learn: list[NDArray[np.intp]] = []
    hold: list[NDArray[np.intp]] = []
    generator = np.random.default_rng(seed)
    for source in sorted(set(data.sources)):
        rows = np.flatnonzero(data.sources == source)
        share = settings.holdout.get(source, settings.holdout.get("default", 0.0))
        kept = rows
        if share > 0:
            inner, outer = holdout_split(list(data.groups[rows]), share, seed)
            kept = rows[inner]
            hold.append(rows[outer])
        cap = settings.rows.get(source, len(kept))
        learn.append(np.sort(generator.permutation(kept)[:cap]))
    held = np.concatenate(hold) if hold else np.empty(0, dtype=np.intp)
    learned = np.concatenate(learn)
    # A group may span sources: what is held out in one is not learned in another.
    learned = learned[~np.isin(data.groups[learned].astype(str), np.unique(data.groups[held].astype(str)))]
    return data.take(np.sort(learned)), data.take(np.sort(held))


def encode_both_orders(
    data: Labelled, encoder: Encoder, task: Task, both: bool
) -> tuple[Encoded, Probabilities, NDArray[np.intp]]:
    """Encode rows as they are and, if `both`, once more with the responses swapped.

    Returns
    -------
    encoded : Encoded
        Rows as they are, then the swapped ones.
    labels : ndarray of shape (n_encoded, n_classes)
        Labels, swapped alike.
    rows : ndarray of shape (n_encoded,)
        Row of `data` that each came from.
    """
    rows = np.arange(len(data))
    first = encoder.encode(data.battles)
    if not both:
        return first, data.labels, rows
    encoded = first + encoder.encode(data.battles.swapped())
    labels = np.concatenate([data.labels, swap_classes(data.labels, task)])
    return encoded, labels, np.concatenate([rows, rows])
