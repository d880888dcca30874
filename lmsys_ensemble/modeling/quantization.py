"""bitsandbytes weights: what to quantise, and unpacking them once where there is room."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import bitsandbytes
import torch
from torch import nn
from transformers import BitsAndBytesConfig

from lmsys_ensemble.compute.hardware import free_bytes
from lmsys_ensemble.errors import ModelError

logger = logging.getLogger(__name__)

QUANTIZATIONS = ("none", "nf4", "int8")

ROOM_TO_COMPUTE = 4 * 2**30
"""Bytes of a GPU that stay free for activations when weights are unpacked."""


def quantization_config(quantization: str, dtype: torch.dtype, skip: list[str]) -> BitsAndBytesConfig:
    """Return how transformers quantises a model's linear layers; those called one of `skip` stay as they are."""
    if quantization == "int8":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=skip)
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype, llm_int8_skip_modules=skip
    )


def has_room_unpacked(model: nn.Module, dtype: torch.dtype, device: str) -> bool:
    """Tell whether a GPU can hold a model's 4-bit weights in `dtype` and still compute; on the CPU never."""
    if not device.startswith("cuda"):
        return False
    n_weights = sum(layer.weight.quant_state.shape.numel() for _, layer in _packed_layers(model))
    return bool(n_weights * dtype.itemsize + ROOM_TO_COMPUTE <= free_bytes(device))


@torch.no_grad()
def unpack_weights(model: Any, dtype: torch.dtype) -> None:
    """Turn 4-bit layers into plain ones that hold the values their 4 bits stand for.

    bitsandbytes unpacks them anew in every forward pass; the numbers are the same.
    """
    layers = _packed_layers(model)
    for name, layer in layers:
        weight = bitsandbytes.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state).to(dtype)
        plain = nn.Linear(layer.in_features, layer.out_features, bias=False, device="meta", dtype=dtype)
        plain.weight = nn.Parameter(weight, requires_grad=False)
        plain.bias = layer.bias
        parent, _, attribute = name.rpartition(".")
        setattr(model.get_submodule(parent), attribute, plain)
    forget_quantization(model)
    logger.info("unpacked %d layers of 4-bit weights to %s once", len(layers), dtype)


@contextmanager
def kept_in_training_layout(model: nn.Module) -> Iterator[None]:
    """Keep 4-bit weights as gradients need them, in evaluation mode, too.

    On a CPU with AVX512-BF16 a layer of bitsandbytes lays its weights out anew as soon as it runs in evaluation mode,
    for a kernel that has no gradients (``Linear4bit.forward``, release 0.50). They stay so in training mode, where all
    gradients that pass the layer are then lost without an error.

    Raises
    ------
    ModelError
        If the model has run in evaluation mode already, so that it is too late.
    """
    layers = [layer for _, layer in _packed_layers(model) if getattr(layer, "support_avx512bf16_for_cpu", False)]
    if any(getattr(layer.weight.quant_state, "packing_format_for_cpu", False) for layer in layers):
        raise ModelError(
            "the model's 4-bit weights were laid out for inference when it scored rows, and give no gradients; load it "
            "anew to train it"
        )
    for layer in layers:
        layer.support_avx512bf16_for_cpu = False
    try:
        yield
    finally:
        for layer in layers:
            layer.support_avx512bf16_for_cpu = True


def forget_quantization(model: Any) -> None:
    """Take the marks of quantisation off a model whose weights are plain numbers again."""
    for mark in ("quantization_method", "is_loaded_in_4bit", "is_quantized", "hf_quantizer"):
        if hasattr(model, mark):
            setattr(model, mark, None)


def _packed_layers(model: nn.Module) -> list[tuple[str, Any]]:
    return [(name, layer) for name, layer in model.named_modules() if isinstance(layer, bitsandbytes.nn.Linear4bit)]
