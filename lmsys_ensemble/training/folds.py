"""K folds: every row is scored by a model that did not learn from it, nor from one that shares its prompt."""

import gc
import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from lmsys_ensemble.bases.sources import resolve_base
from lmsys_ensemble.compute import hardware
from lmsys_ensemble.data.corpus import data_hash
from lmsys_ensemble.data.frames import TableLike
from lmsys_ensemble.errors import ConfigError
from lmsys_ensemble.files import check_new_folder, write_json
from lmsys_ensemble.flags import spell
from lmsys_ensemble.modeling.digests import base_sha256
from lmsys_ensemble.training import fold_places
from lmsys_ensemble.training.adapter import train_adapter
from lmsys_ensemble.training.checkpoints import describe_run
from lmsys_ensemble.training.distillation import recipe_objective
from lmsys_ensemble.training.fold_places import FIGURES_FILE
from lmsys_ensemble.training.folds_card import write_card, write_ensemble
from lmsys_ensemble.training.inputs import FOLD, describe_inputs, stage_of_fold
from lmsys_ensemble.training.job import plain_settings, plan_job
from lmsys_ensemble.training.locks import in_turn, reserved
from lmsys_ensemble.training.out_of_fold import OOF_FILE, measure_folds, read_folds, write_all, write_fold
from lmsys_ensemble.training.output import is_begun, says_how_to_go_on
from lmsys_ensemble.training.processes import is_main
from lmsys_ensemble.training.rows import Cleaning, Folds, deal
from lmsys_ensemble.training.run import check_rows, check_run, default_cache, open_recipe, read_rows
from lmsys_ensemble.training.settings import TrainSettings
from lmsys_ensemble.training.unseen import check_folds_unseen

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainedFolds:
    """What a training with folds has come to.

    Attributes
    ----------
    folder : Path
        ``fold-1`` and so on, each with all that a scorer needs; where all folds are there, ``oof.parquet``,
        ``labels.parquet``, ``folds.json``, ``ensemble.yaml`` and ``README.md``, too.
    finished, missing : tuple of int
        Folds that are trained, and folds that are yet to be.
    figures : dict or None
        As ``folds.json`` states them; None while folds are missing.
    oof : DataFrame or None
        As ``oof.parquet`` holds it; None while folds are missing.
    """

    folder: Path
    finished: tuple[int, ...]
    missing: tuple[int, ...]
    figures: dict[str, Any] | None
    oof: pd.DataFrame | None


