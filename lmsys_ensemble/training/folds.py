"""K folds: every row is scored by a model that did not learn from it, nor from one that shares its prompt."""

import gc
import hashlib
import json
import logging
import re
import secrets
import shutil
from collections.abc import Callable, Set
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from lmsys_ensemble.data.corpus import data_hash
from lmsys_ensemble.data.frames import TableLike
from lmsys_ensemble.errors import ConfigError
from lmsys_ensemble.files import check_new_folder, read_object, whole_folder, write_json
from lmsys_ensemble.modeling import hardware
from lmsys_ensemble.modeling.digests import base_digest
from lmsys_ensemble.modeling.sources import resolve_base
from lmsys_ensemble.training.adapter import train_adapter
from lmsys_ensemble.training.checkpoints import compare_runs, describe_run
from lmsys_ensemble.training.distillation import recipe_objective
from lmsys_ensemble.training.finishing import LAST_FILE
from lmsys_ensemble.training.folds_card import CARD_FILE, CONFIG_FILE, write_card, write_ensemble
from lmsys_ensemble.training.inputs import describe_inputs, stage_of_fold
from lmsys_ensemble.training.job import plain_settings
from lmsys_ensemble.training.locks import holds_only_locks, in_turn, reserved
from lmsys_ensemble.training.out_of_fold import LABELS_FILE, OOF_FILE, measure_folds, read_folds, write_all, write_fold
from lmsys_ensemble.training.processes import is_main
from lmsys_ensemble.training.rows import CLEANING_FILE, Cleaning, Folds, deal
from lmsys_ensemble.training.run import check_rows, check_run, default_cache, open_recipe, read_rows
from lmsys_ensemble.training.settings import TrainSettings
from lmsys_ensemble.training.unseen import check_folds_unseen

logger = logging.getLogger(__name__)

FOLD_FILE, FIGURES_FILE = "fold.json", "folds.json"
_FOLDER = re.compile(r"fold-([1-9]\d*)")


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
        Begin anew: all folds, or the one named by `fold`.

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
    present = _present(folder) if is_main() else ()
    if is_main() and not present and not holds_only_locks(folder):
        check_new_folder(folder, overwrite=overwrite)
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
    states = Path(cache or default_cache())
    anew = set() if not overwrite else {*chosen} if fold is not None else {*chosen, *present}
    with reserved(folder, {*chosen, *anew}) if is_main() else nullcontext():
        whole = _begin(folder, chosen, anew, run)
        tell(f"{len(folds.data)} rows in {n_splits} folds by prompt; data.holdout is for runs without folds")
        for number in chosen:
            if number in whole:
                tell(f"fold {number} of {n_splits} is whole: nothing is trained")
                continue
            tell(f"fold {number} of {n_splits}")
            _train_one(settings, folds, number, run, _place(folder, number), device, states, tell)
        return _assemble(settings, folds, folder, run, cleaning, tell)


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


def _place(folder: Path, fold: int) -> Path:
    return folder / f"fold-{fold}"


def _present(folder: Path) -> tuple[int, ...]:
    """Return the numbers of the folds that were begun in a folder."""
    found = []
    for path in folder.glob("fold-*") if folder.is_dir() else ():
        named = _FOLDER.fullmatch(path.name)
        if not named:
            continue
        if not (path / FOLD_FILE).is_file():
            raise ConfigError(f"{path} holds no {FOLD_FILE}: it is not of a training with folds. Give another folder")
        found.append(int(named[1]))
    return tuple(sorted(found))


def _is_whole(place: Path) -> bool:
    return (place / LAST_FILE).is_file() and (place / OOF_FILE).is_file()


def _describe(settings: TrainSettings, folds: Folds) -> dict[str, Any]:
    """Return what a training with folds is known by: recipe, rows, how they were dealt, base model."""
    base = resolve_base(settings.base_model, settings.revision)
    values = plain_settings(settings)
    if Path(settings.base_model).is_dir():
        values["base_model"] = base.resolve().name  # what is passed on names no path of this machine
    data = folds.data
    columns = (data.battles.ids.tolist(), data.sources.tolist(), data.groups.tolist(), folds.fold_of.tolist())
    digest = hashlib.sha256(json.dumps(columns, default=str).encode(errors="surrogatepass")).hexdigest()
    run = describe_run(values, data_hash(data), None, base_digest(base), describe_inputs(settings))
    del run["held_sha256"]
    return {"n_splits": folds.n_splits, **run, "ids_sources_groups_sha256": digest}


def _begin(folder: Path, chosen: tuple[int, ...], anew: Set[int], run: dict[str, Any]) -> set[int]:
    """Remove folds that begin anew, begin the first that is to be trained, and return those that are whole.

    Other processes have begun folds by then or begin them afterwards: all are of one run, or one of the calls fails.
    """
    if not is_main():
        return {number for number in chosen if number not in anew and _is_whole(_place(folder, number))}
    with in_turn(folder):
        present = {*_present(folder)}
        for number in sorted(present - anew):
            place = _place(folder, number)
            compare_runs(read_object(place / FOLD_FILE).get("run", {}), run, place)
        if anew:
            _forget(folder, anew & present)
        whole = {number for number in chosen if _is_whole(_place(folder, number))}
        for number in [number for number in chosen if number not in whole][:1]:
            _mark(_place(folder, number), number, run)
        return whole


def _mark(place: Path, fold: int, run: dict[str, Any]) -> None:
    """Say whose a fold is: another process finds its folder with that file in it, or not at all."""
    with whole_folder(place) as folder:
        write_json(folder / FOLD_FILE, {"fold": fold, "run": run})


def _forget(folder: Path, folds: Set[int]) -> None:
    """Remove folds that begin anew, and what was made of all folds."""
    for number in folds:
        removed = folder / f".fold-{number}.{secrets.token_hex(6)}"  # at once: no other process sees a half of it
        shutil.rmtree(_place(folder, number).rename(removed))
    for name in (OOF_FILE, LABELS_FILE, FIGURES_FILE, CONFIG_FILE, CARD_FILE, CLEANING_FILE):
        (folder / name).unlink(missing_ok=True)


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
    if is_main():
        _mark(place, fold, run)
    named = stage_of_fold(settings, fold).model_copy(update={"name": f"{settings.name}-fold-{fold}"})
    trained = train_adapter(named, learn, held, folder=place, device=device, resume=True, cache=cache, say=say)
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
        cleaning.write(folder)
        finished, missing = _finished(folds, folder)
        if missing:
            return TrainedFolds(folder, finished, missing, None, None)
        say("measuring all rows out of fold")
        table = read_folds([_place(folder, number) / OOF_FILE for number in finished], folds)
        write_all(folder, table, settings.task)
        figures = {"n_splits": folds.n_splits, **measure_folds(table, folds, settings.task), "run": run}
        write_ensemble(folder, settings, folds.n_splits)
        write_card(folder, settings, figures)
        write_json(folder / FIGURES_FILE, figures)
        return TrainedFolds(folder, finished, missing, figures, table)


def _finished(folds: Folds, folder: Path) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the numbers of the folds that are whole, and of those that are not."""
    numbers = range(1, folds.n_splits + 1)
    finished = tuple(number for number in numbers if _is_whole(_place(folder, number)))
    return finished, tuple(number for number in numbers if number not in finished)
