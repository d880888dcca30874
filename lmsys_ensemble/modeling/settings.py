"""How a classifier computes: chosen by whoever runs it, whatever it was trained as. Known without PyTorch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ComputeSettings:
    """Device, number formats, kernels and batches; made by a scorer's constructor and passed on whole.

    Parameters
    ----------
    device, dtype, quantization, attn_implementation, merge, unpack, tokens_per_batch
        As for `lmsys_ensemble.ClassifierScorer`.
    """

    device: str = "auto"
    dtype: str = "auto"
    quantization: str = "none"
    attn_implementation: str = "auto"
    merge: bool | None = None
    unpack: bool | None = None
    tokens_per_batch: int | None = None
