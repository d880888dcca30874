"""What a run takes over from earlier ones in the same run directory."""

import numpy as np

from lmsys_ensemble.errors import JournalError
from lmsys_ensemble.journal.journal import Journal
from lmsys_ensemble.progress import OUT_OF_MEMORY
from lmsys_ensemble.runtime.failures import EARLIER, Failure, too_many_failed
from lmsys_ensemble.runtime.jobs import Job
from lmsys_ensemble.runtime.options import RunOptions


def restore(job: Job, journal: Journal, options: RunOptions) -> None:
    """Take over what a scorer has finished, but for failed rows that are to be scored again.

    Raises
    ------
    JournalError
        If its logits are of another number of classes.
    """
    finished = journal.finished(job.name)
    n_classes, expected = finished.logits.shape[1], job.scorer.task.n_classes
    if len(finished) and n_classes != expected:
        raise JournalError(
            f"{journal.folder} holds logits of {n_classes} classes of scorer {job.name!r}, expected {expected}. "
            "Let its fingerprint() say how many classes it has, and give another run directory"
        )
    found = finished.positions(job.items.keys_of(np.arange(len(job.items))))
    job.restore(found, finished.logits, finished.errors, lambda why: options.retry_failed or may_have_passed(why))


def may_have_passed(reason: str) -> bool:
    """Tell whether what made a row fail in an earlier run may be over: memory that was taken may be free now."""
    return reason.startswith(OUT_OF_MEMORY)


def earlier_failure(job: Job, options: RunOptions) -> Failure | None:
    """Return the failure of a scorer of which earlier runs have left too many failed rows among those of this run."""
    failed, allowed = job.failed, options.max_failed_rows
    if len(failed) <= allowed * job.n_wanted:
        return None
    return Failure(job, too_many_failed(job, failed, EARLIER, allowed), EARLIER)
