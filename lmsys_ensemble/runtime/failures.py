"""How a run says what went wrong, and how to go on."""

from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np

from lmsys_ensemble.errors import EnsembleError, ScoringError
from lmsys_ensemble.flags import spell
from lmsys_ensemble.hosting.scope import Failure
from lmsys_ensemble.progress import NOT_FINITE
from lmsys_ensemble.runtime.jobs import Job

EARLIER = "an earlier run"
"""Stands for the device where rows failed in an earlier run."""

_MAX_LISTED = 10


def raise_failure(failure: Failure, others: str, cure: str) -> NoReturn:
    """Raise what went wrong: an `EnsembleError` as it is, with a note; everything else as a `ScoringError`.

    Parameters
    ----------
    failure : Failure
        What, where and with which scorer.
    others : str
        What became of the other scorers.
    cure : str
        How to resume, a sentence without its full stop; empty where there is nothing to resume.
    """
    error = failure.error
    ending = f". {cure}" if cure else ""
    if failure.scorer is None:
        if isinstance(error, EnsembleError):
            if cure:
                error.add_note(cure)
            raise error
        raise EnsembleError(f"the run failed: {type(error).__name__}: {error}{ending}") from error
    where = f"scorer {failure.scorer!r} on {failure.device}"
    rows = _rows_at_hand(failure)
    if isinstance(error, EnsembleError):
        error.add_note(f"{where}{rows}; {others}{ending}")
        raise error
    raise ScoringError(
        f"{where} failed: {type(error).__name__}: {error}{rows}. {others[0].upper()}{others[1:]}{ending}",
        scorer=failure.scorer,
        device=failure.device,
        row_ids=failure.row_ids[:_MAX_LISTED],
    ) from error


def too_many_failed(job: Job, reasons: dict[int, str], device: str, allowed: float) -> ScoringError:
    """Return the error that says that more rows of a scorer failed than are allowed, and names them."""
    ids = job.items.ids(np.array(list(reasons), dtype=np.intp))
    shown = tuple(ids[:_MAX_LISTED])
    kinds = sorted(set(reasons.values()))
    cure = "; try dtype='float32', or bfloat16 where float16 overflows" if NOT_FINITE in kinds else ""
    if device == EARLIER:
        cure += f"; {spell('retry_failed=True')} scores them again"
    limit = f"{spell('max_failed_rows')} allows {allowed:.2%} of the rows" if allowed else "no row may fail here"
    what = f"gave {NOT_FINITE}" if kinds == [NOT_FINITE] else f"failed ({'; '.join(kinds[:3])})"
    return ScoringError(
        f"scorer {job.name!r} on {device} {what} for {len(ids)} of {len(job.items.original)} rows "
        f"(ids {', '.join(map(repr, shown))}){cure}; {limit}",
        scorer=job.name,
        device=device,
        row_ids=shown,
    )


def how_to_resume(run_dir: str | Path | None, jobs: Sequence[Job], failure: Failure | None = None) -> str:
    """Return how to go on from what is finished, a sentence without its full stop.

    Empty where a scorer failed before any row was scored, so that there was nothing to keep.
    """
    if run_dir is None:
        begun = failure is None or len(failure.row_ids) > 0 or any(job.cost_begun for job in jobs)
        begun = begun or any(job.results.n_finished for job in jobs)
        return f"Pass {spell('run_dir=')} to keep finished work" if begun else ""
    n_done = sum(job.results.n_finished for job in jobs)
    n_wanted = sum(job.results.n_wanted for job in jobs)
    kept = f"{n_done} of {n_wanted} rows of all scorers are kept in {run_dir}"
    return f"{kept}: rerun with the same {spell('run_dir')} to resume"


def _rows_at_hand(failure: Failure) -> str:
    ids = failure.row_ids
    if not ids or (isinstance(failure.error, ScoringError) and failure.error.row_ids):
        return ""  # it failed before it scored, or its error names the rows at fault itself
    listed = ", ".join(map(repr, ids[:_MAX_LISTED])) + (", ..." if len(ids) > _MAX_LISTED else "")
    return f", while it scored {len(ids)} rows (ids {listed})"
