"""Which rows make a step of the optimiser, and in which batches they are computed."""

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from lmsys_ensemble.encoding.batches import pack_batches, plan_batches
from lmsys_ensemble.training.settings import BatchSettings

_STEPS_SORTED_TOGETHER = 64


def plan_epoch(
    lengths: NDArray[np.intp], rows_per_step: int, generator: np.random.Generator, by_length: bool = True
) -> list[NDArray[np.intp]]:
    """Return the rows of every step, shuffled; the number of steps depends on nothing but the number of rows.

    Parameters
    ----------
    lengths : ndarray of shape (n_rows,)
        Tokens of every row.
    rows_per_step : int
        Most rows of a step.
    generator : Generator
        Draws the order.
    by_length : bool
        Whether rows of similar length come together, so that little is padded.
    """
    order = generator.permutation(len(lengths))
    steps = []
    for start in range(0, len(order), rows_per_step * _STEPS_SORTED_TOGETHER):
        block = order[start : start + rows_per_step * _STEPS_SORTED_TOGETHER]
        if by_length:
            block = block[np.argsort(lengths[block], kind="stable")]
        steps.extend(np.array_split(block, math.ceil(len(block) / rows_per_step)))
    return [steps[position] for position in generator.permutation(len(steps))] if by_length else steps


def divide(
    rows: NDArray[np.intp], lengths: NDArray[np.intp], settings: BatchSettings, packed: bool
) -> list[NDArray[np.intp]]:
    """Divide rows into batches within the budget of `settings`; each row is in exactly one."""
    plan = pack_batches if packed else plan_batches
    batches = [rows[positions] for positions in plan(lengths[rows], settings.tokens)]
    if settings.rows is None:
        return batches
    return [part for batch in batches for part in np.array_split(batch, math.ceil(len(batch) / settings.rows))]


class Steps:
    """Batch sampler: the rows of one step after the other, drawn anew for every epoch.

    The order depends on seed and epoch only, so that a resumed run goes on where the interrupted one was.
    """

    def __init__(self, lengths: NDArray[np.intp], rows_per_step: int, seed: int, by_length: bool):
        self._settings = (lengths, rows_per_step, by_length)
        self._seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch (from 0) that comes next."""
        self.epoch = epoch

    def plan(self, epoch: int) -> list[NDArray[np.intp]]:
        """Return the rows of every step of an epoch."""
        lengths, rows_per_step, by_length = self._settings
        return plan_epoch(lengths, rows_per_step, np.random.default_rng([self._seed, epoch]), by_length)

    def __iter__(self) -> Iterator[list[int]]:
        yield from (rows.tolist() for rows in self.plan(self.epoch))

    def __len__(self) -> int:
        return len(self.plan(0))


class StepLoader(DataLoader):  # type: ignore[type-arg]
    """Data loader whose items are the rows of a step; it passes epochs on to its sampler."""

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch (from 0) that comes next."""
        self.batch_sampler.set_epoch(epoch)  # type: ignore[union-attr]
