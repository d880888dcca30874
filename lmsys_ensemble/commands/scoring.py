"""Commands that score battles with an ensemble."""

import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from lmsys_ensemble.commands.options import EvaluateOptions, PredictOptions, SubmitOptions
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
from lmsys_ensemble.data.battles import parse_battles
from lmsys_ensemble.data.labels import parse_labels
from lmsys_ensemble.data.submission import (
    SubmissionForm,
    build_submission,
    check_sample,
    submission_form,
    write_submission,
)
from lmsys_ensemble.data.tables import read_table
from lmsys_ensemble.ensemble import Ensemble
from lmsys_ensemble.hosting.display import Display
from lmsys_ensemble.schema import ID_COLUMN, WINNER_COLUMN


def submit(options: SubmitOptions) -> Result:
    """Predict a test file and write a checked submission."""
    check_suffix(options.out, "--out (the submission)", (".csv", ".csv.gz"))
    ensemble = make_ensemble(options.config, options.devices)
    read = [*named("--test", options.test), *named("--sample", options.sample), *read_by(ensemble, options.config)]
    outputs = [("--out", options.out)]
    check_targets(outputs, read, run_dir=options.run.run_dir, prints_json=options.json)
    sample = read_table(options.sample) if options.sample else None
    battles = parse_battles(read_table(options.test))
    form = SubmissionForm(ensemble.task)
    if sample is not None:  # all that can be wrong with it is known by now
        form = submission_form(sample, ensemble.task)
        check_sample(sample, battles.ids, task=ensemble.task, source=f"rows of {options.test}")
    pull_bundled(ensemble)
    predictions = ensemble.predict(battles, **options.run.keywords())
    submission = build_submission(predictions, sample, task=ensemble.task)
    write_or_keep(options.out, lambda path: write_submission(submission, path), options.run.run_dir)
    if form.leaves_out_tie(ensemble.task):
        say("the sample knows no ties and the ensemble does: the tie was left out and the rest renormalised")
    return _summary(submission, ensemble, options.out, form)


def predict(options: PredictOptions) -> Result:
    """Predict a file and write a table, its format by suffix."""
    check_table_name(options.output, "--output")
    ensemble = make_ensemble(options.config, options.devices)
    read = [*named("--input", options.input), *read_by(ensemble, options.config)]
    outputs = [("--output", options.output)]
    check_targets(outputs, read, run_dir=options.run.run_dir, prints_json=options.json)
    battles = parse_battles(read_table(options.input))
    check_encodable(battles.ids, options.output)
    pull_bundled(ensemble)
    predictions = ensemble.predict(battles, **options.run.keywords())
    write_or_keep(options.output, lambda path: write_table(predictions, path), options.run.run_dir)
    return _summary(predictions, ensemble, options.output)


def evaluate(options: EvaluateOptions) -> Result:
    """Measure an ensemble on labelled battles."""
    ensemble = make_ensemble(options.config)
    table = read_table(options.input)
    parse_labels(table, ensemble.task)
    pull_bundled(ensemble)
    by = options.by or ("source" if "source" in table else None)
    figures = ensemble.evaluate(table, by=by, swap=options.swap, run_dir=options.run_dir)
    figures["shown"] = [f"{row.value:.4f} ({row.low:.4f} to {row.high:.4f})" for row in figures.itertuples()]
    wanted = figures[figures["metric"].isin(["log_loss", "accuracy", "swap_flip_rate"])]
    text = wanted.pivot_table(
        index=["slice", "n_rows", "model"], columns="metric", values="shown", aggfunc="first", sort=False
    ).reset_index()
    values = figures.drop(columns="shown").to_dict(orient="records")
    explained = "value (95 % bootstrap interval); log loss in nats; all measures with --json"
    return Result({"figures": values}, f"{text.to_string(index=False)}\n{explained}")


def make_ensemble(config: str | Path | None, devices: Sequence[str] | None = None) -> Ensemble:
    """Return the ensemble of a configuration, with progress as the command line shows it."""
    display: Display = "auto" if sys.stderr.isatty() else "lines"
    return Ensemble.from_config(config or bundled_config(), progress=display, devices=devices)


def read_by(ensemble: Ensemble, config: str | None) -> list[NamedPath]:
    """Return the files that an ensemble is read from, which no result may replace."""
    read = [
        (f"the {setting} of scorer {scorer.name!r},", str(value))
        for scorer in ensemble.scorers
        for setting in scorer.path_settings
        if (value := getattr(scorer, setting, None)) is not None
    ]
    return [("--config", find_config(config) if config else bundled_config()), *read]


def pull_bundled(ensemble: Ensemble) -> None:
    """Fetch bundled base models where the user sees it, before bars are drawn; not for an ensemble that cannot run."""
    names = {str(getattr(scorer, "model", "")) for scorer in ensemble.scorers}
    wanted = sorted(name for name in names if name.startswith("bundled:"))
    if wanted:
        from lmsys_ensemble.bases.bundled import ensure_bundled, is_ready
        from lmsys_ensemble.bases.catalogue import get_bundled

        if not all(is_ready(get_bundled(name)) for name in wanted):
            ensemble.check()
        for name in wanted:
            ensure_bundled(name, say)


def _summary(table: pd.DataFrame, ensemble: Ensemble, path: str | Path, form: SubmissionForm | None = None) -> Result:
    means = _means(table, form or SubmissionForm(ensemble.task))
    head = table.head(5).to_string(index=False, float_format="{:.4f}".format)
    more = f"\n… {len(table) - 5} more rows" if len(table) > 5 else ""
    mean = ", ".join(f"{name} {value:.4f}" for name, value in means.items() if value is not None)
    told = f"{head}{more}\nmean: {mean}" if mean else "there are no rows: nothing was scored"
    text = f"{told}\nwrote {len(table)} rows to {shown(path)}"
    summary = getattr(ensemble, "summary_", None)  # none where there were no rows
    time_was_up = summary is not None and summary.time_was_up
    if summary is not None and summary.time_was_up:
        say(f"time was up: {summary.fallback_rows} of {len(table)} rows lack something; {summary.explain_lack()}")
    values = {
        "output": shown(path),
        "rows": len(table),
        "fallback_rows": 0 if summary is None else summary.fallback_rows,
        "time_was_up": time_was_up,
        "scorers": [scorer.name for scorer in ensemble.scorers],
        "mean": means,
        "ids": str(table[ID_COLUMN].dtype),
    }
    return finish(Result(values, text, time_was_up), path)


def _means(table: pd.DataFrame, form: SubmissionForm) -> dict[str, float | None]:
    """Return every class's mean probability, or its share of the verdicts."""
    shares = {
        column: table[WINNER_COLUMN] == name if form.verdicts else table[column]
        for name, column in zip(form.task.classes, form.task.columns, strict=True)
    }
    return {column: float(values.mean()) if len(table) else None for column, values in shares.items()}
