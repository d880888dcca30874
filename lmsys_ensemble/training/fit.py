"""Fitting: LoRA weights and head of one model, from examples to weights."""

import logging
import math
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm import tqdm
from transformers import TrainerCallback, TrainingArguments
from transformers.utils import logging as transformers_logging

from lmsys_ensemble.encoding.batches import plan_batches
from lmsys_ensemble.errors import InputError
from lmsys_ensemble.modeling.quantization import kept_in_training_layout
from lmsys_ensemble.modeling.recipe import Recipe
from lmsys_ensemble.training.batches import Steps
from lmsys_ensemble.training.checkpoints import last_complete
from lmsys_ensemble.training.examples import CrossEntropy, Examples, Objective, class_weights
from lmsys_ensemble.training.head import fit_head
from lmsys_ensemble.training.hidden import HiddenStore
from lmsys_ensemble.training.model import Trainee, trained_head
from lmsys_ensemble.training.settings import TrainSettings
from lmsys_ensemble.training.trainer import AdapterTrainer, Data
from lmsys_ensemble.training.watching import EVENTS, EventWriter, Patience, Rhythm, Watcher, curve, losses_by_epoch

logger = logging.getLogger(__name__)

MOST_LOGS = 500
"""Points of a curve."""


@dataclass(frozen=True)
class Fitted:
    """What is known of a run.

    Attributes
    ----------
    losses : list of float
        Mean training loss of every epoch.
    curve : list of dict
        Step by step, see `lmsys_ensemble.training.watching.COLUMNS`.
    n_steps : int
        Steps of the optimiser.
    kept_step : int
        Step whose weights were kept.
    """

    losses: list[float]
    curve: list[dict[str, float]]
    n_steps: int
    kept_step: int


def fit_lora(
    wrapped: Any,
    recipe: Recipe,
    settings: TrainSettings,
    examples: Examples,
    *,
    held: Examples | None = None,
    objective: Objective | None = None,
    store: HiddenStore | None = None,
    folder: Path | None = None,
    resume: bool = False,
    curves: Path | None = None,
    callbacks: Sequence[TrainerCallback] = (),
) -> Fitted:
    """Train a PEFT model's LoRA weights and head in place.

    Parameters
    ----------
    wrapped : PeftModel
        As `lmsys_ensemble.training.model.build_model` returns it.
    recipe : Recipe
        Pooling and padding.
    settings : TrainSettings
        Optimiser, batches, number format.
    examples : Examples
        Rows to learn from.
    held : Examples, optional
        Rows held out, for the curve and for early stopping.
    objective : Objective, optional
        Loss; by default the cross-entropy that `settings` ask for.
    store : HiddenStore, optional
        Where hidden states below the first trained layer are kept; without one they are computed in every epoch.
    folder : Path, optional
        Where checkpoints go; without one there are none.
    resume : bool
        Whether to go on from the last checkpoint in `folder`, if there is one.
    curves : Path, optional
        CSV file of the curves.
    callbacks : sequence of TrainerCallback
        Told of the progress, too.

    Raises
    ------
    InputError
        If all examples have weight 0.
    ModelError
        If a loss or gradients are not finite, or LoRA gets no gradients.
    """
    trainee = Trainee(wrapped, recipe, settings)
    if objective is None:
        by_class = class_weights(settings.data.class_weights, settings.task)[: examples.labels.shape[1]]
        objective = CrossEntropy(examples.labels, examples.weights, by_class, settings.optimizer.label_smoothing)
    if not objective.mean_weight > 0:
        raise InputError(f"all {len(examples)} examples have weight 0: there is nothing to learn")
    if not settings.evaluation.per_epoch or not settings.optimizer.epochs:
        held = None
    with kept_in_training_layout(wrapped):
        wrapped.eval()
        data = _with_states(trainee, examples, store, settings)
        held_data = None if held is None or not len(held) else _with_states(trainee, held, store, settings)
        checkpoint = last_complete(folder) if resume and folder is not None else None
        if checkpoint is None and settings.init_adapter is None and settings.optimizer.head_l2 is not None:
            start_head(trainee, data, settings)
        if not settings.optimizer.epochs:
            return Fitted([], [], 0, 0)
        return _run_trainer(trainee, settings, data, held_data, objective, folder, checkpoint, curves, callbacks)


def _run_trainer(
    trainee: Trainee,
    settings: TrainSettings,
    data: Data,
    held: Data | None,
    objective: Objective,
    folder: Path | None,
    checkpoint: Path | None,
    curves: Path | None,
    callbacks: Sequence[TrainerCallback],
) -> Fitted:
    with ExitStack() as stack:
        stack.enter_context(_quiet_trainer())
        place = folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lmsys-ensemble-training-")))
        n_steps = len(Steps(data.examples.encoded.lengths, settings.optimizer.rows_per_step, settings.seed, True))
        arguments = training_arguments(
            settings, place, n_steps, cpu=trainee.device.type == "cpu", measures=held is not None,
            saves=folder is not None,
        )  # fmt: skip
        watching: list[TrainerCallback] = [Rhythm(n_steps, held is not None), Watcher(curves), *callbacks]
        if "tensorboard" in settings.report_to:
            watching.append(EventWriter((place if curves is None else curves.parent) / EVENTS))
        if held is not None and settings.evaluation.patience is not None:
            watching.append(Patience(settings.evaluation.patience))
        trainer = AdapterTrainer(trainee, arguments, settings, data, objective, held, watching)
        try:
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        except (KeyboardInterrupt, SystemExit) as stop:
            stop.add_note(f"stopped at step {trainer.state.global_step} of {trainer.state.max_steps}")
            raise
        state = trainer.state
    trainee.wrapped.eval()
    kept = state.best_global_step if arguments.load_best_model_at_end else state.global_step
    losses = losses_by_epoch(state.log_history, n_steps)
    return Fitted(losses, curve(state.log_history), int(state.global_step), int(kept or state.global_step))


