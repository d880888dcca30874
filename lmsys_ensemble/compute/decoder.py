"""Decoder layers over packed batches: the modules of a transformers model, without padding and without waste.

Llama, Mistral, Qwen 2 and 3, Gemma 1 to 3 are built alike: norms around an attention with rotary positions and a gated
feed-forward part. This module calls their weights (plain, quantised or with LoRA) in that order. In the last layer only
the tokens that are pooled get a query, an output and a feed-forward pass.
"""

import copy
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lmsys_ensemble.compute.attention import Attention, AttentionRule
from lmsys_ensemble.compute.packing import Packed

MODEL_TYPES = ("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text")
"""Values of ``model_type`` whose layers are known here; others run padded, as transformers has them."""

_STATIC_ROPE = {"default", "linear", "llama3", "yarn"}
"""Kinds of rotary positions that do not depend on the longest sequence of a batch."""


def can_pack(backbone: Any) -> bool:
    """Tell whether `PackedDecoder` computes what the model would."""
    config = getattr(backbone, "config", None)
    if getattr(config, "model_type", None) not in MODEL_TYPES or getattr(config, "use_bidirectional_attention", False):
        return False
    kinds = getattr(backbone.rotary_emb, "rope_type", "default")
    return set(kinds.values() if isinstance(kinds, dict) else [kinds]) <= _STATIC_ROPE


class PackedDecoder:
    """Runs a decoder's layers over packed batches.

    Parameters
    ----------
    backbone : PreTrainedModel
        Model without head, of one of `MODEL_TYPES`.

    Notes
    -----
    With bfloat16 weights on a CPU only the linear maps and the attention are in bfloat16; what is added up from layer
    to layer, and the norms, stay in float32, which rounds less.
    """

    def __init__(self, backbone: Any):
        self.backbone = backbone
        self._adds_in_float32 = backbone.device.type == "cpu"
        self._ropes_by_layer = "layer_type" in inspect.signature(backbone.rotary_emb.forward).parameters

    def __call__(
        self,
        packed: Packed,
        attention: Attention,
        wanted: Tensor | None,
        *,
        upcast: bool = False,
        entering: Tensor | None = None,
        checkpointing: bool = False,
    ) -> Tensor:
        """Return normed hidden states of shape (n_wanted, hidden_size).

        Parameters
        ----------
        packed : Packed
            The batch.
        attention : Attention
            For this batch and these wanted tokens.
        wanted : Tensor of int64, optional
            Tokens whose states are asked for, ascending; None for all.
        upcast : bool
            Whether to compute in float32 whatever the weights are stored in, one layer at a time.
        entering : Tensor of shape (n_tokens, hidden_size), optional
            Hidden states that enter the first layer; by default the tokens' embeddings.
        checkpointing : bool
            Whether to compute a layer once more for its gradients instead of keeping what they are made of.
        """
        layers = list(self.backbone.layers)[: self.backbone.config.num_hidden_layers]
        hidden = self.backbone.embed_tokens(packed.tokens) if entering is None else entering
        number_format = torch.float32 if upcast else hidden.dtype
        if upcast or self._adds_in_float32:
            hidden = hidden.float()
        ropes: dict[str, tuple[Tensor, Tensor]] = {}
        for number, layer in enumerate(layers):
            kind = self._kind(number)
            if kind not in ropes:
                ropes[kind] = self._rotary(hidden.to(number_format), packed.positions, kind)
            last = wanted is not None and number == len(layers) - 1
            run = in_float32(layer) if upcast else layer
            arguments = (run, hidden, ropes[kind], attention, wanted if last else None, number_format)
            hidden = (
                checkpoint(_run_layer, *arguments, use_reentrant=False) if checkpointing else _run_layer(*arguments)
            )
        norm = in_float32(self.backbone.norm) if upcast else self.backbone.norm
        result: Tensor = norm(hidden)
        return result

    def _kind(self, number: int) -> str:
        kinds = getattr(self.backbone.config, "layer_types", None)
        return kinds[number] if kinds and self._ropes_by_layer else "all"

    def _rotary(self, hidden: Tensor, positions: Tensor, kind: str) -> tuple[Tensor, Tensor]:
        """Return cosines and sines of shape (n_tokens, 1, head_size)."""
        arguments = (hidden[None], positions[None], *([kind] if self._ropes_by_layer else []))
        cos, sin = self.backbone.rotary_emb(*arguments)
        return cos[0, :, None], sin[0, :, None]


