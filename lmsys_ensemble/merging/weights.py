"""The weights of a base model with a LoRA adapter in it, added up and rounded one layer at a time."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor, nn

from lmsys_ensemble.errors import ConfigError
from lmsys_ensemble.merging.compression import Scheme, compress
from lmsys_ensemble.merging.parts import Base, Part
from lmsys_ensemble.modeling.adapters import account_for_keys, inject_lora
from lmsys_ensemble.modeling.checkpoints import HEAD_NAMES
from lmsys_ensemble.modeling.forward import prepare_head
from lmsys_ensemble.modeling.loading import LoadSettings, load_classifier
from lmsys_ensemble.modeling.tensorfiles import read_header

_STORED = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}


def stored_dtype(folder: Path) -> str:
    """Return the number format that most of a model's weights are stored in.

    Raises
    ------
    ConfigError
        If it is none of float32, bfloat16 and float16.
    """
    n_bytes: dict[str, int] = {}
    for path in folder.glob("*.safetensors"):
        for entry in read_header(path).values():
            n_bytes[entry.dtype] = n_bytes.get(entry.dtype, 0) + entry.stop - entry.start
    most = max(n_bytes, key=lambda name: n_bytes[name], default="nothing")
    if most not in _STORED:
        raise ConfigError(f"{folder} holds weights of {most}; expected {', '.join(_STORED)}")
    return _STORED[most]


def load_unmerged(part: Part, base: Base, dtype: torch.dtype) -> Any:
    """Return the base with the adapter in it, unmerged."""
    recipe = part.recipe
    settings = LoadSettings(
        len(recipe.classes), "cpu", dtype, n_layers=recipe.head.layers, soft_capping=recipe.soft_capping
    )
    model = load_classifier(base.folder, settings, head_follows=True)
    prepare_head(model, recipe.head, len(recipe.classes))
    wrapped = inject_lora(model, part.adapter.config)
    for name, parameter in wrapped.named_parameters():
        if ".lora_" in name:  # PEFT makes them in the base's number format
            parameter.data = parameter.data.float()
    expected = get_peft_model_state_dict(wrapped, save_embedding_layers=False)
    account_for_keys(expected, part.adapter.weights, part.folder)
    set_peft_model_state_dict(wrapped, dict(part.adapter.weights))
    return wrapped.get_base_model()


def plain_name(name: str) -> str:
    """Return what a parameter or module of a model with LoRA layers is called in the model without."""
    return re.sub(r"\.(base_layer|modules_to_save\.default)(?=\.|$)", "", name)


def rounded_layers(model: Any) -> list[tuple[str, nn.Linear]]:
    """Return the linear layers that quantisation rounds: all of the model without its head."""
    inside = f"{model.base_model_prefix}."
    layers = [
        (plain_name(name), module)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name.startswith(inside) and ".lora_" not in name
    ]
    return [(name, layer) for name, layer in layers if ".original_module" not in name]


@torch.no_grad()
def merged_tensors(
    model: Any,
    dtype: torch.dtype,
    scheme: Scheme | None,
    stored: Mapping[str, Mapping[str, Tensor]] | None = None,
) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of a model with its LoRA updates added, by name; what has been yielded is freed in the model.

    Parameters
    ----------
    model : PreTrainedModel
        With PEFT's layers in it; it cannot be used afterwards.
    dtype : torch.dtype
        Number format of all but the head, which stays float32.
    scheme : Scheme, optional
        How linear layers are rounded.
    stored : mapping, optional
        What is stored of layers that are merged and rounded already, by their names, see
        `lmsys_ensemble.merging.calibration.round_layers`.
    """
    stored = stored or {}
    rounded = dict(rounded_layers(model)) if scheme else {}
    updated = {plain_name(name): layer for name, layer in model.named_modules() if isinstance(layer, LoraLayer)}
    seen: set[int] = set()
    for name in list(model.state_dict()):
        if ".lora_" in name or ".original_module." in name:
            continue
        plain = plain_name(name)
        owner, _, kind = plain.rpartition(".")
        place, _, attribute = name.rpartition(".")
        holder = model.get_submodule(place)
        tensor: Tensor = getattr(holder, attribute)
        if id(tensor) in seen:  # shared, and written under its first name
            continue
        seen.add(id(tensor))
        if owner in stored and kind == "weight":
            yield from stored[owner].items()
            continue
        if owner in updated and kind == "weight" and not updated[owner].merged:
            tensor.data = tensor.data.float()
            updated[owner].merge()
        value = tensor.data.float() if tensor.is_floating_point() else tensor.data
        if plain.split(".")[0] in HEAD_NAMES or not value.is_floating_point():
            yield plain, value
        elif owner in rounded and kind == "weight" and scheme is not None:
            yield from compress(owner, value, scheme, dtype)
        else:
            yield plain, value.to(dtype)
        tensor.data = torch.empty(0)
