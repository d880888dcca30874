"""The ensemble: several scorers and a blender, composed, fitted and measured."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import pandas as pd

from lmsys_ensemble.blending.blender import Blender
from lmsys_ensemble.config import bundled_config, check_parts, read_config, write_config
from lmsys_ensemble.data.frames import TableLike
from lmsys_ensemble.data.labelled import parse_labelled
from lmsys_ensemble.errors import ConfigError, InputError
from lmsys_ensemble.evaluation.evaluate import BLEND, CLASS_PRIOR, check_model_names, evaluate_models
from lmsys_ensemble.evaluation.metrics import class_prior
from lmsys_ensemble.hosting.display import Display, check_display
from lmsys_ensemble.probabilities import Logits, Probabilities, softmax
from lmsys_ensemble.runtime.combining import blender_of, check_membership, fingerprints_of
from lmsys_ensemble.runtime.options import RunOptions
from lmsys_ensemble.runtime.predictor import Predictor
from lmsys_ensemble.schema import THREE_WAY, Task
from lmsys_ensemble.scorers.base import Scorer


class Ensemble(Predictor):
    """Several scorers whose probabilities a blender combines.

    Parameters
    ----------
    scorers : sequence of Scorer, optional
        Loaded, run and freed by every prediction, each device in its own thread; `load`, or a ``with``
        statement, keeps them loaded. Without any, the bundled default: two small pretrained models that run on a CPU.
    blender : Blender, optional
        Combines the probabilities; by default their average.
    task : Task
        Classes and their order; all scorers must share it.
    progress : {"auto", "bars", "lines", "off"}
        ``auto`` shows a bar per scorer on a terminal and is silent elsewhere.
    devices : sequence of str, optional
        Devices that may be used, by default all; one that is named several times runs that many workers.

    Attributes
    ----------
    classes_ : tuple of str
        Classes in the order of the columns of `predict_proba`.
    summary_ : RunSummary
        What the last prediction did: versions, devices, rows, tokens, seconds by phase, failed rows and more.

    Notes
    -----
    Calls from several threads are safe and run one after the other, also where two ensembles have a scorer in common.
    A copy (pickle, deepcopy) has the same settings and the same fitted blender, and nothing loaded.

    Examples
    --------
    >>> import pandas as pd
    >>> from lmsys_ensemble import Ensemble, FakeScorer
    >>> battles = pd.DataFrame({"id": [7], "prompt": ["2 + 2?"], "response_a": ["4"], "response_b": ["5"]})
    >>> ensemble = Ensemble([FakeScorer(0, name="one"), FakeScorer(1, name="two")])
    >>> ensemble.predict(battles).columns.tolist()
    ['id', 'winner_model_a', 'winner_model_b', 'winner_tie']
    >>> with ensemble:  # several predictions, models loaded once
    ...     tables = [ensemble.predict(battles) for _ in range(3)]
    """

    def __init__(
        self,
        scorers: Sequence[Scorer] | None = None,
        blender: Blender | None = None,
        *,
        task: Task = THREE_WAY,
        progress: Display = "auto",
        devices: Sequence[str] | None = None,
    ):
        if scorers is None:
            scorers, bundled_blender, task = read_config(bundled_config())
            blender = blender or bundled_blender
        checked = check_parts(scorers, blender, task, devices)
        self.scorers = checked
        self.blender = blender or Blender()
        self.task = task
        self.progress = check_display(progress)
        self.devices = devices
        super().__init__()

    @classmethod
    def from_config(cls, path: str | Path, *, progress: Display = "auto", devices: Sequence[str] | None = None) -> Self:
        """Make an ensemble from a YAML file, or from the name of one that comes with the library.

        Raises
        ------
        ConfigError
            If the file is not there, a setting is wrong, or the blender was fitted on scorers of other names.
        """
        scorers, blender, task = read_config(path)
        check_membership(blender, scorers)
        return cls(scorers, blender, task=task, progress=progress, devices=devices)

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

    def fit(self, table: TableLike, *, run_dir: str | Path | None = None) -> Self:
        """Fit the blender on labelled battles that no scorer was trained on.

        Every scorer scores the rows once.

        Parameters
        ----------
        table : DataFrame
            Battles with labels (see `lmsys_ensemble.parse_labels`). A column ``group``, where there is one, says
            which rows share a prompt and stay together in cross-fitting.
        run_dir : str or Path, optional
            Folder of the journal, as in `predict`.

        Returns
        -------
        Ensemble
            Itself; what was fitted is in ``blender``, with the scorers' names.

        Raises
        ------
        ConfigError
            If the blender's settings leave nothing to learn; before anything is scored.
        """
        data = parse_labelled(table, self.task)
        if not self.blender.needs_fit:
            raise ConfigError(
                f"there is nothing to fit: {self.blender} learns nothing from labels. Pass a blender that does, "
                "Ensemble(..., blender=Blender('auto')), or predict without fit"
            )
        with self._calls:
            members = self.member_probabilities(data.battles, max_failed_rows=0, run_dir=run_dir)
            self.blender.fit(members, data.labels, groups=data.groups)
            self.blender.fingerprints_ = fingerprints_of(self.scorers)
        return self

    def evaluate(
        self, table: TableLike, by: str | None = None, *, swap: bool = False, run_dir: str | Path | None = None
    ) -> pd.DataFrame:
        """Score labelled battles and measure every scorer and the blend.

        Parameters
        ----------
        table : DataFrame
            Battles with labels (see `lmsys_ensemble.parse_labels`). A column ``group``, where there is one, says
            which rows belong together in the bootstrap.
        by : str, optional
            Column whose values are measured apart, beside all rows together. ``script`` and ``language`` are told from
            the texts where the table has no such column (the latter with the optional package py3langid).
        swap : bool
            Whether to score every battle a second time with its responses swapped, and measure how consistent the
            verdicts are. Every model is loaded once.
        run_dir : str or Path, optional
            Folder of the journal, as in `predict`.

        Returns
        -------
        DataFrame
            One row per model, slice and measure, with the columns ``model``, ``by``, ``slice``, ``metric``, ``value``,
            ``low`` and ``high`` (95 % bootstrap interval), ``n_rows`` and ``n_groups``.
            The model ``class prior`` predicts the mean label of all rows.

        Raises
        ------
        InputError
            If battles, labels or the column `by` cannot be used; before anything is loaded.
        MissingDependencyError
            If languages are to be told and the package for it is not installed.
        ConfigError
            If `swap` is asked of scorers that look probabilities up by id; if a scorer is called ``blend`` or
            ``class prior``; if the blender has to be fitted first, or was fitted on scorers of other names.
        """
        data = parse_labelled(table, self.task)
        slices, names = data.slices(by), [scorer.name for scorer in self.scorers]
        check_model_names(names)
        if not len(data.battles):
            raise InputError("there are no rows to evaluate")
        started, options = (
            time.monotonic(),
            RunOptions(run_dir=run_dir, max_failed_rows=0, swap="all" if swap else "off"),
        )
        with self._calls:
            self.check(data.battles)  # with the blender, which the run itself does not need
            blender = blender_of(self.blender, self.scorers)
            passes = self._execute(data.battles, options, started, blend=False).passes
        models = _with_blend(names, [each.original for each in passes], blender)
        swapped = _with_blend(names, [each.swapped for each in passes], blender) if swap else None
        models[CLASS_PRIOR] = class_prior(data.labels, len(data.labels))
        return evaluate_models(data.labels, models, data.groups, swapped, slices)


def _with_blend(names: Sequence[str], logits: Sequence[Logits], blender: Blender) -> dict[str, Probabilities]:
    members = [softmax(values) for values in logits]
    return {**dict(zip(names, members, strict=True)), BLEND: blender.predict_proba(members)}
