"""A lexical model, from labelled rows to a folder that a scorer loads, with figures that are measured out of fold.

Neither torch nor a language model is needed, and it takes seconds.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from lmsys_ensemble.cleaning.settings import HygieneSettings
from lmsys_ensemble.data.corpus import Labelled, as_labelled, data_hash, rows_by_source
from lmsys_ensemble.data.frames import TableLike
from lmsys_ensemble.data.tables import encode_table
from lmsys_ensemble.errors import ConfigError, InputError
from lmsys_ensemble.files import check_new_folder, write_atomically
from lmsys_ensemble.lexical.features import Features
from lmsys_ensemble.lexical.files import RECORD_FILE, save_model
from lmsys_ensemble.lexical.model import LexicalModel, count_features, fit_model
from lmsys_ensemble.lexical.settings import LexicalSettings
from lmsys_ensemble.modeling.golden import golden_battles
from lmsys_ensemble.modeling.learned_rows import LEARNED_KEY, LearnedRows
from lmsys_ensemble.probabilities import Logits
from lmsys_ensemble.settings import parse_settings
from lmsys_ensemble.training.lexical_card import lexical_card
from lmsys_ensemble.training.out_of_fold import OOF_FILE, fold_table, in_order, measure_folds, write_all
from lmsys_ensemble.training.rows import CLEANING_FILE, Cleaning, Folds, deal
from lmsys_ensemble.training.settings import DataSettings

logger = logging.getLogger(__name__)

SCORER_FILE, CARD_FILE, IMPORTANCES_FILE = "scorer.yaml", "README.md", "importances.csv"


@dataclass(frozen=True)
class FittedLexical:
    """What fitting a lexical model has come to.

    Attributes
    ----------
    folder : Path
        The model, ``scorer.yaml``, ``importances.csv``, a model card, and with folds ``oof.parquet`` and
        ``labels.parquet``.
    figures : dict
        Out-of-fold figures, see `lmsys_ensemble.training.out_of_fold.measure_folds`; empty without folds.
    oof : DataFrame or None
        As ``oof.parquet`` holds it; None without folds.
    importances : DataFrame
        As `lmsys_ensemble.lexical.model.LexicalModel.importances` returns them.
    """

    folder: Path
    figures: dict[str, Any]
    oof: pd.DataFrame | None
    importances: pd.DataFrame


@dataclass(frozen=True)
class _Dealing:
    """What `deal` goes by."""

    data: DataSettings
    lexical: LexicalSettings

    @property
    def task(self) -> Any:
        return self.lexical.task

    @property
    def seed(self) -> int:
        return self.lexical.seed


def fit_lexical(
    table: TableLike | Labelled,
    *,
    output: str | Path,
    settings: LexicalSettings | None = None,
    n_splits: int = 5,
    hygiene: HygieneSettings | None = None,
    overwrite: bool = False,
    skipped: dict[str, dict[object, str]] | None = None,
    say: Callable[[str], object] = logger.info,
) -> FittedLexical:
    """Fit a lexical model to all rows, and measure it on rows that it has not seen: by folds, and fitted anew in each.

    Parameters
    ----------
    table : DataFrame or Labelled
        Labelled battles; a column ``source`` says where rows came from, and ``group`` which of them belong together.
        Rows whose prompts are equal or nearly so are in one fold in any case.
    output : str or Path
        Folder that receives the model; see `FittedLexical`.
    settings : LexicalSettings, optional
        What is fitted.
    n_splits : int
        Folds that it is measured on; 0 measures nothing.
    hygiene : HygieneSettings, optional
        How rows are cleaned first; by default they are left as they are.
    overwrite : bool
        Whether a folder that is not empty may be written to.
    skipped : dict, optional
        Rows of public formats that were no battles, by file, to be told with what was cleaned.
    say : callable
        Told in words what is being done.

    Raises
    ------
    ConfigError, InputError
        If the data or the folder cannot be used, or there are fewer groups than folds.
    MissingDependencyError
        If trees are asked for and lightgbm is not installed.

    Examples
    --------
    >>> fitted = fit_lexical("train.csv", output="lexical")  # doctest: +SKIP
    >>> fitted.figures["overall"]["all"]["log_loss"]  # doctest: +SKIP
    """
    settings = settings or LexicalSettings()
    folder = Path(output)
    if n_splits == 1 or n_splits < 0:
        raise ConfigError(f"the number of folds must be at least 2, or 0 to measure nothing, got {n_splits}")
    is_of_a_fit = (folder / RECORD_FILE).is_file()
    cure = "give a new folder, or --overwrite" if is_of_a_fit else f"it holds no {RECORD_FILE} of a fit; name another"
    check_new_folder(folder, overwrite=overwrite and is_of_a_fit, cure=cure)
    data = table if isinstance(table, Labelled) else as_labelled(table, settings.task)
    if len(data) < 2:
        raise InputError(f"a model cannot be learned from {len(data)} rows")
    dealing = _Dealing(DataSettings(hygiene=hygiene), settings)
    folds = deal(data, dealing, max(n_splits, 2))
    cleaning = Cleaning(hygiene, folds.report, skipped or {})
    cleaning.say(say)
    data = folds.data
    say(f"counting what is in {len(data):,} battles")
    counted = count_features(data.battles)
    figures: dict[str, Any] = {}
    oof = None
    if n_splits:
        say(f"measuring on {n_splits} folds by prompt")
        oof = in_order([_measure_fold(folds, fold, counted, settings) for fold in range(1, n_splits + 1)], folds)
        figures = {"n_splits": n_splits, **measure_folds(oof, folds, settings.task)}
    say("fitting all rows")
    model = _fit(data, settings, counted)
    _write(folder, model, settings, data, figures, oof)
    cleaning.write(folder)
    return FittedLexical(folder, figures, oof, model.importances())


def _fit(data: Labelled, settings: LexicalSettings, counted: Features) -> LexicalModel:
    return fit_model(data.battles, data.labels, data.groups, settings, counted)


def _measure_fold(folds: Folds, fold: int, counted: Features, settings: LexicalSettings) -> pd.DataFrame:
    """Fit all folds but one, and return what is predicted for that."""
    learn = np.flatnonzero(folds.fold_of != fold)
    model = _fit(folds.data.take(learn), settings, counted.take(learn))
    held = folds.data.battles.take(folds.rows(fold))
    logits: Logits = model.logits_in_chunks(held)
    return fold_table(folds, fold, logits, settings.task)


def _write(
    folder: Path,
    model: LexicalModel,
    settings: LexicalSettings,
    data: Labelled,
    figures: dict[str, Any],
    oof: pd.DataFrame | None,
) -> None:
    """Write all files, ``scorer.yaml`` last."""
    for name in (SCORER_FILE, CLEANING_FILE, OOF_FILE, "labels.parquet", "trees.txt", "vocabulary.json"):
        (folder / name).unlink(missing_ok=True)
    training = {
        "data_sha256": data_hash(data),
        "rows": rows_by_source(data),
        LEARNED_KEY: LearnedRows.of(data.battles).write(folder),
    }
    record = save_model(
        folder, model, settings, golden_battles(), training=training, validation=figures.get("overall", {})
    )
    importances = model.importances()
    write_atomically(folder / IMPORTANCES_FILE, encode_table(importances, IMPORTANCES_FILE))
    if oof is not None:
        write_all(folder, oof, settings.task)
    name = folder.resolve().name
    write_atomically(folder / CARD_FILE, lexical_card(name, record, figures, importances))
    scorer = {"type": "lexical", "name": name, "path": "."}
    write_atomically(folder / SCORER_FILE, yaml.safe_dump(scorer, sort_keys=False))


def read_settings(**values: Any) -> LexicalSettings:
    """Return settings, or raise `ConfigError` that names what is wrong."""
    return parse_settings(LexicalSettings, values, "the arguments of fit-lexical")