def kfold(
    recipe: str | Path | TrainSettings,
    df: TableLike | None = None,
    n_splits: int = 5,
    *,
    fold: int | None = None,
    output: str | Path,
    data_folder: str | Path | None = None,
    device: str = "auto",
    overwrite: bool = False,
    cache: str | Path | None = None,
    say: Callable[[str], object] = logger.info,
) -> TrainedFolds:
    """Train one adapter per fold, each from a base that is loaded anew; every row is scored by the one that lacked it.

    Rows whose prompts are equal or nearly so are in one fold; see `lmsys_ensemble.training.rows.deal`. Every row is
    held out once: ``data.holdout`` is for runs without folds. A folder is gone on with: folds that are whole are not
    trained again, one that was interrupted goes on from its last checkpoint.

    Hidden states below the first trained layer are computed once for all folds. They know no labels, and what they owe
    to other rows of a batch is rounding.

    Several processes may train folds in one folder at the same time; each fold is trained by one of them.

    Parameters
    ----------
    recipe, df, data_folder, device, cache, say
        As for `lmsys_ensemble.training.run.train`.
    n_splits : int
        Number of folds.
    fold : int, optional
        The one fold to train or to go on with, from 1; others may be trained elsewhere at the same time. What is made
        of all folds is written by whichever call finds them all in one folder.
    output : str or Path
        Folder that receives ``fold-1`` and so on; see `TrainedFolds`.
    overwrite : bool
        Begin anew: all folds, or the one named by `fold`. Those that are there stay, with what was made of them, until
        all that replace them are whole; a later call without it goes on with the replacements.

    Raises
    ------
    ConfigError, InputError
        If the recipe, the data or the folder cannot be used, or there are fewer groups than folds; before anything is
        loaded. If the folder holds folds of other settings or data; names the difference. If another process trains
        one of the folds. If a first stage has learned from rows of a fold that starts from it.

    Warns
    -----
    SeenRowsWarning
        If that is not known of a first stage or a teacher.

    Examples
    --------
    >>> trained = kfold("recipe.yaml", "train.csv", output="folds")  # doctest: +SKIP
    >>> trained.figures["overall"]["all"]["log_loss"]  # doctest: +SKIP
    """
    chosen = _check_folds(n_splits, fold)
    settings = open_recipe(recipe, data_folder)
    _check_settings(settings)
    folder = Path(output)
    there, states = fold_places.present(folder), Path(cache or default_cache())
    replaced = overwrite and bool(there if fold is None else there & {fold})
    if is_main():
        if not there and not fold_places.holds_nothing_yet(folder):
            check_new_folder(folder, overwrite=overwrite)
        check_new_folder(states, spell("cache=").rstrip("="), overwrite=True, cure="name a folder")
    device = check_run(settings, device)
    tell = say if is_main() else logger.debug
    skipped: dict[str, dict[object, str]] = {}
    folds = deal(read_rows(recipe, settings, df, data_folder, skipped), settings, n_splits)
    cleaning = Cleaning(settings.data.hygiene, folds.report, skipped)
    cleaning.say(tell)
    for number in chosen:
        check_rows(settings, *folds.divide(number))
    recipe_objective(settings, folds.data)  # a teacher that lacks rows of the last fold is told before the first one
    check_folds_unseen(settings, folds, chosen)
    settings = settings.model_copy(update={"data": settings.data.model_copy(update={"holdout": {}})})
    run = _describe(settings, folds)
    _check_jobs(settings, folds, chosen, folder, device)
    place = fold_places.following if replaced else fold_places.place
    with reserved(folder, {*chosen, *(there if replaced and fold is None else ())}) if is_main() else nullcontext():
        whole = _begin(folder, chosen, run, replaced, place)
        tell(f"{len(folds.data)} rows in {n_splits} folds by prompt; data.holdout is for runs without folds")
        for number in chosen:
            if number in whole:
                tell(f"fold {number} of {n_splits} is whole: nothing is trained")
                continue
            tell(f"fold {number} of {n_splits}")
            _train_one(settings, folds, number, run, place(folder, number), device, states, tell)
        return _assemble(settings, folds, folder, run, cleaning, tell)


def _check_jobs(settings: TrainSettings, folds: Folds, chosen: Sequence[int], folder: Path, device: str) -> None:
    """Check the recipe against the base model, and the first stage of every fold, before anything is changed."""
    own_stages = FOLD in (settings.init_adapter or "")
    for number in chosen if own_stages else chosen[:1]:
        plan_job(stage_of_fold(settings, number), *folds.divide(number), fold_places.place(folder, number), device)


def _check_folds(n_splits: int, fold: int | None) -> tuple[int, ...]:
    """Return the folds that are asked for."""
    if n_splits < 2:
        raise ConfigError(f"the number of folds must be at least 2, got {n_splits}")
    if fold is not None and not 1 <= fold <= n_splits:
        raise ConfigError(f"there is no fold {fold} of {n_splits}; folds are counted from 1")
    return tuple(range(1, n_splits + 1)) if fold is None else (fold,)


def _check_settings(settings: TrainSettings) -> None:
    if settings.evaluation.keeps_best:
        raise ConfigError(
            "evaluation.patience and keep_best choose weights by the rows held out, which with folds are those that "
            "the out-of-fold predictions are for. Leave them out, and set optimizer.epochs"
        )


