"""What a run learns from and is measured on: rows cleaned, grouped by prompt and divided."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lmsys_ensemble.cleaning.hygiene import clean_labelled
from lmsys_ensemble.cleaning.report import CleaningReport
from lmsys_ensemble.cleaning.settings import HygieneSettings
from lmsys_ensemble.data.corpus import Labelled
from lmsys_ensemble.data.sources import skipped_lines, skipped_values
from lmsys_ensemble.errors import ConfigError, InputError
from lmsys_ensemble.evaluation.folds import make_folds
from lmsys_ensemble.files import write_json
from lmsys_ensemble.schema import Task
from lmsys_ensemble.settings import suggest
from lmsys_ensemble.training.dataset import split
from lmsys_ensemble.training.settings import DataSettings, TrainSettings

CLEANING_FILE = "cleaning.json"

_ONLY_GROUPS = HygieneSettings(empty="keep", identical="keep", duplicates="keep", overlap="keep")


@dataclass(frozen=True)
class Cleaning:
    """What was done with rows before training, and what was skipped when files were read.

    Attributes
    ----------
    settings : HygieneSettings or None
        None where rows were left as they came.
    report : CleaningReport or None
        What was done with which rows.
    skipped : dict
        Rows of public formats that are no battles, and why, by file.
    """

    settings: HygieneSettings | None
    report: CleaningReport | None
    skipped: Mapping[str, Mapping[object, str]]

    def say(self, tell: Callable[[str], object]) -> None:
        """Pass the summary, as text, to `tell`."""
        lines = skipped_lines(self.skipped)
        if self.report is not None:
            lines.append(self.report.to_text())
        if lines:
            tell("\n".join(lines))

    def write(self, folder: Path) -> None:
        """Write ``cleaning.json``, where there is anything to say."""
        if self.report is None and not self.skipped:
            return
        values: dict[str, Any] = {"skipped": skipped_values(self.skipped)}
        if self.report is not None and self.settings is not None:
            values = {"settings": self.settings.model_dump(), **self.report.to_dict(), **values}
        write_json(folder / CLEANING_FILE, values)


class Dealing(Protocol):
    """What rows are cleaned, capped and dealt by; a recipe has it."""

    @property
    def data(self) -> DataSettings:
        """Cleaning, and caps per source."""

    @property
    def task(self) -> Task:
        """Classes of the labels."""

    @property
    def seed(self) -> int:
        """Seed of draws."""


@dataclass(frozen=True)
class Divided:
    """Rows to learn from, rows held out, and what cleaning did to the former."""

    learn: Labelled
    held: Labelled
    report: CleaningReport | None


@dataclass(frozen=True)
class Folds:
    """Rows that are dealt into folds.

    Attributes
    ----------
    data : Labelled
        All rows, with the groups that were dealt.
    fold_of : ndarray of shape (n_rows,)
        Fold of every row, from 1.
    report : CleaningReport or None
        What cleaning did.
    """

    data: Labelled
    fold_of: NDArray[np.intp]
    report: CleaningReport | None

    @property
    def n_splits(self) -> int:
        """Number of folds."""
        return int(self.fold_of.max())

    def divide(self, fold: int) -> tuple[Labelled, Labelled]:
        """Return the rows to learn from and the rows held out in a fold."""
        return self.data.take(np.flatnonzero(self.fold_of != fold)), self.data.take(self.rows(fold))

    def rows(self, fold: int) -> NDArray[np.intp]:
        """Return the positions of the rows held out in a fold."""
        return np.flatnonzero(self.fold_of == fold)


def divide(data: Labelled, settings: TrainSettings) -> Divided:
    """Divide into rows to learn from and rows held out; where ``data.hygiene`` is set, clean the former.

    Rows whose prompts are equal (after normalisation) are of one group, whatever the column ``group`` says, and are
    held out together; where they are cleaned, so are those whose prompts are nearly equal. What is held out stays as it
    came, and is what the rest must not overlap with. Caps (``data.rows``) apply to what cleaning leaves.

    Raises
    ------
    InputError
        If a source has too few groups to hold any out, or cleaning leaves nothing.
    ConfigError
        If the recipe names a source that no row is of.
    """
    check_sources(data, settings.data)
    hygiene, seed = settings.data.hygiene, settings.seed
    if hygiene is None:
        return Divided(*split(group_by_prompt(data, settings, None), settings.data, seed), None)
    data = group_by_prompt(data, settings, hygiene.similar_prompts)
    learn, held = split(data, settings.data.model_copy(update={"rows": {}}), seed)
    if not len(learn):
        return Divided(learn, held, None)
    known = hygiene.model_copy(update={"similar_prompts": None})  # groups hold what is similar
    learn, report = clean_labelled(learn, known, held.battles, settings.task)
    return Divided(_cap(learn, settings), held, report)


def deal(data: Labelled, settings: Dealing, n_splits: int) -> Folds:
    """Deal rows into folds by prompt; where ``data.hygiene`` is set, clean them first.

    Rows whose prompts are equal or nearly so are in one fold, cleaned or not. Folds have nearly equal shares of every
    source. Labels have no say: which rows a model learns from does not depend on the labels that it is measured by.
    Every row is held out once, so that ``data.holdout`` is not used. Caps (``data.rows``) are of all rows of a source.

    Raises
    ------
    InputError
        If there are fewer groups than folds, or no rows are left.
    ConfigError
        If the recipe names a source that no row is of.
    """
    check_sources(data, settings.data)
    hygiene, report = settings.data.hygiene, None
    if hygiene is None:
        data = group_by_prompt(data, settings, _ONLY_GROUPS.similar_prompts)
    else:
        data, report = clean_labelled(data, hygiene, None, settings.task)
    data = _cap(data, settings)
    if not len(data):
        raise InputError("no rows to learn from are left; look at data.rows")
    sources = np.unique(data.sources.astype(str), return_inverse=True)[1]
    fold_of = make_folds(data.groups, n_splits, settings.seed, labels=np.eye(sources.max() + 1)[sources])
    return Folds(data, fold_of + 1, report)


def check_sources(data: Labelled, settings: DataSettings) -> None:
    """Raise `ConfigError` if a weight, a cap or a share to hold out is of a source that no row is of."""
    known = set(data.sources.tolist())
    named: dict[str, Mapping[str, float]] = {
        "weights": settings.weights,
        "rows": settings.rows,
        "holdout": settings.holdout,
    }
    faults = [
        f"data.{setting} names the source {source!r}, but no row is of it{suggest(source, known)}"
        for setting, by_source in named.items()
        for source in by_source
        if source not in known and (setting, source) != ("holdout", "default")
    ]
    if faults:
        raise ConfigError(
            f"{'; '.join(faults)}. A row's source is its column 'source', or else the name of its public format or its "
            "file"
        )


def group_by_prompt(data: Labelled, settings: Dealing, similar_prompts: float | None) -> Labelled:
    """Return the same rows, those in one group whose prompts are equal or so similar, or that were in one group."""
    grouping = _ONLY_GROUPS.model_copy(update={"similar_prompts": similar_prompts})
    return replace(data, groups=clean_labelled(data, grouping, None, settings.task)[0].groups)


def _cap(data: Labelled, settings: Dealing) -> Labelled:
    return split(data, settings.data.model_copy(update={"holdout": {}}), settings.seed)[0]
