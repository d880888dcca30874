"""What is seen of a run while it lasts: a bar, a log, and a table of its curves."""

import csv
import io
import logging
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm
from transformers import EarlyStoppingCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations import TensorBoardCallback

from lmsys_ensemble.files import write_atomically

logger = logging.getLogger(__name__)

CURVES_FILE = "curves.csv"
EVENTS = "tensorboard"
"""Folder of TensorBoard's event files, beside the adapter."""
COLUMNS = ("step", "epoch", "loss", "held_log_loss", "held_accuracy", "learning_rate", "gradient_norm")
_NAMES = {
    "eval_log_loss": "held_log_loss",
    "eval_accuracy": "held_accuracy",
    "grad_norm": "gradient_norm",
}


class Watcher(TrainerCallback):  # type: ignore[misc]
    """Shows one bar on a terminal (step, loss, log loss on the rows held out, time left), and writes the curves.

    Parameters
    ----------
    curves : Path, optional
        File of the curves.
    """

    def __init__(self, curves: Path | None):
        self._curves = curves
        self._bar: tqdm[Any] | None = None
        self._shown: dict[str, str] = {}

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Open the bar."""
        if state.is_world_process_zero:
            self._bar = tqdm(
                total=state.max_steps, initial=state.global_step, desc="training", unit="step", disable=None
            )

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Move the bar on."""
        if self._bar is not None:
            self._bar.update(state.global_step - self._bar.n)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, float] | None = None,
        **_: Any,
    ) -> None:
        """Show losses, and write the curves so far."""
        if not state.is_world_process_zero or logs is None:
            return
        for name, shown in (("loss", "loss"), ("eval_log_loss", "held out")):
            if name in logs:
                self._shown[shown] = f"{logs[name]:.4f}"
        if self._bar is not None:
            self._bar.set_postfix(self._shown, refresh=False)
        if "eval_log_loss" in logs:
            logger.info(
                "step %d of %d: log loss %.4f on the rows held out", state.global_step, state.max_steps,
                logs["eval_log_loss"],
            )  # fmt: skip
        if self._curves is not None and "train_loss" not in logs:
            write_atomically(self._curves, as_csv(curve(state.log_history)))

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.close()


def curve(history: Iterable[Mapping[str, Any]]) -> list[dict[str, float]]:
    """Return the Trainer's history as one row per step, in the order of `COLUMNS`."""
    rows: dict[int, dict[str, float]] = {}
    for entry in history:
        row = rows.setdefault(int(entry["step"]), {"step": int(entry["step"])})
        for name, value in entry.items():
            if (column := _NAMES.get(name, name)) in COLUMNS and isinstance(value, int | float):
                row[column] = value
    measured = [row for row in rows.values() if not {"loss", "held_log_loss"}.isdisjoint(row)]
    return [{name: row[name] for name in COLUMNS if name in row} for row in measured]


def as_csv(rows: Iterable[Mapping[str, float]]) -> str:
    """Return curves as CSV; what was not measured at a step is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        writer.writerow([_shown(row.get(name)) for name in COLUMNS])
    return text.getvalue()


def _shown(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else f"{value:.6g}"


class EventWriter(TensorBoardCallback):  # type: ignore[misc]
    """Writes the curves as TensorBoard's event files.

    transformers' own callback writes into the folder of checkpoints, which is removed at the end, and adds all
    arguments, which hold paths of this machine.

    Parameters
    ----------
    folder : Path
        Where the files go. After an interruption there is one more, in which the steps gone over again are valid.
    """

    def __init__(self, folder: Path):
        super().__init__()
        self.logging_dir = str(folder)

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Open a file."""
        if state.is_world_process_zero:
            again = state.global_step + 1 if state.global_step else None
            self.tb_writer = self._SummaryWriter(log_dir=self.logging_dir, purge_step=again)


class Rhythm(TrainerCallback):  # type: ignore[misc]
    """Logs at the end of every epoch and measures after the last step, whatever the rhythm otherwise.

    Parameters
    ----------
    steps_per_epoch : int
        Steps of an epoch.
    measures : bool
        Whether there are rows held out.
    """

    def __init__(self, steps_per_epoch: int, measures: bool):
        self._steps_per_epoch, self._measures = steps_per_epoch, measures

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Ask for a log, and at the end for a measurement."""
        if state.global_step % self._steps_per_epoch == 0:
            control.should_log = True
        if state.global_step >= state.max_steps and self._measures:
            control.should_evaluate = True


class Patience(EarlyStoppingCallback):  # type: ignore[misc]
    """Stops after so many measurements without a new best one, and stays stopped in a run that is resumed."""

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Stop at once where the checkpoint was written by the measurement that ended the run."""
        super().on_train_begin(args, state, control)
        if self.early_stopping_patience_counter >= self.early_stopping_patience:
            control.should_training_stop = True


def losses_by_epoch(history: Iterable[Mapping[str, Any]], steps_per_epoch: int) -> list[float]:
    """Return the mean training loss of every epoch, from entries that each speak for the steps since the one before."""
    totals: dict[int, list[float]] = {}
    before = 0
    for entry in history:
        if "loss" in entry:
            n_steps, before = int(entry["step"]) - before, int(entry["step"])
            totals.setdefault((before - 1) // steps_per_epoch, []).extend([float(entry["loss"])] * n_steps)
    return [sum(losses) / len(losses) for _, losses in sorted(totals.items())]
