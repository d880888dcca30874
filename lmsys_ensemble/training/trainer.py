"""transformers' Trainer for battles: steps of many batches, log loss on the rows held out, checkpoints of what learns.

The Trainer keeps the loop: epochs, optimiser, schedule, clipping, checkpoints, resuming, and with accelerate the
processes of several GPUs. What it hands over here is one step at a time: rows are divided into batches by tokens, and
the sum of their losses over the rows of the whole step (of all processes) times the mean weight of all examples is what
is minimised. So the result does not depend on how rows were divided, and a step of heavy rows counts for more.
"""

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from lmsys_ensemble.errors import ModelError, OutputError
from lmsys_ensemble.evaluation.metrics import accuracy, log_loss
from lmsys_ensemble.modeling.adapters import account_for_keys
from lmsys_ensemble.modeling.tensorfiles import save_tensors
from lmsys_ensemble.probabilities import Logits, softmax
from lmsys_ensemble.training.batches import StepLoader, Steps, divide
from lmsys_ensemble.training.checkpoints import mark_complete, unwritten
from lmsys_ensemble.training.examples import Examples, Objective
from lmsys_ensemble.training.hidden import HiddenStates
from lmsys_ensemble.training.model import Trainee
from lmsys_ensemble.training.settings import TrainSettings

WEIGHTS_FILE = "learned.safetensors"
MOST_OVERFLOWS = 25
"""Steps in a row that may be left out because gradients overflow; a scale of 65,536 is halved to nothing by then."""


@dataclass(frozen=True)
class Data:
    """Examples, with the hidden states that enter the first trained layer where they were computed."""

    examples: Examples
    states: HiddenStates | None = None

    def call(self, model: Any, rows: NDArray[np.intp]) -> tuple[Tensor, Tensor]:
        """Run a `Trainee` (or what it is wrapped in) on some rows."""
        encoded = self.examples.encoded
        entering = None if self.states is None else [self.states[row] for row in rows]
        logits, pooled = model([encoded.ids[row] for row in rows], [encoded.fields[row] for row in rows], entering)
        return logits, pooled


