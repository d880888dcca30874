"""Which rows of a scorer come next when time is short."""

import numpy as np
from numpy.typing import NDArray

from lmsys_ensemble.runtime.budget import PROBE_ROWS, order_of_need, split_to_fit
from lmsys_ensemble.runtime.items import Positions, cut
from lmsys_ensemble.runtime.jobs import Job


def take_probe(job: Job) -> Positions:
    """Take a few short rows, to learn how fast a scorer is before a long chunk is lost at the deadline."""
    chunk = job.queue.pop()
    if len(chunk) > PROBE_ROWS:
        job.queue.append(chunk[:-PROBE_ROWS])
        chunk = chunk[-PROBE_ROWS:]
    job.cost_waiting -= job.items.cost(chunk)
    return chunk


def take_what_fits(job: Job, seconds_left: float) -> Positions | None:
    """Take the next chunk or the beginning of it; rows that cannot be done in the time left are dropped."""
    while job.queue:
        chunk = job.queue.popleft()
        costs = job.items.costs[chunk]
        possible, n_now = split_to_fit(costs, job.speed.seconds_per_cost, seconds_left)
        now, later = chunk[possible][:n_now], chunk[possible][n_now:]
        job.cost_waiting -= int(costs.sum()) - job.items.cost(later)
        if len(later):
            job.queue.appendleft(later)
        if len(now):
            return now
    return None


def reorder(job: Job, sureness: NDArray[np.float64], limit: int) -> None:
    """Put the rows that are needed most first, by how sure each item is without them (NaN: nothing is known)."""
    waiting = np.concatenate(list(job.queue))
    order = order_of_need(sureness[waiting], job.items.costs[waiting])
    job.queue.clear()
    job.queue.extend(cut(job.items, waiting[order], limit))
