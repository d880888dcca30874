"""Predictions of an ensemble: every call checks, runs all scorers, and returns a table or arrays."""

import time
from typing import Any, Unpack

import numpy as np
import pandas as pd

from lmsys_ensemble.blending.blender import Blender
from lmsys_ensemble.data.battles import Battles, parse_battles
from lmsys_ensemble.data.frames import TableLike
from lmsys_ensemble.hosting.budget import seconds_left
from lmsys_ensemble.hosting.keeper import Keeper
from lmsys_ensemble.probabilities import Probabilities
from lmsys_ensemble.runtime.combining import blender_if_known, blender_of
from lmsys_ensemble.runtime.options import RunKeywords, RunOptions
from lmsys_ensemble.runtime.outcome import Outcome
from lmsys_ensemble.runtime.readiness import check_ensemble
from lmsys_ensemble.runtime.run import Run
from lmsys_ensemble.runtime.summary import RunSummary
from lmsys_ensemble.schema import ID_COLUMN, Task

FALLBACK_COLUMN = "fallback"
"""Column that names what each row misses; it is there only if some row misses something."""


class Predictor(Keeper):
    """Base of `lmsys_ensemble.Ensemble`: predictions, which need no labels.

    Attributes
    ----------
    scorers : list of Scorer
        What predicts.
    blender : Blender
        Combines the scorers' probabilities.
    task : Task
        Classes and their order.
    summary_ : RunSummary
        What the last prediction did.
    """

    blender: Blender
    task: Task
    summary_: RunSummary

    @property
    def classes_(self) -> tuple[str, ...]:
        """Classes in the order of the columns of `predict_proba`."""
        return self.task.classes

    def check(self, battles: Battles | None = None, *, blend: bool = True, here: bool = True) -> None:
        """Find what is wrong with scorers, models, adapters and blender, as far as can be told without weights.

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
            Score all rows again that failed in an earlier run in `run_dir`. By default only rows that ran out of memory
            are tried again; rows that gave NaN would do so again.
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
            `MissingMemberWarning` is emitted.

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
            frame[FALLBACK_COLUMN] = outcome.missing
        return frame if index is None else frame.set_axis(index)

    def predict_proba(self, table: TableLike, **options: Unpack[RunKeywords]) -> Probabilities:
        """Return what `predict` does as an array of shape (n_rows, n_classes), columns in the order of `classes_`."""
        started, checked = time.monotonic(), RunOptions.of(**options)
        outcome = self._run(_battles(table)[0], checked, started)
        return np.empty((0, self.task.n_classes)) if outcome is None else outcome.blended

    def member_probabilities(self, table: TableLike, **options: Unpack[RunKeywords]) -> dict[str, Probabilities]:
        """Return each scorer's own probabilities by its name, of shape (n_rows, n_classes).

        Options are those of `predict`. A row that a scorer has not scored is NaN.
        """
        started, checked = time.monotonic(), RunOptions.of(**options)
        outcome = self._run(_battles(table)[0], checked, started, blend=False)
        if outcome is None:
            return {scorer.name: np.empty((0, self.task.n_classes)) for scorer in self.scorers}
        return dict(zip([scorer.name for scorer in self.scorers], outcome.members, strict=True))

    def _run(self, battles: Battles, options: RunOptions, started: float, *, blend: bool = True) -> Outcome | None:
        with self._turn(seconds_left(options.time_budget_s, started)):
            self.check(battles, blend=blend)
            return self._execute(battles, options, started, blend=blend) if len(battles) else None

    def _execute(self, battles: Battles, options: RunOptions, started: float, *, blend: bool) -> Outcome:
        """Run all scorers, once it is this call's turn and all has been checked."""
        blender = (blender_of if blend else blender_if_known)(self.blender, self.scorers)
        run = Run(
            self.scorers, battles, options, task=self.task, blender=blender, display=self.progress,
            devices=self.devices, started=started,
        )  # fmt: skip
        outcome = run.execute(blend=blend)
        self.summary_ = outcome.summary
        return outcome

    def _frame(self, battles: Battles, probabilities: Probabilities) -> pd.DataFrame:
        table = pd.DataFrame(probabilities, columns=list(self.task.columns))
        table.insert(0, ID_COLUMN, battles.ids)
        return table


def _battles(table: TableLike) -> "tuple[Battles, pd.Index[Any] | None]":
    """Return battles, and the index of the table that they came in, where that is a DataFrame."""
    if isinstance(table, Battles):
        return table, None
    return parse_battles(table), table.index if isinstance(table, pd.DataFrame) else None