class AdapterTrainer(Trainer):  # type: ignore[misc]
    """Trains a `Trainee`.

    Parameters
    ----------
    trainee : Trainee
        On its device.
    arguments : TrainingArguments
        As `training_arguments` makes them.
    settings : TrainSettings
        Batches, learning rates.
    data : Data
        Rows to learn from.
    objective : Objective
        The loss on them.
    held : Data, optional
        Rows held out.
    callbacks : sequence of TrainerCallback
        Told of the progress.
    """

    optimizer: Any
    control: Any

    def __init__(
        self,
        trainee: Trainee,
        arguments: TrainingArguments,
        settings: TrainSettings,
        data: Data,
        objective: Objective,
        held: Data | None = None,
        callbacks: Sequence[TrainerCallback] = (),
    ):
        self.settings, self.data, self.objective, self.held = settings, data, objective, held
        self._scales = trainee.autocast == torch.float16
        self._overflows, self._last_loss = 0, math.nan
        self._lora_learns = False
        eval_rows = None if held is None else range(len(held.examples))
        super().__init__(model=trainee, args=arguments, eval_dataset=eval_rows, callbacks=list(callbacks))
        self.remove_callback(PrinterCallback)

    def create_accelerator_and_postprocess(self) -> None:
        """Make the accelerator, with a scaler of gradients for float16 on any device."""
        super().create_accelerator_and_postprocess()
        if self._scales:
            # Accelerate makes one for GPUs only, and would run the whole model in autocast; here heads are float32.
            self.accelerator.scaler = torch.amp.GradScaler(self.args.device.type)

    def get_train_dataloader(self) -> StepLoader:
        """Return a loader of steps; it is the same in all processes, which take their shares of every step."""
        settings = self.settings
        lengths = self.data.examples.encoded.lengths
        steps = Steps(lengths, settings.optimizer.rows_per_step, settings.seed, settings.batches.by_length)
        generator = torch.Generator().manual_seed(settings.seed)  # else it would draw from the one of dropout
        numbers: Any = range(len(lengths))
        return StepLoader(numbers, batch_sampler=steps, collate_fn=_as_rows, generator=generator)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Make the optimiser, with the head's own learning rate and weight decay."""
        made: torch.optim.Optimizer | None = self.optimizer
        if made is None:
            kind, options = self.get_optimizer_cls_and_kwargs(self.args)
            made = self.optimizer = kind(self._groups(), **options)
        return made

    def _groups(self) -> list[dict[str, Any]]:
        chosen = self.settings.optimizer
        learning = self.model.learning()
        lora = [parameter for name, parameter in learning.items() if "lora_" in name]
        head = [parameter for name, parameter in learning.items() if "lora_" not in name]
        return [
            {"params": lora, "lr": chosen.learning_rate, "weight_decay": chosen.weight_decay},
            {"params": head, "lr": chosen.head_learning_rate, "weight_decay": chosen.head_weight_decay},
        ]

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """Compute the gradients of one step; returns its loss."""
        model.train()
        rows: NDArray[np.intp] = inputs["rows"].cpu().numpy()
        divisor = len(rows) * self.objective.mean_weight / self.args.world_size
        lengths = self.data.examples.encoded.lengths
        own = rows[self.args.process_index :: self.args.world_size]
        factor = 1.0
        if not len(own):  # fewer rows than processes: this one must take part, and adds nothing
            own, factor = rows[:1], 0.0
        parts = divide(own, lengths, self.settings.batches, self.model.packed)
        total = torch.zeros((), device=self.args.device)
        for number, part in enumerate(parts, 1):
            last = number == len(parts)
            with nullcontext() if last else self.accelerator.no_sync(model):
                loss = factor * self.objective(*self.data.call(model, part), part) / divisor
                self.accelerator.backward(loss)
            total += loss.detach()
        if not self._lora_learns:
            self._check_gradients()
        return self._guarded(total)

    def _check_gradients(self) -> None:
        """Find out in the first step whether the base passes gradients on to LoRA."""
        lora = [parameter for name, parameter in self.model.learning().items() if "lora_" in name]
        self._lora_learns = not lora or any(parameter.grad is not None for parameter in lora)
        if not self._lora_learns:
            raise ModelError(
                f"none of {len(lora)} LoRA weights got a gradient in step {self.state.global_step + 1}: the base model "
                "does not pass gradients on, so that nothing but the head would learn. Set another quantization (none, "
                "int8), or train on another device"
            )

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        """Run an epoch, unless a resumed run had been stopped already; the Trainer asks only after a step."""
        if not self.control.should_training_stop:
            super()._run_epoch(*args, **kwargs)

    def _guarded(self, loss: Tensor) -> Tensor:
        """Stop at a loss that is not finite; with float16 the gradient scaler skips such a step instead."""
        if math.isfinite(float(loss)):
            self._last_loss = float(loss)
            return loss
        if not self._scales:
            raise ModelError(
                f"the loss of step {self.state.global_step + 1} is not finite. Lower optimizer.learning_rate or "
                "optimizer.max_gradient_norm, or set autocast to float32"
            )
        return torch.full_like(loss, self._last_loss)

    def _clip_grad_norm(self, model: nn.Module) -> Tensor:
        if self._scales:
            self.accelerator.scaler.unscale_(self.optimizer.optimizer)
        norm: Tensor = super()._clip_grad_norm(model)
        self._overflows = 0 if math.isfinite(float(norm)) else self._overflows + 1
        if self._overflows > MOST_OVERFLOWS or (self._overflows and not self._scales):
            raise ModelError(
                f"gradients were not finite in {self._overflows} steps up to step {self.state.global_step + 1}. "
                "Lower optimizer.learning_rate, or set autocast to float32 or bfloat16"
            )
        return norm

    @torch.no_grad()
    def score_held(self) -> Logits:
        """Return logits of the rows held out, of shape (n_rows, n_classes), from the weights as they are now."""
        held = self.held
        if held is None:
            raise ModelError("there are no rows held out")
        world, rank = self.args.world_size, self.args.process_index
        own = np.arange(len(held.examples))[rank::world]
        budget = replace_rows(self.settings)
        found = np.zeros((len(held.examples), held.examples.labels.shape[1]), dtype=np.float32)
        was_training = self.model.training
        self.model.eval()
        for part in divide(own, held.examples.encoded.lengths, budget, self.model.packed) if len(own) else ():
            found[part] = held.call(self.model, part)[0].float().cpu().numpy()
        self.model.train(was_training)
        if world > 1:
            shares = torch.from_numpy(found).to(self.args.device)
            torch.distributed.all_reduce(shares)  # every row is another process's zero
            found = shares.cpu().numpy()
        return found

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Measure log loss and accuracy on the rows held out, and report both."""
        probabilities = softmax(self.score_held())
        labels = self.held.examples.labels if self.held else probabilities
        metrics = {
            "eval_log_loss": float(log_loss(labels, probabilities)),
            "eval_accuracy": float(accuracy(labels, probabilities)),
        }
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        """Write the trained parameters, and none of the base model's."""
        if self.args.should_save:
            folder = Path(output_dir or self.args.output_dir)
            folder.mkdir(parents=True, exist_ok=True)
            learned = {name: tensor.detach().cpu().contiguous() for name, tensor in self.model.learning().items()}
            save_tensors(learned, folder / WEIGHTS_FILE)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        place = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        try:
            super()._save_checkpoint(model, trial)
            self.accelerator.wait_for_everyone()  # each writes the state of its own random numbers
            if self.args.should_save:
                mark_complete(place)
        except (OSError, RuntimeError) as error:  # the latter is what torch raises where a file cannot be written
            raise OutputError(unwritten(place, error)) from error

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        self._restore(Path(resume_from_checkpoint))

    def _load_best_model(self) -> None:
        self._restore(Path(self.state.best_model_checkpoint))

    @torch.no_grad()
    def _restore(self, folder: Path) -> None:
        learned = load_file(folder / WEIGHTS_FILE)
        learning = self.model.learning()
        account_for_keys(learning, learned, folder)
        for name, parameter in learning.items():
            parameter.copy_(learned[name])


def _as_rows(rows: list[int]) -> dict[str, Tensor]:
    return {"rows": torch.tensor(rows, dtype=torch.int64)}


def replace_rows(settings: TrainSettings) -> Any:
    """Return the budget of batches without gradients: by tokens only."""
    return settings.batches.model_copy(update={"rows": None})
