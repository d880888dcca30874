"""The ensemble: several scorers and a blender, composed."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self, Unpack, get_args

import numpy as np
import pandas as pd

from lmsys_ensemble.blending.blender import Blender
from lmsys_ensemble.config import bundled_config, check_parts, read_config, write_config
from lmsys_ensemble.data.battles import Battles, parse_battles, parse_labels
from lmsys_ensemble.data.frames import TableLike, as_frame
from lmsys_ensemble.errors import ConfigError, InputError
from lmsys_ensemble.evaluation.evaluate import evaluate_models
from lmsys_ensemble.evaluation.metrics import class_prior
from lmsys_ensemble.files import suggest
from lmsys_ensemble.flags import spell
from lmsys_ensemble.probabilities import Probabilities
from lmsys_ensemble.runtime.bars import Display
from lmsys_ensemble.runtime.budget import seconds_left
from lmsys_ensemble.runtime.keeper import Keeper
from lmsys_ensemble.runtime.members import blender_if_known, blender_of, check_membership, fingerprints_of
from lmsys_ensemble.runtime.options import RunKeywords, RunOptions
from lmsys_ensemble.runtime.outcome import Outcome
from lmsys_ensemble.runtime.readiness import check_ensemble, check_swappable
from lmsys_ensemble.runtime.run import Run
from lmsys_ensemble.runtime.summary import RunSummary
from lmsys_ensemble.schema import ID_COLUMN, THREE_WAY, Task
from lmsys_ensemble.scorers.base import Scorer

BLEND, PRIOR = "blend", "class prior"
"""What `Ensemble.evaluate` calls the models beside the scorers."""

FALLBACK_COLUMN = "fallback"
"""Column of a prediction that names what a row lacks; there only where one lacks something."""


class Ensemble(Keeper):
    """Several scorers whose probabilities a blender combines.

    Parameters
    ----------
    scorers : sequence of Scorer, optional
        Loaded, run and freed by every prediction, each device in a thread of its own; `load`, or a ``with``
        statement, keeps them loaded. Without any, the bundled default: two small pretrained models that run on a CPU.
    blender : Blender, optional
        Combines the probabilities; by default their average.
    task : Task
        Classes and their order; all scorers must share it.
    progress : {"auto", "bars", "lines", "off"}
        ``auto`` shows a bar a scorer on a terminal and is silent elsewhere.
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
        if progress not in get_args(Display):
            known = get_args(Display)
            raise ConfigError(
                f"progress must be one of {', '.join(known)}, got {progress!r}{suggest(str(progress), known)}"
            )
        self.scorers = checked
        self.blender = blender or Blender()
        self.task = task
        self.progress: Display = progress
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

    @property
    def classes_(self) -> tuple[str, ...]:
        """Classes in the order of the columns of `predict_proba`."""
        return self.task.classes

    def check(self, battles: Battles | None = None, *, blend: bool = True, here: bool = True) -> None:
        """Find all that is wrong with scorers, models, adapters and blender and can be told without loading weights.

        `predict`, `fit` and `evaluate` do it before anything is loaded. Nothing is fetched from a network.

        Parameters
        ----------
        battles : Battles, optional
            What is to be scored, where that is known already.
        blend : bool
            Whether the blender is to predict; one that is yet to be fitted cannot.
        here : bool
            Whether it is to run on this machine, which must then have the devices.

        Raises
        ------
        ConfigError
            Lists all that is wrong.
        """
        blender = self.blender if blend else None
        check_ensemble(self.scorers, self.task, blender, battles, devices=self.devices, here=here)

    def predict(self, table: TableLike, **options: Unpack[RunKeywords]) -> pd.DataFrame:
        """Predict who wins.

        Parameters
        ----------
        table : DataFrame, Battles, path or table of another library
            Battles; see `lmsys_ensemble.parse_battles` for what a table may hold.
        run_dir : str or Path, optional
            Folder of the journal: finished chunks are kept there, and a rerun computes only what is missing.
        rescore : bool
            Score anew what another configuration of a scorer has scored in `run_dir`, instead of refusing.
        retry_failed : bool
            Score all rows again that failed in an earlier run in `run_dir`. Without it only those are that had run out
            of memory; what gave NaN would do so again.
        time_budget_s : float, optional
            Seconds from the call until the result must be there. What is optional is dropped in this order: passes
            with swapped responses, least close rows first; then rows of the scorers with the lower weights, rows on
            which the others are surest first. Scorers stop between batches; a call that has not returned a tenth of
            the budget later (half a second at least, five at most) is left behind, and its scorer and GPU are lost
            until it returns.
        on_failure : {"stop", "reweight"}
            Whether a failing scorer ends the run (default), or the others finish without it.
        max_failed_rows : float
            Largest share of a scorer's rows that may fail (no logits, NaN, infinite) before the scorer counts as
            failed; 0.01 by default.
        swap : {"off", "all", "adaptive"}
            Whether rows are scored a second time with their responses swapped: none (default), all, or those closest
            to call.
        swap_share : float
            Share of the rows that ``adaptive`` takes; 0.5 by default.
        swap_space : {"log", "probability"}
            Where the two passes are averaged; logarithms (a geometric mean, the default) had the lower log loss in
            ``benchmarks/swap.py``.

        Returns
        -------
        DataFrame
            ``id`` and a column per class (``winner_model_a``, ``winner_model_b``, ``winner_tie``), in the order of the
            rows of `table`, with its index where it is a DataFrame; every row sums to 1. Where rows lack something (a
            scorer that failed, time that was up), a column ``fallback`` names it, empty for the other rows, and
            `MissingMemberWarning` is warned.

        Raises
        ------
        InputError
            If cells cannot be used; names rows and columns, before anything is loaded.
        ScoringError
            If a scorer fails; names it and its device.
        JournalError
            If `run_dir` cannot be used, or holds results of other settings.
        DeviceError
            If a device is missing or still taken, or a call in another thread takes until the time budget is over.
        """
        started, checked = time.monotonic(), RunOptions.of(**options)
        battles, index = _battles(table)
        outcome = self._run(battles, checked, started)
        frame = self._frame(battles, np.empty((0, self.task.n_classes)) if outcome is None else outcome.blended)
        if outcome is not None and outcome.summary.fallback_rows:
            frame[FALLBACK_COLUMN] = outcome.lacking
        return frame if index is None else frame.set_axis(index)

    def predict_proba(self, table: TableLike, **options: Unpack[RunKeywords]) -> Probabilities:
        """Return what `predict` does as an array of shape (n_rows, n_classes), columns in the order of `classes_`."""
        started, checked = time.monotonic(), RunOptions.of(**options)
        outcome = self._run(_battles(table)[0], checked, started)
        return np.empty((0, self.task.n_classes)) if outcome is None else outcome.blended

    def member_probabilities(self, table: TableLike, **options: Unpack[RunKeywords]) -> dict[str, Probabilities]:
        """Return every scorer's own probabilities by its name, each of shape (n_rows, n_classes).

        Options are those of `predict`. A row that a scorer has not scored is NaN there.
        """
        started, checked = time.monotonic(), RunOptions.of(**options)
        outcome = self._run(_battles(table)[0], checked, started, blend=False)
        if outcome is None:
            return {scorer.name: np.empty((0, self.task.n_classes)) for scorer in self.scorers}
        return dict(zip([scorer.name for scorer in self.scorers], outcome.members, strict=True))

    def _run(self, battles: Battles, options: RunOptions, started: float, *, blend: bool = True) -> Outcome | None:
        with self._turn(seconds_left(options.time_budget_s, started)):
            self.check(battles, blend=blend)
            if not len(battles):
                return None
            blender = (blender_of if blend else blender_if_known)(self.blender, self.scorers)
            run = Run(
                self.scorers, battles, options, task=self.task, blender=blender, display=self.progress,
                devices=self.devices, started=started,
            )  # fmt: skip
            outcome = run.execute(blend=blend)
            self.summary_: RunSummary = outcome.summary
        return outcome

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
        table = _labelled(table)
        battles, labels = parse_battles(table), parse_labels(table, self.task)
        if not self.blender.needs_fit:
            raise ConfigError(
                f"there is nothing to fit: {self.blender} learns nothing from labels. Pass a blender that does, "
                "Ensemble(..., blender=Blender('auto')), or predict without fit"
            )
        with self._calls:
            members = self.member_probabilities(battles, max_failed_rows=0, run_dir=run_dir)
            self.blender.fit(members, labels, groups=_groups(table))
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
            Column whose values are measured apart, beside all rows together.
        swap : bool
            Whether to score every battle a second time with its responses exchanged, and measure how consistent the
            verdicts are.
        run_dir : str or Path, optional
            Folder of the journal, as in `predict`.

        Returns
        -------
        DataFrame
            One row a model, slice and measure, with the columns ``model``, ``by``, ``slice``, ``metric``, ``value``,
            ``low`` and ``high`` (95 % bootstrap interval), ``n_rows`` and ``n_groups``; see
            `lmsys_ensemble.evaluation.evaluate.evaluate`. The model ``class prior`` predicts the mean label of all
            rows.

        Raises
        ------
        InputError
            If battles, labels or the column `by` cannot be used; before anything is loaded.
        ConfigError
            If `swap` is asked of scorers that look probabilities up by id; if a scorer is called like one of the models
            beside the scorers; if the blender has to be fitted first, or was fitted on scorers of other names.
        """
        table = _labelled(table)
        battles, labels = parse_battles(table), parse_labels(table, self.task)
        if by is not None and by not in table:
            raise InputError(f"there is no column {by!r} to evaluate by; the table has {', '.join(map(str, table))}")
        if not len(battles):
            raise InputError("there are no rows to evaluate")
        taken = sorted({scorer.name for scorer in self.scorers} & {BLEND, PRIOR})
        if taken:
            raise ConfigError(f"no scorer may be called {', '.join(map(repr, taken))} in an evaluation. Pass name=")
        if swap:
            check_swappable(self.scorers, spell("swap=True"))
        exchanged: dict[str, Probabilities] = {}
        with self._calls:
            self.check(battles)  # with the blender, which the passes themselves do not need
            blender = blender_of(self.blender, self.scorers)
            models = _with_blend(self.member_probabilities(battles, max_failed_rows=0, run_dir=run_dir), blender)
            if swap:
                members = self.member_probabilities(battles.swapped(), max_failed_rows=0, run_dir=run_dir)
                exchanged = _with_blend(members, blender)
        models[PRIOR] = class_prior(labels, len(labels))
        return evaluate_models(labels, models, _groups(table), exchanged, None if by is None else table[[by]])

    def _frame(self, battles: Battles, probabilities: Probabilities) -> pd.DataFrame:
        table = pd.DataFrame(probabilities, columns=list(self.task.columns))
        table.insert(0, ID_COLUMN, battles.ids)
        return table


def _with_blend(members: dict[str, Probabilities], blender: Blender) -> dict[str, Probabilities]:
    return {**members, BLEND: blender.predict_proba(list(members.values()))}


def _groups(table: pd.DataFrame) -> "pd.Series[Any] | None":
    return table.get("group")


def _battles(table: TableLike) -> "tuple[Battles, pd.Index[Any] | None]":
    """Return battles, and the index of the table that they came in, where that is a DataFrame."""
    if isinstance(table, Battles):
        return table, None
    return parse_battles(table), table.index if isinstance(table, pd.DataFrame) else None


def _labelled(table: TableLike) -> pd.DataFrame:
    if isinstance(table, Battles):
        raise InputError("Battles hold no labels; pass the table that they were made of")
    return as_frame(table)
