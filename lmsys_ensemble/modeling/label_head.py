"""A language model's output for a few tokens only: as many rows of its output matrix as there are labels."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from peft.tuners.lora import LoraLayer
from peft.utils import ModulesToSaveWrapper
from torch import Tensor, nn

from lmsys_ensemble.errors import ModelError

TOLERANCE, HALF_TOLERANCE = 1e-3, 0.05
"""Largest difference from the model's own logits, as a share of the largest one and of 1: in float32, in halves."""


class LabelHead(nn.Module):
    """Logits of the label tokens, in float32.

    Parameters
    ----------
    weight : Tensor of shape (n_labels, hidden_size)
        Rows of the output matrix.
    bias : Tensor of shape (n_labels,), optional
        Entries of its bias.
    softcap : float, optional
        Logits become ``softcap * tanh(logit / softcap)`` (Gemma 2).
    scale : float
        What logits are multiplied with before that (Cohere, Granite).
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None, softcap: float | None = None, scale: float = 1.0):
        super().__init__()
        self.register_buffer("weight", weight.detach().float())
        self.has_bias = bias is not None
        if bias is not None:
            self.register_buffer("bias", bias.detach().float())
        self.softcap = softcap
        self.scale = scale

    def forward(self, hidden: Tensor) -> Tensor:
        """Return logits of shape (n_rows, n_labels) for last hidden states of shape (n_rows, hidden_size)."""
        bias = self.get_buffer("bias") if self.has_bias else None
        logits = F.linear(hidden.float(), self.get_buffer("weight"), bias) * self.scale
        if self.softcap is not None:
            logits = torch.tanh(logits / self.softcap) * self.softcap
        return logits


class LabelModel(nn.Module):
    """A language model whose output is the label tokens' logits: what `ForwardPass` takes for a classifier.

    Parameters
    ----------
    model : PreTrainedModel
        Language model; of it only the part without the output matrix is kept.
    head : LabelHead
        Takes the matrix's place.
    """

    def __init__(self, model: Any, head: LabelHead):
        super().__init__()
        self.base_model = model.base_model
        self.score = head
        self.config = copy.deepcopy(model.config)
        self.config.num_labels = len(head.get_buffer("weight"))
        self.device: torch.device = model.device
        self.dtype: torch.dtype = model.dtype
        self.is_loaded_in_8bit = bool(getattr(model, "is_loaded_in_8bit", False))


@torch.no_grad()
def make_label_head(model: Any, label_ids: Sequence[int], source: str | Path) -> LabelHead:
    """Take the labels' rows out of a model's output matrix, tied or not, with its LoRA update where it has one.

    Parameters
    ----------
    model : PreTrainedModel
        Language model on its device, with its adapter.
    label_ids : sequence of int
        Tokens.
    source : str or Path
        Where the model lies, for errors.

    Raises
    ------
    ModelError
        If the model has no output matrix of plain numbers, or its own logits come out otherwise.
    """
    rows = torch.tensor(label_ids, device=model.device)
    weight, bias = _rows(model.get_output_embeddings(), rows, source)
    config = model.config.get_text_config()
    divisor = getattr(config, "logits_scaling", None) or 1.0
    head = LabelHead(
        weight,
        bias,
        softcap=getattr(config, "final_logit_softcapping", None),
        scale=float(getattr(config, "logit_scale", None) or 1.0) / float(divisor),
    )
    _check_head(model, head, rows, source)
    return head


def _rows(layer: Any, rows: Tensor, source: str | Path) -> tuple[Tensor, Tensor | None]:
    if isinstance(layer, ModulesToSaveWrapper):
        layer = layer.modules_to_save[layer.active_adapters[0]]
    plain = layer.get_base_layer() if isinstance(layer, LoraLayer) else layer
    weight = getattr(plain, "weight", None)
    if weight is None or not weight.is_floating_point() or weight.dim() != 2:
        raise ModelError(
            f"{source}: the output matrix ({type(plain).__name__}) does not hold plain numbers; give a model whose "
            "lm_head is not quantised"
        )
    if int(rows.max()) >= len(weight):
        raise ModelError(f"{source}: its output has {len(weight):,} tokens, a label is token {int(rows.max()):,}")
    taken = weight[rows].float()
    for name in layer.active_adapters if isinstance(layer, LoraLayer) else ():
        taken = taken + layer.get_delta_weight(name)[rows].float()
    bias = getattr(plain, "bias", None)
    return taken, None if bias is None else bias[rows]


def _check_head(model: Any, head: LabelHead, rows: Tensor, source: str | Path) -> None:
    """Compare the labels' logits with the model's own for a few tokens: architectures treat their logits variously."""
    tokens = rows[None, : min(len(rows), 4)]
    own = model(input_ids=tokens, use_cache=False).logits[0, -1, rows].float()
    hidden = model.base_model(input_ids=tokens, use_cache=False).last_hidden_state[0, -1:]
    difference = float((head(hidden)[0] - own).abs().max())
    allowed = (TOLERANCE if model.dtype == torch.float32 else HALF_TOLERANCE) * (1 + float(own.abs().max()))
    if torch.isfinite(own).all() and not difference <= allowed:
        raise ModelError(
            f"{source}: {type(model).__name__} makes its logits in a way that is not known here (they differ by "
            f"{difference:.3g}); give a Llama, Mistral, Qwen or Gemma model"
        )
