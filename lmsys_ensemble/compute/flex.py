"""Causal attention over packed batches in one kernel: PyTorch's FlexAttention.

The path for GPUs from compute capability 8.0 on. Documents, shared prefixes and sliding windows are a block mask, so
that blocks of keys which no query of a block sees are skipped; soft-capping is a change of the scores.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask

from lmsys_ensemble.compute import kernels
from lmsys_ensemble.compute.attention import AttentionRule, SequenceAttention
from lmsys_ensemble.compute.block_mask import find_key_runs, make_block_mask
from lmsys_ensemble.compute.hardware import current_device
from lmsys_ensemble.compute.kernels import Kernel
from lmsys_ensemble.compute.packing import Packed


class FlexAttention:
    """Attention of a whole packed batch at once; see `lmsys_ensemble.compute.attention.Attention`.

    By sequence go the few queries of a trimmed layer, float32 on a GPU (the rescue of a row), and the kinds of kernel
    whose compilation has failed in this process, see `lmsys_ensemble.compute.kernels.Verdicts`.

    Parameters
    ----------
    packed : Packed
        The batch.
    wanted : ndarray of int, optional
        Tokens whose output the last layer is asked for, ascending.
    run : callable, optional
        FlexAttention; by default compiled.
    """

    def __init__(self, packed: Packed, wanted: NDArray[np.intp] | None = None, run: Callable[..., Any] | None = None):
        self.run = run
        self.spans = packed.spans
        self.device = packed.tokens.device
        self.n_tokens = len(packed.tokens)
        self.size = kernels.rounded_up(self.n_tokens)
        self.by_sequence = SequenceAttention(packed, wanted)
        self._masks: dict[int | None, BlockMask] = {}

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, rule: AttentionRule, trimmed: bool) -> Tensor:
        """Return the attention's output; see `Attention`."""
        kernel = Kernel(query.device, query.shape[-1], query.dtype, rule.softcap)
        if trimmed or not kernel.suits or kernels.VERDICTS.why_not(kernel, self.size):
            return self.by_sequence(query, key, value, rule, trimmed)
        try:
            return self._at_once(query, key, value, rule, kernel)
        except Exception as error:  # Triton's own errors have no base class that is there without Triton
            if not kernels.is_compilation_failure(error):
                raise
            kernels.VERDICTS.add(kernel, self.size, error)
        return self.by_sequence(query, key, value, rule, trimmed)

    def _at_once(self, query: Tensor, key: Tensor, value: Tensor, rule: AttentionRule, kernel: Kernel) -> Tensor:
        if rule.window not in self._masks:  # layers of one kind share it
            self._masks[rule.window] = make_block_mask(find_key_runs(self.spans, self.size, rule.window), self.device)
        asked, keys, values = (
            F.pad(part, (0, 0, 0, 0, 0, self.size - self.n_tokens)).transpose(0, 1).unsqueeze(0)
            for part in (query, key, value)
        )
        run = self.run or kernels.compiled_attention(kernel)
        with current_device(self.device):  # the compiler chooses a kernel's tiles by the current GPU
            output = run(
                asked,
                keys,
                values,
                score_mod=None if rule.softcap is None else kernels.soft_cap(rule.softcap),
                block_mask=self._masks[rule.window],
                scale=rule.scale,
                enable_gqa=query.shape[1] != key.shape[1],
                kernel_options=kernels.kernel_options(kernel),
            )
        result: Tensor = output[0].transpose(0, 1)[: self.n_tokens]
        return result
