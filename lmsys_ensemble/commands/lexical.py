"""The command that fits the baseline: fit-lexical."""

from pathlib import Path

from lmsys_ensemble.commands.output import Result, say
from lmsys_ensemble.commands.training_options import FitLexicalOptions
from lmsys_ensemble.data.corpus import DataFile, read_labelled
from lmsys_ensemble.data.sources import split_source
from lmsys_ensemble.errors import InputError
from lmsys_ensemble.files import check_new_folder
from lmsys_ensemble.schema import TASKS

N_IMPORTANCES = 10
"""Features that are printed; ``importances.csv`` has all."""


def fit_lexical(options: FitLexicalOptions) -> Result:
    """Fit a lexical model, and measure it out of fold."""
    from lmsys_ensemble.training.lexical import fit_lexical as fit
    from lmsys_ensemble.training.lexical import read_settings
    from lmsys_ensemble.training.out_of_fold import figures_table

    task = TASKS[options.task]
    settings = read_settings(model=options.model, classes=task.n_classes)
    check_new_folder(options.output, overwrite=options.overwrite, cure="give a new folder, or --overwrite")
    split = [split_source(text) for text in options.input]
    missing = [path for _, path in split if not Path(path).is_file()]
    if missing:
        raise InputError(f"--input: there is no file {', '.join(missing)}")
    skipped: dict[str, dict[object, str]] = {}
    data = read_labelled([DataFile(Path(path), source) for source, path in split], task, skipped)
    fitted = fit(
        data, output=options.output, settings=settings, n_splits=options.folds, overwrite=options.overwrite,
        skipped=skipped, say=say,
    )  # fmt: skip
    lines = [
        f"{options.output}: lexical.json, lexical.safetensors, scorer.yaml, golden.json, importances.csv, README.md"
    ]
    if fitted.figures:
        figures = figures_table(fitted.figures).to_string(index=False)
        lines += ["out of fold, in oof.parquet and labels.parquet:", figures]
    shown = fitted.importances.head(N_IMPORTANCES).drop(columns="words")
    lines += ["the heaviest features:", shown.to_string(index=False, float_format="{:.3f}".format)]
    values = {
        "output": str(options.output),
        "figures": fitted.figures,
        "importances": fitted.importances.to_dict(orient="records"),
    }
    return Result(values, "\n".join(lines))
