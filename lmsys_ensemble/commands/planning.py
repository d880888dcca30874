"""The command that says how long a run will take before it starts."""

import time

from lmsys_ensemble.commands.options import PlanOptions
from lmsys_ensemble.commands.output import Result
from lmsys_ensemble.commands.scoring import make_ensemble, pull_bundled
from lmsys_ensemble.data.battles import parse_battles
from lmsys_ensemble.data.tables import read_table
from lmsys_ensemble.runtime.estimate import GIB, Projection, parse_machine, project, project_elsewhere

ROUGH = " (arithmetic, as if nothing else ran here; may be off by half, --rows-timed N times N rows)"
ELSEWHERE = " (arithmetic)"


def plan(options: PlanOptions) -> Result:
    """Count tokens, time a sample and say how long all rows will take."""
    if options.devices:
        parse_machine(options.devices)
    ensemble = make_ensemble(options.config)
    battles = parse_battles(read_table(options.test))
    ensemble.check(battles, here=options.devices is None)
    start_seconds = time.perf_counter() - options.started  # imports included, as in the run
    pull_bundled(ensemble)
    if options.devices:
        projection = project_elsewhere(ensemble.scorers, battles, options.devices)
    else:
        projection = project(ensemble.scorers, battles, n_timed=options.rows_timed, start_seconds=start_seconds)
    fits = None if options.budget_s is None else projection.seconds <= options.budget_s
    return Result({**projection.to_dict(), "fits_budget": fits}, describe(projection, fits))


def describe(projection: Projection, fits: bool | None) -> str:
    """Put a projection into words."""
    lines = [f"{projection.n_rows:,} rows on {', '.join(projection.slots)}"]
    for part in projection.scorers:
        tokens = f"{part.n_tokens:,} tokens, {part.n_truncated:,} rows cut; " if part.n_tokens else ""
        memory = f"; weights {part.weight_bytes / GIB:.1f} GiB" if part.weight_bytes and not part.n_timed else ""
        how = f"timed on {part.n_timed} row{'s' * (part.n_timed != 1)}" if part.n_timed else "by arithmetic, not timed"
        load = f"load {duration(part.load_seconds)}, then " if part.load_seconds else ""
        lines.append(f"{part.name}: {tokens}{load}{duration(part.slot_seconds)} on one device ({how}){memory}")
    if projection.start_seconds and not all(part.n_timed for part in projection.scorers):
        lines.append("too few rows to time: loading a model would take longer than a tenth of the run")
    if projection.start_seconds:
        lines.append(f"start (imports, reading, checks): {duration(projection.start_seconds)}")
    else:
        lines.append("start and loading are left out: they depend on the disk of that machine")
    lines += [f"{name} does not fit into the memory of a device" for name in projection.too_large]
    verdict = {None: "", True: ", within the budget", False: ", MORE than the budget"}[fits]
    how = "" if all(part.n_timed for part in projection.scorers) else ROUGH if projection.start_seconds else ELSEWHERE
    lines.append(f"whole run: {duration(projection.seconds)}{verdict}{how}")
    return "\n".join(lines)


def duration(seconds: float) -> str:
    """Return ``3 h 5 min``, ``12 min 4 s`` or ``4.2 s``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min {rest} s"
