"""LoRA adapters with their heads: every key is accounted for before a number is computed.

PEFT only warns of a missing LoRA key, and a head that was never saved comes back as random numbers. Here a missing,
unexpected, mis-shaped or non-finite tensor is an error that lists it.
"""

import copy
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file

from lmsys_ensemble.errors import CheckError, ModelError
from lmsys_ensemble.modeling.adapter_config import check_lora_patterns, check_ranks, read_lora_config
from lmsys_ensemble.modeling.building import LOAD_LOCK
from lmsys_ensemble.modeling.checkpoints import HEAD_NAMES
from lmsys_ensemble.modeling.tensorfiles import read_header, save_tensors

logger = logging.getLogger(__name__)

WEIGHTS_FILE = "adapter_model.safetensors"

ADAPTER_TENSORS = "the adapter's tensors"

Shapes: TypeAlias = dict[str, tuple[int, ...]]

AdapterTask: TypeAlias = Literal["SEQ_CLS", "CAUSAL_LM"]
"""What an adapter is for, in PEFT's words: a classifier, which it brings the head of, or a language model."""

MERGE_ROUNDING = 0.05
"""Largest share of a LoRA update that may be lost to rounding when it is merged in half precision."""


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter with its head, read from a PEFT folder but not yet attached."""

    folder: Path
    config: LoraConfig
    weights: Mapping[str, torch.Tensor]


def read_adapter(folder: Path) -> Adapter:
    """Read a PEFT folder, such as a Trainer's ``checkpoint-5748``; raises what `read_adapter_header` does."""
    config, _ = read_adapter_header(folder)
    return Adapter(folder, config, load_file(folder / WEIGHTS_FILE))


def read_adapter_header(folder: Path) -> tuple[LoraConfig, Shapes]:
    """Read a PEFT folder's configuration and the names and shapes of its tensors, but not the tensors.

    Raises
    ------
    CheckError
        If there is no such folder, or no adapter in it, or its weights are pickled.
    ModelError
        If it is no LoRA adapter.
    IntegrityError
        If the weights' file is damaged.
    """
    if not folder.is_dir():
        raise CheckError([f"there is no adapter folder {folder}"])
    config = read_lora_config(folder)
    path = folder / WEIGHTS_FILE
    if not path.is_file():
        pickled = folder / "adapter_model.bin"
        cure = (
            f"; {pickled.name} is a pickle, which can run code: convert it with "
            f"'lmsys-ensemble import-checkpoint {pickled}'"
            if pickled.is_file()
            else ""
        )
        raise CheckError([f"{folder} holds no {WEIGHTS_FILE}{cure}"])
    shapes = {key: entry.shape for key, entry in read_header(path).items()}
    check_ranks(config, shapes, folder)
    return config, shapes


def head_name(model: torch.nn.Module) -> str:
    """Return the attribute that holds a model's classification head."""
    for name in HEAD_NAMES:
        if hasattr(model, name):
            return name
    raise ModelError(f"{type(model).__name__} has no classification head called {' or '.join(HEAD_NAMES)}")


def inject_lora(model: Any, config: LoraConfig, task: AdapterTask = "SEQ_CLS") -> Any:
    """Put LoRA layers and a trainable copy of a classifier's head into `model`, and return the PEFT model around it.

    The base model that the configuration names is not followed: `model` is the base.
    """
    config.task_type = task
    if task == "SEQ_CLS":
        config.modules_to_save = sorted({*(config.modules_to_save or [])} - set(HEAD_NAMES))
        config.modules_to_save.append(head_name(model))
    check_lora_patterns(config, [name for name, _ in model.named_modules()], "adapter_config.json")
    config.base_model_name_or_path = None  # peft warns where it is not the folder that the base came from
    try:
        with LOAD_LOCK, _old_name_of_checkpointing(model):
            return get_peft_model(model, config, autocast_adapter_dtype=False)
    except Exception as error:  # settings that peft does not check raise whatever they meet
        raise ModelError(f"the adapter does not fit {type(model).__name__}: {error}") from error


@contextmanager
def _old_name_of_checkpointing(model: Any) -> Iterator[None]:
    """Let `model` have the property that peft 0.21 asks for by its old name, without transformers 5's warning.

    Warnings are filtered for the whole process; this changes one model for a moment.
    """
    kind = type(model)
    if not hasattr(kind, "is_activation_checkpointing"):
        yield
        return
    answers = {"__module__": kind.__module__, "is_gradient_checkpointing": kind.is_activation_checkpointing}
    model.__class__ = type(kind.__name__, (kind,), answers)
    try:
        yield
    finally:
        model.__class__ = kind


