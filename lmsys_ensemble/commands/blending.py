"""Commands that work on files of predictions alone, from whatever system: blend, and report."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from lmsys_ensemble.blending.blender import Blender
from lmsys_ensemble.blending.crossfit import cross_fit_blender
from lmsys_ensemble.blending.explanation import (
    describe_method,
    describe_weights,
    explain_choice,
    find_unused,
    fit_with_findings,
)
from lmsys_ensemble.commands.members import MemberFiles, match_blender, match_swapped, parse_member_files
from lmsys_ensemble.commands.options import BlendOptions, ReportOptions
from lmsys_ensemble.commands.output import Result, finish, shown, write_or_keep, write_table
from lmsys_ensemble.commands.targets import NamedPath, check_suffix, check_table_name, check_targets, named
from lmsys_ensemble.data.predictions import (
    Labels,
    Predictions,
    count_winners,
    locate,
    parse_predictions,
    read_labels,
    read_predictions,
)
from lmsys_ensemble.data.tables import read_table
from lmsys_ensemble.errors import ConfigError, InputError
from lmsys_ensemble.evaluation.folds import group_codes
from lmsys_ensemble.evaluation.intervals import paired_difference
from lmsys_ensemble.evaluation.metrics import class_prior, log_loss, row_log_losses
from lmsys_ensemble.probabilities import Probabilities
from lmsys_ensemble.report.page import write_report
from lmsys_ensemble.schema import ID_COLUMN, THREE_WAY, TWO_WAY, Task


def blend(options: BlendOptions) -> Result:
    """Fit a blender on files of predictions and labels, or apply a fitted one."""
    if options.labels is not None and options.apply is None:
        return _fit(options, options.labels)
    if options.apply is not None and options.labels is None:
        return _apply(options, options.apply)
    raise InputError("give either --labels, to fit a blender, or --apply, to use a fitted one")


def report(options: ReportOptions) -> Result:
    """Write an offline HTML report on predictions, their blend and its calibration."""
    check_suffix(options.out, "--out", (".html", ".htm"))
    if options.worst_out:
        check_table_name(options.worst_out, "--worst-out")
    given = parse_member_files(options.probabilities)
    swapped_files = None
    if options.swapped:
        swapped_files = match_swapped(parse_member_files(options.swapped, "--swapped"), given)
    outputs = [("--out", options.out), *named("--worst-out", options.worst_out)]
    read = [
        *_read_by(given, options.labels), *named("--battles", options.battles), *named("--blender", options.blender),
        *named("--swapped", (swapped_files or {}).values()),
    ]  # fmt: skip
    check_targets(outputs, read, prints_json=options.json)
    blender = match_blender(Blender.load(options.blender), given) if options.blender else None
    task, files = _read_members(given.paths)
    labels = read_labels(options.labels, task, options.groups)
    swapped = None
    if swapped_files is not None:
        of_swapped = [read_predictions(path, task.columns) for path in swapped_files.values()]
        swapped = dict(zip(swapped_files, _members(of_swapped, labels), strict=True))
    make = partial(
        write_report,
        members=dict(zip(given.names, _members(files, labels), strict=True)),
        labels=labels.labels,
        ids=labels.ids,
        groups=labels.groups,
        blender=blender,
        battles=read_table(options.battles) if options.battles else None,
        swapped=swapped,
        task=task,
        n_worst=options.worst,
        fitted_elsewhere=options.fitted_elsewhere,
    )
    findings = write_or_keep(options.out, make)
    if options.worst_out:
        write_or_keep(options.worst_out, partial(write_table, findings.worst_rows()))
    summary = findings.summary()
    path = shown(options.out)
    lines = [f"{row['name']}: log loss {row['log_loss']:.4f}" for row in summary]
    values = {"output": path, "rows": len(labels.ids), "models": summary, "warnings": findings.warnings}
    text = "\n".join([*lines, *_notes(findings.warnings), f"wrote {path}"])
    return finish(Result(values, text), options.out, options.worst_out)


def _fit(options: BlendOptions, labels_file: str) -> Result:
    check_suffix(options.out, "--out (the blender)", (".json",))
    if options.predict_out:
        check_table_name(options.predict_out, "--predict-out")
    given = parse_member_files(options.probabilities)
    names = given.names
    outputs = [("--out", options.out), *named("--predict-out", options.predict_out)]
    check_targets(outputs, _read_by(given, labels_file), prints_json=options.json)
    task, files = _read_members(given.paths)
    labels = read_labels(labels_file, task, options.groups)
    members = _members(files, labels)
    blender = Blender(options.method or "auto", options.calibration)
    warnings = fit_with_findings(blender, members, labels.labels, labels.groups, names)
    warnings += [*find_unused(blender, names), *_left_out(files, labels)]
    write_or_keep(options.out, blender.save)
    values = {
        "output": shown(options.out),
        **_figures(blender, members, labels, names),
        "warnings": warnings,
    }
    text = _fit_text(values, blender)
    if options.predict_out:
        values["predictions"] = _write_blend(blender, files, task, options.predict_out)
        text += (
            f"\nwrote the blend to {values['predictions']}; rows with labels were fitted on, "
            "so do not measure the blend with them"
        )
    return finish(Result(values, text), options.out, options.predict_out)


def _apply(options: BlendOptions, fitted: str) -> Result:
    of_fitting = {
        "--method": options.method, "--calibration": options.calibration, "--groups": options.groups,
        "--predict-out": options.predict_out,
    }  # fmt: skip
    for option, value in of_fitting.items():
        if value is not None:
            raise InputError(f"{option} is for fitting; with --apply everything is in the blender")
    check_table_name(options.out, "--out (the predictions)")
    given = parse_member_files(options.probabilities)
    read = [*named("--probabilities", given.paths), ("--apply", fitted)]
    check_targets([("--out", options.out)], read, prints_json=options.json)
    blender = match_blender(Blender.load(fitted), given)
    task, files = _read_members(given.paths)
    path = _write_blend(blender, files, task, options.out)
    rows, found = len(files[0].ids), getattr(blender, "weights_", None)
    weights = None if found is None else dict(zip(given.names, found.tolist(), strict=True))
    warnings = []
    if getattr(blender, "member_names_", None) is None:
        warnings.append(
            "the blender's file has no names of members: the files are trusted to come in the order of "
            f"{'fitting' if weights else 'the weights'}, {', '.join(given.names)}. A blender fitted anew knows them"
        )
    lines = [f"weights: {', '.join(f'{name} {weight:.4f}' for name, weight in weights.items())}"] if weights else []
    values = {"output": path, "rows": rows, "weights": weights, "warnings": warnings}
    text = "\n".join([*lines, *_notes(warnings), f"wrote {rows} rows to {path}"])
    return finish(Result(values, text), options.out)


def _read_by(given: MemberFiles, labels_file: str | None) -> list[NamedPath]:
    return [*named("--probabilities", given.paths), *named("--labels", labels_file)]


def _read_members(paths: Sequence[str]) -> tuple[Task, list[Predictions]]:
    """Read files of predictions; the task has two classes if no file has a column for ties."""
    tables = [read_table(path) for path in paths]
    task = THREE_WAY if any(THREE_WAY.columns[-1] in table for table in tables) else TWO_WAY
    return task, [parse_predictions(table, path, task.columns) for table, path in zip(tables, paths, strict=True)]


def _members(files: Sequence[Predictions], labels: Labels) -> list[Probabilities]:
    """Return every file's rows in the order of the labels, which must not be the predictions of one of them."""
    members = [file.take(labels.ids, "the labels") for file in files]
    shares = count_winners(labels.labels) < len(labels.ids)
    for file, member in zip(files, members, strict=True):
        if shares and np.allclose(member, labels.labels, atol=1e-9):
            raise InputError(
                f"the labels are the predictions of {file.source}, which would be measured against itself. Give a file "
                "with what people preferred"
            )
    return members


