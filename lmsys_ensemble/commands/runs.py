"""Command that looks into run directories."""

from datetime import UTC, datetime
from typing import Any

from lmsys_ensemble.commands.options import RunsOptions
from lmsys_ensemble.commands.output import Result
from lmsys_ensemble.journal.status import RunReport, ScorerReport, read_run

_SHOWN_ERRORS = 10


def runs(options: RunsOptions) -> Result:
    """Tell what a run has finished, how fast, and what failed."""
    report = read_run(options.folder)
    return Result(_values(report), "\n".join(_lines(report)))


def _values(report: RunReport) -> dict[str, Any]:
    return {
        "folder": str(report.folder.resolve()),
        "created": report.created,
        "lmsys_ensemble": report.version,
        "held_by": report.held_by,
        "planned_rows": report.n_planned_rows,
        "planned_chunks": report.n_planned_chunks,
        "scorers": [
            {
                "name": scorer.name,
                "rows": scorer.n_rows,
                "failed": scorer.n_failed,
                "chunks": scorer.n_chunks,
                "tokens": scorer.n_tokens,
                "seconds": scorer.seconds,
                "rows_per_second": scorer.rows_per_second,
                "tokens_per_second": scorer.tokens_per_second,
                "devices": list(scorer.devices),
                "first_commit": _moment(scorer.first_commit),
                "last_commit": _moment(scorer.last_commit),
                "unused_chunks": scorer.n_unused_chunks,
            }
            for scorer in report.scorers
        ],
        "errors": [{"scorer": error.scorer, "row": error.key, "reason": error.reason} for error in report.errors],
    }


def _lines(report: RunReport) -> list[str]:
    state = "nobody is working on it"
    if report.held_by is not None:
        state = f"process {report.held_by or 'of unknown id'} is working on it"
    lines = [
        f"{report.folder}: made {report.created} by lmsys_ensemble {report.version}; {state}",
        f"plan: {report.n_planned_rows:,} rows in {report.n_planned_chunks:,} chunks",
    ]
    for scorer in report.scorers:
        lines += [f"{scorer.name}: {line}" for line in _scorer_lines(scorer, report.n_planned_rows)]
    n_failed = sum(scorer.n_failed for scorer in report.scorers)
    if n_failed:
        lines.append(f"failed ({n_failed:,}):")
        lines += [f"  {error.scorer}, row {error.key}: {error.reason}" for error in report.errors[:_SHOWN_ERRORS]]
    if n_failed > _SHOWN_ERRORS:
        lines.append(f"  ... {n_failed - _SHOWN_ERRORS:,} more; --json lists up to {len(report.errors)}")
    return lines


def _scorer_lines(scorer: ScorerReport, n_planned: int) -> list[str]:
    done = f"{scorer.n_rows:,} rows"
    if n_planned:
        done = f"{scorer.n_rows:,} of {n_planned:,} rows ({scorer.n_rows / n_planned:.1%})"
    lines = [f"{done} in {scorer.n_chunks:,} chunks, {scorer.n_failed:,} failed"]
    if scorer.n_chunks:
        rates = [
            f"{rate:,.1f} {unit}/s"
            for rate, unit in ((scorer.rows_per_second, "rows"), (scorer.tokens_per_second, "tokens"))
            if rate is not None
        ]
        lines.append(f"{', '.join([f'{scorer.seconds:,.1f} s', *rates])} on {', '.join(scorer.devices)}")
        lines.append(f"committed from {_moment(scorer.first_commit)} to {_moment(scorer.last_commit)}")
    if scorer.n_unused_chunks:
        lines.append(f"{scorer.n_unused_chunks:,} chunks of other settings are kept and not used")
    return lines


def _moment(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
