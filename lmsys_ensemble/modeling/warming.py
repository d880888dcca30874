"""Compiling kernels before they are needed: in loading, where it disturbs no measured speed."""

import logging

import numpy as np
import torch
from torch import Tensor

from lmsys_ensemble.compute.attention import AttentionRule, SequenceAttention
from lmsys_ensemble.compute.decoder import attention_rule
from lmsys_ensemble.compute.hardware import current_device, free_memory
from lmsys_ensemble.compute.kernels import rounded_up
from lmsys_ensemble.compute.packing import pack
from lmsys_ensemble.encoding.prefixes import Family
from lmsys_ensemble.memory import is_out_of_memory
from lmsys_ensemble.modeling.forward import ForwardPass

logger = logging.getLogger(__name__)


def common_sizes(tokens_per_batch: int) -> list[int]:
    """Return the sizes of kernels that most batches need, ascending.

    Full batches, what is left over at the end of a chunk, and the few short rows by which a speed is found out.
    """
    return sorted({rounded_up(1), rounded_up(max(tokens_per_batch // 2, 1)), rounded_up(tokens_per_batch)})


@torch.inference_mode()
def warm_up(forward: ForwardPass, tokens_per_batch: int | None = None) -> list[int]:
    """Compile the attention kernels of the common sizes; nothing where attention is not compiled.

    Parameters
    ----------
    forward : ForwardPass
        With its model on the device.
    tokens_per_batch : int, optional
        Token budget of a batch; by default the one that the forward pass has found.

    Returns
    -------
    list of int
        Sizes that are compiled now.
    """
    if forward.decoder is None or forward.attention is SequenceAttention:
        return []
    parts = [layer.self_attn for layer in forward.decoder.backbone.layers]
    rules = {attention_rule(part): part for part in parts}
    sizes = common_sizes(tokens_per_batch or forward.tokens_per_batch)
    for number, size in enumerate(sizes):
        try:
            with current_device(forward.device):
                for rule, part in rules.items():
                    _attend_once(forward, part.config, part.head_dim, rule, size)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            free_memory(str(forward.device))
            return sizes[:number]
    logger.info("compiled attention for batches of %s tokens", ", ".join(f"{size:,}" for size in sizes))
    return sizes


def _attend_once(forward: ForwardPass, config: object, head_size: int, rule: AttentionRule, size: int) -> None:
    """Run the attention of a batch that is one row of `size` tokens."""
    n_heads: int = getattr(config, "num_attention_heads")  # noqa: B009 - configurations have no type
    n_key_heads: int = getattr(config, "num_key_value_heads", None) or n_heads
    packed = pack([np.zeros(size, dtype=np.int32)], [Family((0,), 0)], forward.device)

    def zeros(heads: int) -> Tensor:
        return torch.zeros(size, heads, head_size, dtype=forward.model.dtype, device=forward.device)

    attend = forward.attention(packed, np.empty(0, dtype=np.intp))
    attend(zeros(n_heads), zeros(n_key_heads), zeros(n_key_heads), rule, False)