def _left_out(files: Sequence[Predictions], labels: Labels) -> list[str]:
    """Name files with rows that no label belongs to; what is fitted does not see them."""
    counts = [(file.source, len(file.ids.difference(labels.ids))) for file in files]
    return [f"{source} has {count} rows without a label; they are not fitted on" for source, count in counts if count]


def _write_blend(blender: Blender, files: Sequence[Predictions], task: Task, path: str) -> str:
    """Blend the rows of the first file, in its order; all files must hold the same ids."""
    first = files[0]
    for other in files[1:]:
        locate(other.ids, first.ids, f"{first.source} has no probabilities", other.source)
    members = [file.take(first.ids, first.source) for file in files]
    if getattr(blender, "n_classes_", task.n_classes) != task.n_classes:
        raise ConfigError(
            f"the blender was fitted on {blender.n_classes_} classes, the files hold {task.n_classes}; "
            "fit one on such files"
        )
    table = pd.DataFrame(blender.predict_proba(members), columns=list(task.columns))
    table.insert(0, ID_COLUMN, first.ids)
    write_or_keep(path, partial(write_table, table))
    return shown(path)


def _figures(
    blender: Blender, members: Sequence[Probabilities], labels: Labels, names: Sequence[str]
) -> dict[str, Any]:
    truth = labels.labels
    codes = group_codes(labels.groups, len(truth))
    n_groups = int(codes.max()) + 1
    equal = np.mean(members, axis=0)
    figures: dict[str, Any] = {
        "rows": len(truth),
        "groups": n_groups,
        "class_prior": log_loss(truth, class_prior(truth, len(truth))),
        "members": [
            {
                "name": name, "log_loss": log_loss(truth, member), "weight": float(weight),
                "temperature": float(temperature),
            }
            for name, member, weight, temperature in zip(
                names, members, blender.weights_, blender.temperatures_, strict=True
            )
        ],
        "temperature": float(blender.temperature_),
        "bias": blender.bias_.tolist(),
        "equal_log_loss": log_loss(truth, equal),
        "method": blender.method_,
        "calibration": blender.calibration_,
        "why": explain_choice(blender, n_groups),
        "selection": None if blender.selection_ is None else blender.selection_.to_dict(orient="records"),
        "out_of_fold": None,
    }  # fmt: skip
    if n_groups > 1:
        predicted = cross_fit_blender(blender, members, truth, codes).predict_proba(members)
        difference = paired_difference(row_log_losses(truth, predicted), row_log_losses(truth, equal), codes)
        figures["out_of_fold"] = {
            "log_loss": log_loss(truth, predicted),
            "difference": difference.mean, "low": difference.low, "high": difference.high,
        }  # fmt: skip
    return figures


