"""What a run takes over from earlier ones in the same run directory."""

import numpy as np

from lmsys_ensemble.errors import JournalError
from lmsys_ensemble.hosting.scope import Failure
from lmsys_ensemble.journal.journal import Journal
from lmsys_ensemble.progress import OUT_OF_MEMORY
from lmsys_ensemble.runtime.failures import EARLIER, too_many_failed
from lmsys_ensemble.runtime.jobs import Job
from lmsys_ensemble.runtime.options import RunOptions


def restore(job: Job, journal: Journal, options: RunOptions) -> None:
    """Take over what a scorer has finished, except failed rows that are to be scored again.

    Raises
    ------
    JournalError
        If its logits have another number of classes.
    """
    finished = journal.finished(job.name)
    n_classes, expected = finished.logits.shape[1], job.scorer.task.n_classes
    if len(finished) and n_classes != expected:
        raise JournalError(
            f"{journal.folder} holds logits of {n_classes} classes of scorer {job.name!r}, expected {expected}. "
            "Let its fingerprint() say how many classes it has, and give another run directory"
        )
    found = finished.positions(job.items.keys_of(np.arange(len(job.items))))
    job.tally.n_resumed = job.results.restore(
        found, finished.logits, finished.errors, lambda why: options.retry_failed or may_have_passed(why)
    )


def may_have_passed(reason: str) -> bool:
    """Tell whether the cause of an earlier run's failure may be gone: memory that was taken may be free now."""
    return reason.startswith(OUT_OF_MEMORY)


def earlier_failure(job: Job, options: RunOptions) -> Failure | None:
    """Return the failure of a scorer if too many of the rows that this run wants failed in earlier runs, else None."""
    failed, allowed = job.results.failed, options.max_failed_rows
    if len(failed) <= allowed * job.results.n_wanted:
        return None
    return Failure(job.name, too_many_failed(job, failed, EARLIER, allowed), EARLIER)
