"""The training loop: LoRA weights and head of one model, on one device."""

import logging
import math
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from lmsys_ensemble.encoding.batches import plan_batches
from lmsys_ensemble.encoding.tokens import Encoded
from lmsys_ensemble.modeling import hardware
from lmsys_ensemble.modeling.depth import only_layers
from lmsys_ensemble.modeling.pooling import pad_batch, pool
from lmsys_ensemble.modeling.recipe import Recipe
from lmsys_ensemble.probabilities import Probabilities
from lmsys_ensemble.training.head import fit_head
from lmsys_ensemble.training.hidden import HiddenStates, compute_hidden_states
from lmsys_ensemble.training.settings import OptimizerSettings, TrainSettings

logger = logging.getLogger(__name__)

TOKENS_PER_BATCH = 2048
_BATCHES_SORTED_TOGETHER = 64


@dataclass(frozen=True)
class Examples:
    """What a model learns from: sequences, soft labels of shape (n_rows, n_classes), and a weight a row."""

    encoded: Encoded
    labels: Probabilities
    weights: NDArray[np.float64]


def fit_lora(wrapped: Any, recipe: Recipe, settings: TrainSettings, examples: Examples) -> list[float]:
    """Train a PEFT model's LoRA weights and head in place.

    The loss is the cross-entropy with soft labels, weighted by row.

    Parameters
    ----------
    wrapped : PeftModel
        As `lmsys_ensemble.modeling.adapters.inject_lora` returns it.
    recipe : Recipe
        Pooling and padding.
    settings : TrainSettings
        Layers, optimiser, number format.
    examples : Examples
        Rows to learn from.

    Returns
    -------
    list of float
        Mean training loss of every epoch.
    """
    model = wrapped.get_base_model()
    backbone = model.base_model
    _choose_what_learns(wrapped, settings.lora.first_layer)
    generator = np.random.default_rng(settings.seed)
    torch.manual_seed(settings.seed)
    losses = []
    with ExitStack() as stack:
        number_format = arithmetic(settings.autocast, str(model.device))
        half = number_format != torch.float32
        stack.enter_context(torch.autocast(model.device.type, dtype=number_format if half else None, enabled=half))
        states = None
        if settings.lora.first_layer:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="lmsys-ensemble-hidden-"))
            states = _cache(backbone, settings, examples.encoded, Path(folder))
            stack.enter_context(only_layers(backbone, settings.lora.first_layer))
        if settings.optimizer.head_l2 is not None:
            _start_head(wrapped, recipe, examples, states, settings.optimizer.head_l2)
            logger.info("the head starts from a logistic regression on the frozen model's states")
        steps = [
            _plan_epoch(examples.encoded.lengths, settings.optimizer.rows_per_step, generator)
            for _ in range(settings.optimizer.epochs)
        ]
        optimizer, schedule = _optimizer(wrapped, settings.optimizer, sum(len(epoch) for epoch in steps))
        # The gradients of float16 are too small for it unless the loss is scaled; float32 and bfloat16 have the range.
        scaler = torch.amp.GradScaler(model.device.type, enabled=number_format == torch.float16)
        wrapped.train()
        for number, epoch in enumerate(steps, 1):
            losses.append(
                _run_epoch(wrapped, recipe, examples, states, epoch, optimizer, schedule, scaler, settings, number)
            )
            logger.info("epoch %d of %d: training loss %.4f", number, len(steps), losses[-1])
    wrapped.eval()
    return losses


def arithmetic(autocast: str, device: str) -> torch.dtype:
    """Return the number format of the arithmetic in training.

    ``auto`` is bfloat16 where the device computes in it; float16 on GPUs below compute capability 8.0, which only
    emulate bfloat16; float32 on other CPUs.
    """
    if autocast != "auto":
        return hardware.DTYPES[autocast]
    if device.startswith("cuda"):
        return hardware.resolve_dtype("auto", device)
    return torch.bfloat16 if torch.cpu._is_amx_tile_supported() else torch.float32


def _choose_what_learns(wrapped: Any, first_layer: int) -> None:
    """Let nothing below the first trained layer ask for gradients, and what learns be float32."""
    for name, parameter in wrapped.named_parameters():
        parts = name.split(".")
        if "layers" in parts and int(parts[parts.index("layers") + 1]) < first_layer:
            parameter.requires_grad_(False)
        if parameter.requires_grad:  # PEFT makes LoRA weights in the base's format; bfloat16 would swallow small steps
            parameter.data = parameter.data.float()


def _cache(backbone: Any, settings: TrainSettings, encoded: Encoded, folder: Path) -> HiddenStates:
    total = int(encoded.lengths.sum())
    with tqdm(total=total, desc="frozen layers", unit="tok", unit_scale=True, disable=None) as bar:
        return compute_hidden_states(
            backbone, settings.lora.first_layer, encoded, folder / "hidden.bin", TOKENS_PER_BATCH, bar.update
        )


def _plan_epoch(
    lengths: NDArray[np.intp], rows_per_step: int, generator: np.random.Generator
) -> list[NDArray[np.intp]]:
    """Return the rows of every step, shuffled, with rows of similar length together so that little is padded."""
    order = generator.permutation(len(lengths))
    steps = []
    for start in range(0, len(order), rows_per_step * _BATCHES_SORTED_TOGETHER):
        block = order[start : start + rows_per_step * _BATCHES_SORTED_TOGETHER]
        block = block[np.argsort(lengths[block], kind="stable")]
        steps.extend(np.array_split(block, math.ceil(len(block) / rows_per_step)))
    return [steps[position] for position in generator.permutation(len(steps))]


