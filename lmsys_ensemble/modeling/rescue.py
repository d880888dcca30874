"""What to do when a batch does not go through: out of memory, or numbers that overflow."""

import gc
import logging
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from lmsys_ensemble.compute.hardware import free_memory
from lmsys_ensemble.encoding.prefixes import Family, keep_rows
from lmsys_ensemble.memory import is_out_of_memory
from lmsys_ensemble.probabilities import Logits, rows_not_finite
from lmsys_ensemble.progress import NOT_FINITE, OUT_OF_MEMORY, Progress

logger = logging.getLogger(__name__)

Ids = Sequence[NDArray[np.int32]]
Fields = Sequence[NDArray[np.int8]]
Families = Sequence[Family] | None


class BatchRunner(Protocol):
    """What computes a batch; see `lmsys_ensemble.modeling.forward.ForwardPass`."""

    device: torch.device
    n_classes: int
    limit: int | None
    """Tokens that a batch of several rows may have, once memory has run out at twice as many."""

    @property
    def can_upcast(self) -> bool:
        """Whether float32 arithmetic would be something else than what was done."""

    def __call__(self, ids: Ids, fields: Fields, families: Families = None, *, upcast: bool = False) -> Logits:
        """Return logits of shape (n_rows, n_classes)."""


def score_rows(
    forward: BatchRunner, ids: Ids, fields: Fields, progress: Progress, families: Families = None
) -> tuple[Logits, dict[int, str]]:
    """Score a batch; halve it, and later ones, where memory runs out, and compute again in float32 what is not finite.

    Parameters
    ----------
    forward : BatchRunner
        Computes logits.
    ids, fields : sequence of ndarray
        Token ids and field codes of every row.
    progress : Progress
        Told of retries.
    families : sequence of Family, optional
        Beginnings that the rows share; passed on to `forward`, divided where the batch is.

    Returns
    -------
    logits : ndarray of shape (n_rows, n_classes)
        NaN for rows that failed.
    failed : dict
        Positions of these rows, with the reason.
    """
    logits = _try(forward, ids, fields, families)
    if logits is None:
        return _halves(forward, ids, fields, progress, families)
    faulty = rows_not_finite(logits)
    if len(faulty) and forward.can_upcast:
        progress.retried(f"{len(faulty)} of {len(ids)} rows gave {NOT_FINITE}; computing them again in float32")
        for row in faulty.tolist():
            alone = _kept(families, [row])
            again = _try(forward, [ids[row]], [fields[row]], alone, upcast=True)
            if again is not None:
                logits[row] = again[0]
        faulty = rows_not_finite(logits)
    logits[faulty] = np.nan
    return logits, dict.fromkeys(faulty.tolist(), NOT_FINITE)


def _halves(
    forward: BatchRunner, ids: Ids, fields: Fields, progress: Progress, families: Families
) -> tuple[Logits, dict[int, str]]:
    n_tokens = sum(map(len, ids))
    if len(ids) == 1:
        why = f"{OUT_OF_MEMORY} on {forward.device} at {n_tokens} tokens"
        logger.warning("a row on its own runs %s; it gets no logits", why)
        return np.full((1, forward.n_classes), np.nan, dtype=np.float32), {0: why}
    middle = len(ids) // 2
    forward.limit = max(n_tokens // 2, 1)
    progress.retried(f"{OUT_OF_MEMORY} on {forward.device} at {len(ids)} rows, {n_tokens} tokens; halving the batch")
    halves = _kept(families, range(middle)), _kept(families, range(middle, len(ids)))
    first, failed = score_rows(forward, ids[:middle], fields[:middle], progress, halves[0])
    second, more = score_rows(forward, ids[middle:], fields[middle:], progress, halves[1])
    return np.concatenate([first, second]), failed | {middle + row: why for row, why in more.items()}


def _kept(families: Families, rows: Sequence[int]) -> Families:
    return None if families is None else keep_rows(families, rows)


def _try(forward: BatchRunner, ids: Ids, fields: Fields, families: Families, *, upcast: bool = False) -> Logits | None:
    """Return logits, or None where memory runs out; nothing of the failed attempt is kept."""
    try:
        return forward(ids, fields, families, upcast=upcast)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    gc.collect()
    free_memory(str(forward.device))
    return None
