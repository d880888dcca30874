"""Commands that score battles with an ensemble."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from lmsys_ensemble.commands.output import Result, finish, say, shown, write_or_keep, write_table
from lmsys_ensemble.commands.targets import (
    NamedPath,
    check_encodable,
    check_suffix,
    check_table_name,
    check_targets,
    named,
)
from lmsys_ensemble.config import bundled_config, find_config
from lmsys_ensemble.data.battles import parse_battles, parse_labels
from lmsys_ensemble.data.submission import build_submission, check_sample, write_submission
from lmsys_ensemble.data.tables import read_table
from lmsys_ensemble.ensemble import Ensemble
from lmsys_ensemble.flags import read_flags
from lmsys_ensemble.runtime.bars import Display
from lmsys_ensemble.runtime.options import RunOptions
from lmsys_ensemble.schema import ID_COLUMN


def submit(arguments: argparse.Namespace) -> Result:
    """Predict a test file and write a checked submission."""
    check_suffix(arguments.out, "--out (the submission)", (".csv", ".csv.gz"))
    ensemble = make_ensemble(arguments.config, arguments.devices)
    options = read_flags(RunOptions, arguments)  # wrong ones are refused before files are read
    read = [*named("--test", arguments.test), *named("--sample", arguments.sample), *_read_by(ensemble, arguments)]
    outputs = [("--out", arguments.out)]
    check_targets(outputs, read, run_dir=arguments.run_dir, prints_json=arguments.json)
    sample = read_table(arguments.sample) if arguments.sample else None
    battles = parse_battles(read_table(arguments.test))
    if sample is not None:  # all that can be wrong with it is known by now
        check_sample(sample, battles.ids, task=ensemble.task, source=f"rows of {arguments.test}")
    pull_bundled(ensemble)
    predictions = ensemble.predict(battles, **options.keywords())
    submission = build_submission(predictions, sample, task=ensemble.task)
    write_or_keep(arguments.out, lambda path: write_submission(submission, path), arguments.run_dir)
    return _summary(submission, ensemble, arguments.out)


def predict(arguments: argparse.Namespace) -> Result:
    """Predict a file and write a table, its format by suffix."""
    check_table_name(arguments.output, "--output")
    ensemble = make_ensemble(arguments.config, arguments.devices)
    options = read_flags(RunOptions, arguments)  # wrong ones are refused before files are read
    read = [*named("--input", arguments.input), *_read_by(ensemble, arguments)]
    outputs = [("--output", arguments.output)]
    check_targets(outputs, read, run_dir=arguments.run_dir, prints_json=arguments.json)
    battles = parse_battles(read_table(arguments.input))
    check_encodable(battles.ids, arguments.output)
    pull_bundled(ensemble)
    predictions = ensemble.predict(battles, **options.keywords())
    write_or_keep(arguments.output, lambda path: write_table(predictions, path), arguments.run_dir)
    return _summary(predictions, ensemble, arguments.output)


def evaluate(arguments: argparse.Namespace) -> Result:
    """Measure an ensemble on labelled battles."""
    ensemble = make_ensemble(arguments.config)
    table = read_table(arguments.input)
    parse_labels(table, ensemble.task)
    pull_bundled(ensemble)
    by = arguments.by or ("source" if "source" in table else None)
    figures = ensemble.evaluate(table, by=by, swap=arguments.swap)
    figures["shown"] = [f"{row.value:.4f} ({row.low:.4f} to {row.high:.4f})" for row in figures.itertuples()]
    wanted = figures[figures["metric"].isin(["log_loss", "accuracy", "swap_flip_rate"])]
    text = wanted.pivot_table(
        index=["slice", "n_rows", "model"], columns="metric", values="shown", aggfunc="first", sort=False
    ).reset_index()
    values = figures.drop(columns="shown").to_dict(orient="records")
    explained = "value (95 % bootstrap interval); log loss in nats; all measures with --json"
    return {"figures": values}, f"{text.to_string(index=False)}\n{explained}"


def make_ensemble(config: str | Path | None, devices: Sequence[str] | None = None) -> Ensemble:
    """Return the ensemble of a configuration, with progress as the command line shows it."""
    display: Display = "auto" if sys.stderr.isatty() else "lines"
    return Ensemble.from_config(config or bundled_config(), progress=display, devices=devices)


def _read_by(ensemble: Ensemble, arguments: argparse.Namespace) -> list[NamedPath]:
    """Return the files that an ensemble is read from, which no result may replace."""
    read = [
        (f"the {setting} of scorer {scorer.name!r},", str(value))
        for scorer in ensemble.scorers
        for setting in scorer.path_settings
        if (value := getattr(scorer, setting, None)) is not None
    ]
    return [("--config", find_config(arguments.config) if arguments.config else bundled_config()), *read]


def pull_bundled(ensemble: Ensemble) -> None:
    """Fetch bundled base models where the user sees it, before bars are drawn; not for an ensemble that cannot run."""
    names = {str(getattr(scorer, "model", "")) for scorer in ensemble.scorers}
    wanted = sorted(name for name in names if name.startswith("bundled:"))
    if wanted:
        from lmsys_ensemble.modeling.bundled import ensure_bundled, get_bundled, is_ready

        if not all(is_ready(get_bundled(name)) for name in wanted):
            ensemble.check()
        for name in wanted:
            ensure_bundled(name, say)


def _summary(table: pd.DataFrame, ensemble: Ensemble, path: str | Path) -> Result:
    columns = list(ensemble.task.columns)
    means = {str(name): float(table[name].mean()) if len(table) else None for name in columns}
    head = table.head(5).to_string(index=False, float_format="{:.4f}".format)
    more = f"\n… {len(table) - 5} more rows" if len(table) > 5 else ""
    mean = ", ".join(f"{name} {value:.4f}" for name, value in means.items() if value is not None)
    told = f"{head}{more}\nmean: {mean}" if mean else "there are no rows: nothing was scored"
    text = f"{told}\nwrote {len(table)} rows to {shown(path)}"
    summary = getattr(ensemble, "summary_", None)  # none where there were no rows
    if summary is not None and summary.time_was_up:
        say(f"time was up: {summary.fallback_rows} of {len(table)} rows lack something; {summary.explain_lack()}")
    values = {
        "output": shown(path),
        "rows": len(table),
        "fallback_rows": 0 if summary is None else summary.fallback_rows,
        "time_was_up": summary is not None and summary.time_was_up,
        "scorers": [scorer.name for scorer in ensemble.scorers],
        "mean": means,
        "ids": str(table[ID_COLUMN].dtype),
    }
    return finish(values, text, path)