def _run_layer(
    layer: Any,
    hidden: Tensor,
    rotary: tuple[Tensor, Tensor],
    attention: Attention,
    wanted: Tensor | None,
    number_format: torch.dtype,
) -> Tensor:
    """Return what leaves a layer. The feed-forward part takes most memory: nothing of the attention lives then."""
    normed = layer.input_layernorm(hidden).to(number_format)
    output = _attend(layer.self_attn, normed, rotary, attention, wanted)
    if wanted is not None:
        hidden = hidden[wanted]
    sandwiched = hasattr(layer, "pre_feedforward_layernorm")  # Gemma 2 and 3 norm what comes out, too
    hidden = hidden + (layer.post_attention_layernorm(output) if sandwiched else output)
    del normed, output
    before = layer.pre_feedforward_layernorm if sandwiched else layer.post_attention_layernorm
    fed = _feed_forward(layer.mlp, before(hidden).to(number_format))
    result: Tensor = hidden + (layer.post_feedforward_layernorm(fed) if sandwiched else fed)
    return result


def _attend(
    part: Any, normed: Tensor, rotary: tuple[Tensor, Tensor], attention: Attention, wanted: Tensor | None
) -> Tensor:
    """Return the attention part's output, for all tokens or the wanted ones."""
    key, value = _heads(part.k_proj(normed), part), _heads(part.v_proj(normed), part)
    cos, sin = rotary
    query = _heads(part.q_proj(normed if wanted is None else normed[wanted]), part)
    if hasattr(part, "q_norm"):
        query, key = part.q_norm(query), part.k_norm(key)
    query = rotate(query, cos, sin) if wanted is None else rotate(query, cos[wanted], sin[wanted])
    mixed = attention(query, rotate(key, cos, sin), value, attention_rule(part), wanted is not None)
    output: Tensor = part.o_proj(mixed.flatten(1))
    return output


def _heads(projected: Tensor, part: Any) -> Tensor:
    return projected.view(len(projected), -1, part.head_dim)


def attention_rule(part: Any) -> AttentionRule:
    """Return what a layer's attention does with its scores."""
    window = getattr(part, "sliding_window", None)
    if part.config.model_type == "mistral":
        window = part.config.sliding_window
    return AttentionRule(part.scaling, getattr(part, "attn_logit_softcapping", None), window)


def _feed_forward(mlp: Any, normed: Tensor) -> Tensor:
    activate: Callable[[Tensor], Tensor] = mlp.act_fn
    result: Tensor = mlp.down_proj(activate(mlp.gate_proj(normed)).mul_(mlp.up_proj(normed)))
    return result


def rotate(heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn queries or keys by their positions: Su et al., RoFormer, 2021, with halves as in transformers.

    Parameters
    ----------
    heads : Tensor of shape (n_tokens, n_heads, head_size)
        Queries or keys.
    cos, sin : Tensor of shape (n_tokens, 1, head_size)
        Both halves alike.
    """
    half = heads.shape[-1] // 2
    turned = heads * cos
    turned[..., :half].addcmul_(heads[..., half:], sin[..., :half], value=-1)
    turned[..., half:].addcmul_(heads[..., :half], sin[..., half:])
    return turned


def in_float32(module: nn.Module) -> nn.Module:
    """Return a copy of a layer that computes in float32; 4-bit weights stay 4-bit and are unpacked to float32."""
    result = copy.deepcopy(module)
    for part in result.modules():
        if hasattr(part, "compute_dtype"):
            setattr(part, "compute_dtype", torch.float32)  # noqa: B010 - mypy takes it for a tensor
        for tensor in [*part.parameters(recurse=False), *part.buffers(recurse=False)]:
            if tensor.is_floating_point():
                tensor.data = tensor.data.float()
    return result