class _Arguments(TrainingArguments):  # type: ignore[misc]
    """Training arguments that stay on the GPU that is the current one, instead of taking all of them."""

    @cached_property
    def _setup_devices(self) -> torch.device:
        chosen = torch.cuda.current_device() if torch.cuda.is_available() and not self.use_cpu else None
        device: torch.device = super()._setup_devices
        if chosen is not None and self.parallel_mode.value != "distributed":
            self._n_gpu = 1
            torch.cuda.set_device(chosen)
            return torch.device("cuda", chosen)
        return device


def training_arguments(
    settings: TrainSettings, folder: Path, steps_per_epoch: int, *, cpu: bool, measures: bool, saves: bool
) -> TrainingArguments:
    """Return the Trainer's arguments for a recipe.

    Parameters
    ----------
    settings : TrainSettings
        The recipe.
    folder : Path
        Where checkpoints go.
    steps_per_epoch : int
        Steps of the optimiser in an epoch.
    cpu, measures, saves : bool
        Whether it runs on the CPU, whether there are rows held out, whether checkpoints are wanted.
    """
    optimizer, evaluation = settings.optimizer, settings.evaluation
    n_steps = steps_per_epoch * optimizer.epochs
    every = math.ceil(steps_per_epoch / max(evaluation.per_epoch, 1))
    keeps_best = measures and evaluation.keeps_best
    save_every = every if keeps_best else settings.checkpoint_steps or every
    return _Arguments(
        output_dir=str(folder),
        num_train_epochs=optimizer.epochs,
        per_device_train_batch_size=optimizer.rows_per_step,
        learning_rate=optimizer.learning_rate,
        optim=optimizer.name,
        lr_scheduler_type="constant_with_warmup" if optimizer.schedule == "constant" else optimizer.schedule,
        warmup_steps=math.ceil(optimizer.warmup * n_steps),
        max_grad_norm=optimizer.max_gradient_norm,
        logging_strategy="steps",
        logging_steps=max(math.ceil(n_steps / MOST_LOGS), 1),
        logging_nan_inf_filter=False,
        eval_strategy="steps" if measures else "no",
        eval_steps=every,
        save_strategy="steps" if saves or keeps_best else "no",
        save_steps=save_every,
        save_total_limit=2,
        load_best_model_at_end=keeps_best,
        metric_for_best_model="eval_log_loss" if measures else None,
        greater_is_better=False if measures else None,
        restore_callback_states_from_checkpoint=True,
        use_cpu=cpu,
        seed=settings.seed,
        report_to="none",  # event files would go with the checkpoints: see EventWriter
        disable_tqdm=True,
        dataloader_pin_memory=False,
        remove_unused_columns=False,
        label_names=[],
        ddp_find_unused_parameters=False,
        ddp_broadcast_buffers=False,
    )


@contextmanager
def _quiet_trainer() -> Iterator[None]:
    """Silence the Trainer's own log: this library reports what matters of it."""
    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(before)


def _with_states(trainee: Trainee, examples: Examples, store: HiddenStore | None, settings: TrainSettings) -> Data:
    if store is None or not trainee.can_start_late():
        return Data(examples)
    encoded = examples.encoded
    half = trainee.autocast is not None
    with (
        torch.autocast(trainee.device.type, dtype=trainee.autocast, enabled=half),
        _bar("frozen layers", int(encoded.lengths.sum())) as bar,
    ):
        states = store.get(trainee.model.base_model, trainee.first_layer, encoded, settings.batches.tokens, bar.update)
    return Data(examples, states)


@torch.no_grad()
def start_head(trainee: Trainee, data: Data, settings: TrainSettings) -> None:
    """Set a linear head to a logistic regression on what the untrained layers give it; leave others at random."""
    head = trained_head(trainee.model)
    l2 = settings.optimizer.head_l2
    if l2 is None or not isinstance(head, nn.Linear) or not trainee.plain:
        return
    examples = data.examples
    lengths = examples.encoded.lengths
    pooled = np.empty((len(examples), head.in_features))
    with _bar("head", int(lengths.sum())) as bar:
        for rows in plan_batches(lengths, settings.batches.tokens):
            pooled[rows] = data.call(trainee, rows)[1].cpu().numpy()
            bar.update(int(lengths[rows].sum()))
    by_class = class_weights(settings.data.class_weights, settings.task)[: examples.labels.shape[1]]
    weight, bias = fit_head(pooled, examples.labels * by_class, examples.weights, l2, with_bias=head.bias is not None)
    head.weight.copy_(torch.from_numpy(weight))
    if head.bias is not None:
        head.bias.copy_(torch.from_numpy(bias))
    logger.info("the head starts from a logistic regression on the frozen model's states")


def _bar(name: str, n_tokens: int) -> Any:
    return tqdm(total=n_tokens, desc=name, unit="tok", unit_scale=True, disable=None)
