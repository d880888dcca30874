"""The ensemble: several scorers and a blender, composed."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from lmsys_ensemble.battles import Battles, parse_battles, parse_labels
from lmsys_ensemble.blending.blender import Blender
from lmsys_ensemble.config import DEFAULT_CONFIG, read_config, write_config
from lmsys_ensemble.errors import ConfigError, InputError
from lmsys_ensemble.evaluation import evaluate
from lmsys_ensemble.metrics import class_prior
from lmsys_ensemble.probabilities import Probabilities, softmax
from lmsys_ensemble.runtime.progress import Display
from lmsys_ensemble.runtime.workers import score_all
from lmsys_ensemble.schema import ID_COLUMN, THREE_WAY, Task
from lmsys_ensemble.scorers.base import Scorer

BLEND, PRIOR = "blend", "class prior"
"""What `Ensemble.evaluate` calls the models beside the scorers."""


class Ensemble:
    """Several scorers whose probabilities a blender combines.

    Parameters
    ----------
    scorers : sequence of Scorer, optional
        Loaded, run and freed by every prediction, each device in a thread of its own. Without any, the bundled
        default: two small pretrained models that run on a CPU.
    blender : Blender, optional
        Combines the probabilities; by default their average.
    task : Task
        Classes and their order; all scorers must share it.
    progress : {"auto", "bars", "lines", "off"}
        ``auto`` shows a bar a scorer on a terminal and is silent elsewhere.

    Attributes
    ----------
    classes_ : tuple of str
        Classes in the order of the columns of `predict_proba`.

    Examples
    --------
    >>> import pandas as pd
    >>> from lmsys_ensemble import Ensemble, FakeScorer
    >>> battles = pd.DataFrame({"id": [7], "prompt": ["2 + 2?"], "response_a": ["4"], "response_b": ["5"]})
    >>> ensemble = Ensemble([FakeScorer(0, name="one"), FakeScorer(1, name="two")])
    >>> ensemble.predict(battles).columns.tolist()
    ['id', 'winner_model_a', 'winner_model_b', 'winner_tie']
    """

    def __init__(
        self,
        scorers: Sequence[Scorer] | None = None,
        blender: Blender | None = None,
        *,
        task: Task = THREE_WAY,
        progress: Display = "auto",
    ):
        if scorers is None:
            scorers, bundled_blender, task = read_config(DEFAULT_CONFIG)
            blender = blender or bundled_blender
        self.scorers = list(scorers)
        self.blender = blender or Blender()
        self.task = task
        self.progress: Display = progress

    @classmethod
    def from_config(cls, path: str | Path, *, progress: Display = "auto") -> Self:
        """Make an ensemble from a YAML file, or from the name of one that comes with the library.

        Raises
        ------
        ConfigError
            If the file is not there, or a setting is wrong.
        """
        scorers, blender, task = read_config(path)
        return cls(scorers, blender, task=task, progress=progress)

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Make an ensemble from a folder that `save` wrote."""
        return cls.from_config(folder)

    def save(self, folder: str | Path) -> None:
        """Write configuration and blender to a folder; models stay where they are.

        Raises
        ------
        RegistryError
            If a scorer's class is not registered under a name.
        """
        write_config(Path(folder), self.scorers, self.blender, self.task)

    def __repr__(self) -> str:
        return f"Ensemble({', '.join(scorer.name for scorer in self.scorers)}; {self.blender})"

    @property
    def classes_(self) -> tuple[str, ...]:
        """Classes in the order of the columns of `predict_proba`."""
        return self.task.classes

    def predict(self, table: pd.DataFrame | Battles) -> pd.DataFrame:
        """Predict who wins.

        Parameters
        ----------
        table : DataFrame or Battles
            Battles; see `lmsys_ensemble.parse_battles` for what a table may hold.

        Returns
        -------
        DataFrame
            ``id`` and a column a class (``winner_model_a``, ``winner_model_b``, ``winner_tie``), in the order of the
            rows of `table`; every row sums to 1.

        Raises
        ------
        InputError
            If cells cannot be used; names rows and columns, before anything is loaded.
        ScoringError
            If a scorer fails; names it and its device.
        """
        battles = _battles(table)
        return self._frame(battles, self.predict_proba(battles))

    def predict_proba(self, table: pd.DataFrame | Battles) -> Probabilities:
        """Return what `predict` does as an array of shape (n_rows, n_classes), columns in the order of `classes_`."""
        battles = _battles(table)
        return self._blend(self.member_probabilities(battles), len(battles))

    def member_probabilities(self, table: pd.DataFrame | Battles) -> dict[str, Probabilities]:
        """Return every scorer's own probabilities by its name, each of shape (n_rows, n_classes)."""
        battles = _battles(table)
        self._check_scorers()
        if not len(battles):
            return {scorer.name: np.empty((0, self.task.n_classes)) for scorer in self.scorers}
        logits = score_all(self.scorers, battles, self.progress)
        return {scorer.name: softmax(values) for scorer, values in zip(self.scorers, logits, strict=True)}

    def fit(self, table: pd.DataFrame) -> Self:
        """Fit the blender on labelled battles that no scorer was trained on.

        Every scorer scores the rows once.

        Parameters
        ----------
        table : DataFrame
            Battles with labels (see `lmsys_ensemble.parse_labels`). A column ``group``, where there is one, says
            which rows share a prompt and stay together in cross-fitting.

        Returns
        -------
        Ensemble
            Itself; what was fitted is in ``blender``.
        """
        battles, labels = parse_battles(table), parse_labels(table, self.task)
        members = self.member_probabilities(battles)
        self.blender.fit(list(members.values()), labels, groups=_groups(table))
        return self

    def evaluate(self, table: pd.DataFrame, by: str | None = None, *, swap: bool = False) -> pd.DataFrame:
        """Score labelled battles and measure every scorer and the blend.

        Parameters
        ----------
        table : DataFrame
            Battles with labels (see `lmsys_ensemble.parse_labels`). A column ``group``, where there is one, says
            which rows belong together in the bootstrap.
        by : str, optional
            Column whose values are measured apart, beside all rows together.
        swap : bool
            Whether to score every battle a second time with its responses exchanged, and measure how consistent the
            verdicts are.

        Returns
        -------
        DataFrame
            One row a model, slice and measure, with the columns ``model``, ``by``, ``slice``, ``metric``, ``value``,
            ``low`` and ``high`` (95 % bootstrap interval), ``n_rows`` and ``n_groups``; see
            `lmsys_ensemble.evaluation.evaluate`. The model ``class prior`` predicts the mean label of all rows.

        Raises
        ------
        InputError
            If battles, labels or the column `by` cannot be used; before anything is loaded.
        ConfigError
            If `swap` is asked of scorers that look probabilities up by id.
        ConfigError
            If a scorer is called like one of the models beside the scorers.
        """
        battles, labels = parse_battles(table), parse_labels(table, self.task)
        if by is not None and by not in table:
            raise InputError(f"there is no column {by!r} to evaluate by; the table has {', '.join(map(str, table))}")
        if not len(battles):
            raise InputError("there are no rows to evaluate")
        taken = sorted({scorer.name for scorer in self.scorers} & {BLEND, PRIOR})
        if taken:
            raise ConfigError(f"no scorer may be called {', '.join(map(repr, taken))} in an evaluation. Pass name=")
        blind = [scorer.name for scorer in self.scorers if not scorer.reads_texts]
        if swap and blind:
            raise ConfigError(
                f"swap=True needs scorers that read the texts; {', '.join(blind)} would give the same probabilities "
                "for exchanged responses"
            )
        models = self._with_blend(self.member_probabilities(battles))
        exchanged = self._with_blend(self.member_probabilities(battles.swapped())) if swap else {}
        models[PRIOR] = class_prior(labels, len(labels))
        slices = None if by is None else table[[by]]
        tables = []
        for name, predicted in models.items():
            figures = evaluate(labels, predicted, _groups(table), exchanged.get(name), slices)
            figures.insert(0, "model", name)
            tables.append(figures)
        return pd.concat(tables, ignore_index=True)

    def _with_blend(self, members: dict[str, Probabilities]) -> dict[str, Probabilities]:
        return {**members, BLEND: self.blender.predict_proba(list(members.values()))}

    def _blend(self, members: dict[str, Probabilities], n_rows: int) -> Probabilities:
        if not n_rows:
            return np.empty((0, self.task.n_classes))
        return self.blender.predict_proba(list(members.values()))

    def _frame(self, battles: Battles, probabilities: Probabilities) -> pd.DataFrame:
        table = pd.DataFrame(probabilities, columns=list(self.task.columns))
        table.insert(0, ID_COLUMN, battles.ids)
        return table

    def _check_scorers(self) -> None:
        names = [scorer.name for scorer in self.scorers]
        if not names:
            raise ConfigError("an ensemble needs at least one scorer")
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ConfigError(f"scorers need different names; {', '.join(twice)} occurs more than once. Pass name=")
        for scorer in self.scorers:
            if scorer.task != self.task:
                raise ConfigError(
                    f"scorer {scorer.name!r} predicts {list(scorer.task.classes)}, the ensemble "
                    f"{list(self.task.classes)}"
                )


def _groups(table: pd.DataFrame) -> "pd.Series[Any] | None":
    return table.get("group")


def _battles(table: pd.DataFrame | Battles) -> Battles:
    return table if isinstance(table, Battles) else parse_battles(table)
