"""How a classifier computes: chosen by whoever runs it, whatever it was trained as. Known without PyTorch."""

from dataclasses import dataclass, fields
from typing import Any, Self


@dataclass(frozen=True)
class ComputeSettings:
    """Device, number formats, kernels and batches; passed on whole.

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

    @classmethod
    def of(cls, scorer: Any) -> Self:
        """Return the settings that a scorer has as attributes."""
        return cls(**{field.name: getattr(scorer, field.name) for field in fields(cls)})
