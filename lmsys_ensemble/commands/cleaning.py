"""The command that shows and does what training does to its data first: cleaning."""

from collections.abc import Sequence
from functools import partial

import pandas as pd

from lmsys_ensemble.commands.output import Result, finish, shown, write_or_keep, write_table
from lmsys_ensemble.commands.targets import check_suffix, check_table_name, check_targets, named
from lmsys_ensemble.commands.training_options import CleanOptions
from lmsys_ensemble.data.merging import merge_sources, with_json_texts
from lmsys_ensemble.data.predictions import name_files
from lmsys_ensemble.data.sources import load_source, skipped_lines, skipped_values, split_source
from lmsys_ensemble.data.tables import read_table
from lmsys_ensemble.files import write_json
from lmsys_ensemble.schema import TASKS
from lmsys_ensemble.settings import parse_settings


def clean(options: CleanOptions) -> Result:
    """Clean labelled battles, and say what was done with which rows."""
    from lmsys_ensemble.cleaning.hygiene import clean as run
    from lmsys_ensemble.cleaning.settings import HygieneSettings

    given = {name: getattr(options, name) for name in HygieneSettings.model_fields}
    settings = parse_settings(
        HygieneSettings, {name: value for name, value in given.items() if value is not None}, "the options of clean"
    )
    inputs = [split_source(text) for text in options.input]
    against = [split_source(options.against)] if options.against else []
    check_table_name(options.output, "--output")
    if options.report:
        check_suffix(options.report, "--report", (".json",))
    check_targets(
        [("--output", options.output), *named("--report", options.report)],
        [*named("--input", [path for _, path in inputs]), *named("--against", [path for _, path in against])],
        prints_json=options.json,
    )
    skipped: dict[str, dict[object, str]] = {}
    table = _read(inputs, skipped)
    held = _read(against, skipped) if against else None
    cleaned, report = run(table, settings, held, TASKS[options.task])
    write_or_keep(options.output, partial(write_table, with_json_texts(cleaned)))
    values = {
        "output": shown(options.output),
        "settings": settings.model_dump(),
        **report.to_dict(),
        "skipped": skipped_values(skipped),
    }
    if options.report:
        write_or_keep(options.report, lambda path: write_json(path, values))
    text = "\n".join([*skipped_lines(skipped), report.to_text(), f"wrote {len(cleaned):,} rows to {values['output']}"])
    return finish(Result(values, text), options.output, options.report)


def _read(files: Sequence[tuple[str | None, str]], skipped: dict[str, dict[object, str]]) -> pd.DataFrame:
    """Read one table as it is, or several below each other; add to `skipped` what is no battle."""
    tables = []
    for source, path in files:
        if source is None:
            tables.append(read_table(path))
        else:
            loaded = load_source(source, path)
            if loaded.skipped:
                skipped[path] = loaded.skipped
            tables.append(loaded.table)
    if len(tables) == 1:
        return tables[0]
    return merge_sources(dict(zip(name_files([path for _, path in files]), tables, strict=True)))