def attach_adapter(model: Any, adapter: Adapter, merge: bool | None = None, task: AdapterTask = "SEQ_CLS") -> Any:
    """Attach an adapter, with its head where it has one, to a base model.

    Parameters
    ----------
    model : PreTrainedModel
        Base model; it is changed.
    adapter : Adapter
        As read.
    merge : bool, optional
        Whether the LoRA weights are added to the base's. By default they are where that is exact enough: in float32,
        and in half precision where rounding loses no more than `MERGE_ROUNDING` of any update; never where the base
        is quantised, or where the update is of a matrix that is both embedding and output.
    task : {"SEQ_CLS", "CAUSAL_LM"}
        Whether the adapter must bring a classifier's head.

    Returns
    -------
    PreTrainedModel
        The model with the adapter in it, in evaluation mode.

    Raises
    ------
    ModelError
        If keys are missing, unexpected, mis-shaped or not finite; lists them.
    """
    adapter.config.inference_mode = True
    wrapped = inject_lora(model, adapter.config, task)
    account_for_keys(get_peft_model_state_dict(wrapped, save_embedding_layers=False), adapter.weights, adapter.folder)
    set_peft_model_state_dict(wrapped, dict(adapter.weights))
    loss = None if is_quantised(model) else merge_rounding(wrapped)
    tied = task == "CAUSAL_LM" and _updates_tied_matrix(model)
    merged = loss is not None and loss <= MERGE_ROUNDING and not tied if merge is None else merge
    if merged and loss is None:
        raise ModelError(f"{adapter.folder}: merge=True on a quantised base would round the update away")
    if merged and tied:
        raise ModelError(
            f"{adapter.folder}: merge=True would change embeddings and output, which are one; leave it out"
        )
    if merged:
        result = wrapped.merge_and_unload()
        logger.info("merged the LoRA weights of %s (largest rounding loss %.1e)", adapter.folder.name, loss)
    else:
        result = wrapped.get_base_model()
        why = "the base is quantised" if loss is None else f"rounding would lose {loss:.1%} of an update"
        why = "embeddings and output are one matrix" if tied else why
        logger.info("left the LoRA weights of %s unmerged: %s", adapter.folder.name, why if merge is None else "asked")
    result.requires_grad_(False)
    return result.eval()


def _updates_tied_matrix(model: Any) -> bool:
    """Tell whether LoRA is on one side only of a matrix that is both embedding and output; merging changes both."""
    sides = [model.get_input_embeddings(), model.get_output_embeddings()]
    if not any(isinstance(side, LoraLayer) for side in sides):
        return False
    weights = [side.get_base_layer().weight if isinstance(side, LoraLayer) else side.weight for side in sides]
    return bool(weights[0] is weights[1])


def account_for_keys(
    expected: Mapping[str, torch.Tensor],
    found: Mapping[str, torch.Tensor],
    source: str | Path,
    what: str = ADAPTER_TENSORS,
) -> None:
    """Compare an adapter's tensors with those that the model has a place for; `what` is what errors call them.

    Raises
    ------
    ModelError
        Lists missing, unexpected, mis-shaped and non-finite tensors.
    """
    not_finite = sorted(key for key, tensor in found.items() if not torch.isfinite(tensor).all())
    account_for_shapes(shapes_of(expected), shapes_of(found), source, not_finite, what)


def shapes_of(tensors: Mapping[str, torch.Tensor]) -> Shapes:
    """Return the shapes of tensors by name."""
    return {key: tuple(tensor.shape) for key, tensor in tensors.items()}


def account_for_shapes(
    expected: Shapes,
    found: Shapes,
    source: str | Path,
    not_finite: Sequence[str] = (),
    what: str = ADAPTER_TENSORS,
) -> None:
    """Do what `account_for_keys` does for the shapes of tensors, which a file's header states."""
    faults = {
        "missing": sorted(set(expected) - set(found)),
        "unexpected": sorted(set(found) - set(expected)),
        "of another shape": [
            f"{key} (got {found[key]}, expected {expected[key]})"
            for key in sorted(set(found) & set(expected))
            if found[key] != expected[key]
        ],
        "not finite": list(not_finite),
    }
    said = [
        f"{len(keys)} {fault}: {', '.join(keys[:10])}{', …' if len(keys) > 10 else ''}"
        for fault, keys in faults.items()
        if keys
    ]
    if not said:
        return
    of_head = any(part in HEAD_NAMES for key in faults["missing"] for part in key.split("."))
    no_head = of_head and what == ADAPTER_TENSORS
    cure = (
        ". The trained head was not saved (task_type or modules_to_save unset in training); a random head would give "
        "random probabilities"
        if no_head
        else ""
    )
    raise ModelError(f"{source}: {what} do not match the model: {'; '.join(said)}{cure}")


def is_quantised(model: Any) -> bool:
    """Tell whether a model's linear layers hold bitsandbytes weights."""
    return getattr(model, "quantization_method", None) is not None or bool(
        getattr(model, "is_loaded_in_4bit", False) or getattr(model, "is_loaded_in_8bit", False)
    )


@torch.no_grad()
def merge_rounding(wrapped: Any) -> float:
    """Return the largest share of any LoRA update that merging loses to the rounding of the weights.

    For weights W and an update D the share is ``norm(round(W + D) - (W + D)) / norm(D)`` (Frobenius norms).
    """
    worst = 0.0
    for layer in wrapped.modules():
        if not isinstance(layer, LoraLayer) or not isinstance(layer.get_base_layer(), torch.nn.Linear):
            continue
        weight = layer.get_base_layer().weight
        for name in layer.active_adapters:
            delta = layer.get_delta_weight(name).float()
            exact = weight.float() + delta
            size = float(delta.norm())
            if size > 0:
                worst = max(worst, float((exact.to(weight.dtype).float() - exact).norm()) / size)
    return worst


def save_adapter(wrapped: Any, folder: Path, base_name: str) -> None:
    """Write a PEFT model's LoRA weights, head and configuration as safetensors and JSON.

    `base_name` is what the configuration calls the base model.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights = get_peft_model_state_dict(wrapped, save_embedding_layers=False)
    save_tensors({key: tensor.detach().cpu().contiguous() for key, tensor in weights.items()}, folder / WEIGHTS_FILE)
    config = copy.copy(wrapped.peft_config["default"])
    config.inference_mode = True
    config.base_model_name_or_path = base_name
    if isinstance(config.target_modules, set):  # whose order is another in every process
        config.target_modules = sorted(config.target_modules)
    head = head_name(wrapped.get_base_model())
    config.modules_to_save = [*sorted({*(config.modules_to_save or [])} - set(HEAD_NAMES)), head]
    config.save_pretrained(str(folder))