def _fit_text(values: dict[str, Any], blender: Blender) -> str:
    members = pd.DataFrame(values["members"])
    lines = [
        f"{values['rows']} rows in {values['groups']} groups",
        "",
        members.to_string(index=False, float_format="{:.4f}".format),
        "",
        describe_weights(blender),
    ]
    if values["temperature"] != 1:
        lines.append(f"temperature after the blend: {values['temperature']:.4f}")
    if any(values["bias"]):
        lines.append(f"class biases: {', '.join(f'{value:+.4f}' for value in values['bias'])}")
    lines += ["", f"{'log loss':>8}  what"]
    lines.append(f"{values['class_prior']:8.4f}  the class prior, which knows nothing of a row")
    lines.append(f"{values['equal_log_loss']:8.4f}  the equal average of all members")
    if out := values["out_of_fold"]:
        nested = " (nested: the method was chosen without it, too)" if values["selection"] else ""
        lines.append(
            f"{out['log_loss']:8.4f}  the blend, every row by one that was fitted without it{nested} "
            f"({out['difference']:+.4f} to the equal average; 95 %: {out['low']:+.4f} to {out['high']:+.4f})"
        )
    if values["selection"]:
        lines += ["", _selection_text(values["selection"])]
    lines += ["", values["why"], *_notes(values["warnings"]), f"wrote {values['output']}"]
    return "\n".join(lines)


def _selection_text(selection: Sequence[dict[str, Any]]) -> str:
    lines = [
        "plain estimates: every row by a blend that was fitted without it, each method as if settled beforehand",
        "out of fold  to equal average (95 %)           method",
    ]
    for row in selection:
        interval = f"{row['difference']:+.4f} ({row['low']:+.4f} to {row['high']:+.4f})"
        mark = "  <- chosen" if row["selected"] else ""
        lines.append(
            f"{row['log_loss']:11.4f}  {interval:32}  {describe_method(row['method'], row['calibration'])}{mark}"
        )
    return "\n".join(lines)


def _notes(warnings: Sequence[str]) -> list[str]:
    return [f"note: {warning}" for warning in warnings]