def _optimizer(wrapped: Any, settings: OptimizerSettings, n_steps: int) -> tuple[Any, Any]:
    head: list[torch.nn.Parameter] = []
    lora: list[torch.nn.Parameter] = []
    for name, parameter in wrapped.named_parameters():
        if parameter.requires_grad:
            (lora if "lora_" in name else head).append(parameter)
    optimizer = torch.optim.AdamW(
        [
            {"params": lora, "lr": settings.learning_rate, "weight_decay": settings.weight_decay},
            {"params": head, "lr": settings.head_learning_rate, "weight_decay": settings.head_weight_decay},
        ]
    )
    warmup = max(round(settings.warmup * n_steps), 1)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(n_steps - warmup, 1)))

    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def _micro_batches(rows: NDArray[np.intp], lengths: NDArray[np.intp]) -> Iterator[NDArray[np.intp]]:
    n_rows = max(TOKENS_PER_BATCH // int(lengths[rows].max()), 1)
    for start in range(0, len(rows), n_rows):
        yield rows[start : start + n_rows]


def _run_epoch(
    wrapped: Any,
    recipe: Recipe,
    examples: Examples,
    states: HiddenStates | None,
    epoch: list[NDArray[np.intp]],
    optimizer: Any,
    schedule: Any,
    scaler: torch.amp.GradScaler,
    settings: TrainSettings,
    number: int,
) -> float:
    lengths = examples.encoded.lengths
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    total, weight = 0.0, 0.0
    with tqdm(total=int(lengths.sum()), desc=f"epoch {number}", unit="tok", unit_scale=True, disable=None) as bar:
        for step, rows in enumerate(epoch, 1):
            step_weight = float(examples.weights[rows].sum())
            for part in _micro_batches(rows, lengths):
                loss = _loss(wrapped, recipe, examples, states, part)
                torch.autograd.backward(scaler.scale(loss / step_weight))
                total += float(loss.detach())
            weight += step_weight
            scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(trained, settings.optimizer.max_gradient_norm)
            scaler.step(optimizer)  # left out, and scaled down from then on, where the scaled gradients overflowed
            before = scaler.get_scale()
            scaler.update()
            if scaler.get_scale() >= before:
                schedule.step()
            optimizer.zero_grad(set_to_none=True)
            bar.update(int(lengths[rows].sum()))
            bar.set_postfix_str(f"loss {total / weight:.4f}", refresh=False)
            if step % 50 == 0:
                logger.info("epoch %d, step %d of %d: training loss %.4f", number, step, len(epoch), total / weight)
    return total / weight


def _loss(
    wrapped: Any, recipe: Recipe, examples: Examples, states: HiddenStates | None, rows: NDArray[np.intp]
) -> torch.Tensor:
    """Return the weighted sum of the rows' cross-entropies."""
    model = wrapped.get_base_model()
    pooled = _pooled(model, recipe, examples.encoded, states, rows)
    with torch.autocast(model.device.type, enabled=False):
        log_probabilities = torch.log_softmax(model.score(pooled), dim=1)
        labels = torch.tensor(examples.labels[rows], dtype=torch.float32, device=model.device)
        weights = torch.tensor(examples.weights[rows], dtype=torch.float32, device=model.device)
        return -(weights[:, None] * labels * log_probabilities).sum()


def _pooled(
    model: Any, recipe: Recipe, encoded: Encoded, states: HiddenStates | None, rows: NDArray[np.intp]
) -> torch.Tensor:
    """Return what the head is given for some rows, of shape (n_rows, pooled size), float32."""
    ids = [encoded.ids[row] for row in rows]
    fields = [encoded.fields[row] for row in rows]
    tokens, mask = pad_batch(ids, 0, model.device)
    if states is None:  # what is added up from layer to layer is float32: in float16 it would overflow
        entering = model.get_input_embeddings()(tokens).float()
    else:
        entering = states.batch([int(row) for row in rows], model.device)
    hidden = model.base_model(inputs_embeds=entering, attention_mask=mask, use_cache=False).last_hidden_state
    with torch.autocast(model.device.type, enabled=False):
        return pool(hidden, ids, fields, recipe.head.pooling, recipe.special_tokens.pad_token_id)


@torch.no_grad()
def _start_head(wrapped: Any, recipe: Recipe, examples: Examples, states: HiddenStates | None, l2: float) -> None:
    """Set the head to a logistic regression on what the untrained layers give it."""
    model = wrapped.get_base_model()
    lengths = examples.encoded.lengths
    batches = plan_batches(lengths, TOKENS_PER_BATCH)
    pooled = np.empty((len(lengths), trained_head(model).in_features))
    with tqdm(total=int(lengths.sum()), desc="head", unit="tok", unit_scale=True, disable=None) as bar:
        for rows in batches:
            pooled[rows] = _pooled(model, recipe, examples.encoded, states, rows).cpu().numpy()
            bar.update(int(lengths[rows].sum()))
    head = trained_head(model)
    weight, bias = fit_head(pooled, examples.labels, examples.weights, l2, with_bias=head.bias is not None)
    head.weight.copy_(torch.from_numpy(weight))
    if head.bias is not None:
        head.bias.copy_(torch.from_numpy(bias))


def trained_head(model: Any) -> Any:
    """Return the linear layer of PEFT's trainable copy of the head."""
    return model.score.modules_to_save["default"]
