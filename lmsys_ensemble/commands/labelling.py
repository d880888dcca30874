"""The command that labels battles with what models say of them."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lmsys_ensemble.blending.stored import describe_blender
from lmsys_ensemble.commands.members import parse_member_files
from lmsys_ensemble.commands.output import Result, finish, shown, write_or_keep, write_table
from lmsys_ensemble.commands.scoring import make_ensemble, pull_bundled, read_by
from lmsys_ensemble.commands.targets import check_suffix, check_table_name, check_targets, named
from lmsys_ensemble.commands.training_options import PseudoLabelOptions
from lmsys_ensemble.data.battles import Battles, parse_battles
from lmsys_ensemble.data.predictions import locate, parse_predictions
from lmsys_ensemble.data.tables import read_table
from lmsys_ensemble.ensemble import Ensemble
from lmsys_ensemble.errors import InputError
from lmsys_ensemble.files import sha256_of, write_json
from lmsys_ensemble.journal.fingerprints import canonical_json, digest_of
from lmsys_ensemble.probabilities import Probabilities
from lmsys_ensemble.runtime.predictor import FALLBACK_COLUMN
from lmsys_ensemble.schema import THREE_WAY, TWO_WAY, Task
from lmsys_ensemble.settings import parse_settings

SHOWN_DIGITS = 12
"""Of a hash, in the column that says what a label is from; the report has all of them."""


@dataclass(frozen=True)
class Said:
    """What models say of battles: their mean or blend, rows that one of them lacks, and which models these are."""

    task: Task
    probabilities: Probabilities
    incomplete: NDArray[np.bool_]
    models: list[dict[str, str]]


def pseudo_label(options: PseudoLabelOptions) -> Result:
    """Label battles with what models say of them, and say which rows were kept."""
    from lmsys_ensemble.training.pseudo_labels import PseudoLabelSettings, refuse_labels
    from lmsys_ensemble.training.pseudo_labels import pseudo_label as label

    given = {name: getattr(options, name) for name in PseudoLabelSettings.model_fields}
    settings = parse_settings(
        PseudoLabelSettings,
        {name: value for name, value in given.items() if value is not None},
        "the options of pseudo-label",
    )
    if (options.probabilities is None) == (options.config is None):
        raise InputError("give either --probabilities, files of predictions, or --config, an ensemble that predicts")
    if options.config is None and (options.run_dir or options.devices):
        raise InputError("--run-dir and --devices are for --config; with --probabilities nothing is scored")
    check_table_name(options.output, "--output")
    if options.report:
        check_suffix(options.report, "--report", (".json",))
    ensemble = make_ensemble(options.config, options.devices) if options.config else None
    files = parse_member_files(options.probabilities or [])
    _check_targets(options, files.paths, ensemble)
    table = read_table(options.input)
    refuse_labels(table, THREE_WAY)
    battles = parse_battles(table)
    held = read_table(options.against) if options.against else None
    if ensemble is None:
        said = _read(files.names, files.paths, battles)
    else:
        said = _predict(ensemble, battles, options.run_dir)
    labelled, report = label(
        table,
        said.probabilities,
        settings,
        labelled_by=_labelled_by(said.models, settings.temperature),
        incomplete=said.incomplete.tolist(),
        evaluation=held,
        task=said.task,
    )
    write_or_keep(options.output, partial(write_table, labelled))
    values = {
        "output": shown(options.output),
        "settings": settings.model_dump(),
        "models": said.models,
        **report.to_dict(),
    }
    if options.report:
        write_or_keep(options.report, lambda path: write_json(path, values))
    text = f"{report.to_text()}\nwrote {len(labelled):,} rows to {values['output']}"
    return finish(Result(values, text), options.output, options.report)


def _check_targets(options: PseudoLabelOptions, files: Sequence[str], ensemble: Ensemble | None) -> None:
    read = [
        *named("--input", options.input),
        *named("--against", options.against),
        *named("--probabilities", files),
        *([] if ensemble is None else read_by(ensemble, options.config)),
    ]
    outputs = [("--output", options.output), *named("--report", options.report)]
    check_targets(outputs, read, run_dir=options.run_dir, prints_json=options.json)


def _read(names: Sequence[str], paths: Sequence[str], battles: Battles) -> Said:
    tables = [read_table(path) for path in paths]
    task = THREE_WAY if any(THREE_WAY.columns[-1] in table for table in tables) else TWO_WAY
    parsed = [parse_predictions(table, path, task.columns) for table, path in zip(tables, paths, strict=True)]
    members = [predictions.take(battles.ids, "the battles") for predictions in parsed]
    incomplete = np.zeros(len(battles), dtype=bool)
    for table, predictions in zip(tables, parsed, strict=True):
        positions = locate(battles.ids, predictions.ids, f"{predictions.source} has no probabilities", "the battles")
        incomplete |= _lacks_something(table)[positions]
    models = [
        {"name": name, "file": Path(path).name, "sha256": sha256_of(path)}
        for name, path in zip(names, paths, strict=True)
    ]
    return Said(task, np.mean(members, axis=0), incomplete, models)


def _predict(ensemble: Ensemble, battles: Battles, run_dir: str | None) -> Said:
    pull_bundled(ensemble)
    table = ensemble.predict(battles, run_dir=run_dir)
    models = [
        {"name": scorer.name, "fingerprint": digest_of(canonical_json(scorer.name, scorer.fingerprint()))}
        for scorer in ensemble.scorers
    ]
    blender = digest_of(json.dumps(describe_blender(ensemble.blender), sort_keys=True, default=str))
    probabilities = table[list(ensemble.task.columns)].to_numpy()
    return Said(
        ensemble.task, probabilities, _lacks_something(table), [*models, {"name": "blender", "fingerprint": blender}]
    )


def _lacks_something(table: pd.DataFrame) -> NDArray[np.bool_]:
    """Tell which rows of predictions lack something, as `lmsys_ensemble.Ensemble.predict` says it."""
    if FALLBACK_COLUMN not in table:
        return np.zeros(len(table), dtype=bool)
    lacking: NDArray[np.bool_] = (table[FALLBACK_COLUMN].fillna("").astype(str) != "").to_numpy()
    return lacking


def _labelled_by(models: Sequence[dict[str, Any]], temperature: float) -> str:
    """Say in one line what gave the labels, so that the same files and models give the same text."""
    known = [f"{model['name']}:{(model.get('sha256') or model['fingerprint'])[:SHOWN_DIGITS]}" for model in models]
    return " ".join([*known, *([f"temperature={temperature:g}"] if temperature != 1 else [])])
