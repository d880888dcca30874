"""The ensemble: several scorers and a blender, composed."""

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd

from lmsys_ensemble.battles import Battles, parse_battles, parse_labels
from lmsys_ensemble.blending.blender import Blender
from lmsys_ensemble.config import DEFAULT_CONFIG, read_config, write_config
from lmsys_ensemble.errors import ConfigError
from lmsys_ensemble.metrics import accuracy, log_loss, log_loss_interval
from lmsys_ensemble.probabilities import Probabilities, softmax
from lmsys_ensemble.runtime.progress import Display
from lmsys_ensemble.runtime.workers import score_all
from lmsys_ensemble.schema import ID_COLUMN, THREE_WAY, Task
from lmsys_ensemble.scorers.base import Scorer


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

    def evaluate(self, table: pd.DataFrame, by: str | None = None) -> pd.DataFrame:
        """Score labelled battles and measure every scorer and the blend.

        Parameters
        ----------
        table : DataFrame
            Battles with labels (see `lmsys_ensemble.parse_labels`). A column ``group``, where there is one, says
            which rows belong together in the bootstrap.
        by : str, optional
            Column whose values are measured apart, beside all rows together.

        Returns
        -------
        DataFrame
            One row a part and model: ``part``, ``model``, ``rows``, ``log_loss``, ``low``, ``high`` (95 % bootstrap
            interval of the log loss) and ``accuracy``. The model ``class prior`` predicts the part's own mean label.
        """
        battles = parse_battles(table)
        labels = parse_labels(table, self.task)
        if by is not None and by not in table:
            raise ConfigError(f"there is no column {by!r} to evaluate by; the table has {', '.join(map(str, table))}")
        members = self.member_probabilities(battles)
        models = {**members, "blend": self._blend(members, len(battles))}
        groups = table["group"].to_numpy(dtype=object) if "group" in table else None
        parts = {"all": np.ones(len(table), dtype=bool)}
        if by is not None:
            values = table[by].astype(str).to_numpy()
            parts |= {value: values == value for value in sorted(set(values))}
        rows = []
        for part, chosen in parts.items():
            truth = labels[chosen]
            prior = np.tile(truth.mean(axis=0), (len(truth), 1))
            for model, predicted in {
                **{name: p[chosen] for name, p in models.items()},
                "class prior": prior,
            }.items():
                low, high = log_loss_interval(truth, predicted, None if groups is None else groups[chosen])
                measured = log_loss(truth, predicted), low, high, accuracy(truth, predicted)
                rows.append((part, model, len(truth), *measured))
        return pd.DataFrame(rows, columns=["part", "model", "rows", "log_loss", "low", "high", "accuracy"])

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


def _battles(table: pd.DataFrame | Battles) -> Battles:
    return table if isinstance(table, Battles) else parse_battles(table)