def _describe(settings: TrainSettings, folds: Folds) -> dict[str, Any]:
    """Return what a training with folds is known by: recipe, rows, how they were dealt, base model."""
    base = resolve_base(settings.base_model, settings.revision)
    values = plain_settings(settings)
    if Path(settings.base_model).is_dir():
        values["base_model"] = base.resolve().name  # what is passed on names no path of this machine
    data = folds.data
    columns = (data.battles.ids.tolist(), data.sources.tolist(), data.groups.tolist(), folds.fold_of.tolist())
    digest = hashlib.sha256(json.dumps(columns, default=str).encode(errors="surrogatepass")).hexdigest()
    hashes = {"data_sha256": data_hash(data), "ids_sources_groups_sha256": digest, "base_sha256": base_sha256(base)}
    return {"n_splits": folds.n_splits, **describe_run(values, hashes, describe_inputs(settings))}


def _begin(
    folder: Path, chosen: tuple[int, ...], run: dict[str, Any], replaced: bool, place: Callable[[Path, int], Path]
) -> set[int]:
    """Begin the first fold that is to be trained, or the replacements of folds, and return those that are whole.

    Other processes have begun folds by then or begin them afterwards: all are of one run, or one of the calls fails.
    """
    if not is_main():
        return {number for number in chosen if not replaced and fold_places.is_whole(place(folder, number))}
    with in_turn(folder):
        if len(chosen) == 1 or not replaced:
            fold_places.check_runs(folder, run, run["n_splits"], but=chosen if replaced else ())
        if replaced:
            fold_places.replace(folder, chosen, run)
        whole = {number for number in chosen if fold_places.is_whole(place(folder, number))}
        for number in [number for number in chosen if number not in whole][:1]:
            fold_places.mark(place(folder, number), number, run)
        return whole


def _train_one(
    settings: TrainSettings,
    folds: Folds,
    fold: int,
    run: dict[str, Any],
    place: Path,
    device: str,
    cache: Path,
    say: Callable[[str], object],
) -> None:
    """Train the adapter of a fold, or go on with it, and score the rows held out."""
    learn, held = folds.divide(fold)
    resume = is_begun(place)
    if is_main():
        fold_places.mark(place, fold, run)
    named = stage_of_fold(settings, fold).model_copy(update={"name": f"{settings.name}-fold-{fold}"})
    again = f"fold {fold}, asked for again without {spell('overwrite=True')},"
    with says_how_to_go_on(place, again):
        trained = train_adapter(named, learn, held, folder=place, device=device, resume=resume, cache=cache, say=say)
        if is_main():
            write_fold(place / OOF_FILE, folds, fold, trained.held_logits, settings.task)
    del trained
    gc.collect()  # the Trainer and its model refer to each other
    hardware.free_memory(device)


def _assemble(
    settings: TrainSettings,
    folds: Folds,
    folder: Path,
    run: dict[str, Any],
    cleaning: Cleaning,
    say: Callable[[str], object],
) -> TrainedFolds:
    """Make of all folds what is made of them, if they are all there."""
    if not is_main():
        return TrainedFolds(folder, *_finished(folds, folder), None, None)
    with in_turn(folder):
        fold_places.take_places(folder, folds.n_splits)
        if not fold_places.replacements(folder):
            cleaning.write(folder)
        finished, missing = _finished(folds, folder)
        if missing:
            return TrainedFolds(folder, finished, missing, None, None)
        say("measuring all rows out of fold")
        table = read_folds([fold_places.place(folder, number) / OOF_FILE for number in finished], folds)
        write_all(folder, table, settings.task)
        figures = {"n_splits": folds.n_splits, **measure_folds(table, folds, settings.task), "run": run}
        write_ensemble(folder, settings, folds.n_splits)
        write_card(folder, settings, figures)
        write_json(folder / FIGURES_FILE, figures)
        return TrainedFolds(folder, finished, missing, figures, table)


def _finished(folds: Folds, folder: Path) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the numbers of the folds that are whole, and of those that are not."""
    numbers = range(1, folds.n_splits + 1)
    finished = tuple(number for number in numbers if fold_places.is_whole(fold_places.place(folder, number)))
    return finished, tuple(number for number in numbers if number not in finished)
