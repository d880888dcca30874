"""Rounding of weights to 8 or 4 bits in the format of compressed-tensors, which serving engines read as it is.

llmcompressor 0.14 and GPTQModel 7.7 would do this; what they pin (transformers below 5.18 and compressed-tensors 0.19;
torch 2.14 or later) cannot be installed beside this library. The format's own package can. Rounding to the nearest
value with scales of least squared error needs no data. 8 bits lose next to nothing so; 4 bits lose less with
calibration rows (see `lmsys_ensemble.merging.calibration`).
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal

import torch
from torch import Tensor

from lmsys_ensemble.errors import ConfigError, MissingDependencyError

Compression = Literal["none", "int8", "w4a16"]
COMPRESSIONS: tuple[str, ...] = ("none", "int8", "w4a16")
BITS = {"int8": 8, "w4a16": 4}

GROUP_SIZES = (128, 64, 32)
"""Weights that share a scale, with 4 bits: what kernels of serving engines take, the largest that fits."""

_SHRINKAGES = tuple(1 - 0.02 * step for step in range(21))
"""Shares of the largest weight that are tried as the largest value: cutting off a few large weights gives the others
finer steps."""

FORMAT = "pack-quantized"


@dataclass(frozen=True)
class Scheme:
    """How weights are rounded: ``bits``, and the weights of a row that share a scale (None: all of them)."""

    bits: int
    group_size: int | None


def check_compression(compression: str) -> None:
    """Raise an error if weights cannot be rounded as asked.

    Raises
    ------
    ConfigError
        If the name is unknown.
    MissingDependencyError
        If the package is not installed.
    """
    if compression not in COMPRESSIONS:
        raise ConfigError(f"unknown quantization {compression!r}; known: {', '.join(COMPRESSIONS)}")
    if compression != "none" and find_spec("compressed_tensors") is None:
        raise MissingDependencyError(
            f"quantization={compression!r} needs compressed-tensors, which is not installed: pip install "
            "'lmsys-ensemble[quantized]'"
        )


def choose_scheme(compression: str, widths: Iterable[int]) -> Scheme | None:
    """Return how weights of rows of these widths are rounded; None where they are not.

    Raises
    ------
    ConfigError
        If no group size divides all widths.
    """
    if compression == "none":
        return None
    if compression == "int8":
        return Scheme(8, None)
    different = sorted(set(widths))
    for size in GROUP_SIZES:
        if all(width % size == 0 for width in different):
            return Scheme(4, size)
    raise ConfigError(
        f"w4a16 rounds groups of {GROUP_SIZES[-1]} weights or more, which do not divide widths of {different}; "
        "use quantization='int8'"
    )


@torch.no_grad()
def fit_scales(weight: Tensor, scheme: Scheme, importance: Tensor | None = None) -> Tensor:
    """Return the scales whose rounded weights have the least squared error.

    Parameters
    ----------
    weight : Tensor of shape (n_out, n_in), float32
        What is rounded, symmetrically around zero.
    scheme : Scheme
        Bits and groups.
    importance : Tensor of shape (n_in,), optional
        What the squared errors of a column count; by default all count alike.

    Returns
    -------
    Tensor of shape (n_out, n_groups)
    """
    groups = weight.reshape(len(weight), -1, scheme.group_size or weight.shape[1])
    largest = groups.abs().amax(dim=2, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
    lowest, highest = -(2 ** (scheme.bits - 1)), 2 ** (scheme.bits - 1) - 1
    counts = None if importance is None else importance.reshape(groups.shape[1:])
    best_scale, best_error = largest, torch.full_like(largest, torch.inf)
    for share in _SHRINKAGES if scheme.bits < 8 else (1.0,):
        scale = largest * (share / (highest + 0.5))
        squared = ((groups / scale).round_().clamp_(lowest, highest).mul_(scale) - groups).square_()
        error = (squared if counts is None else squared.mul_(counts)).sum(2, keepdim=True)
        better = error < best_error
        best_scale, best_error = torch.where(better, scale, best_scale), torch.where(better, error, best_error)
    return best_scale[:, :, 0]


def compress(
    name: str, weight: Tensor, scheme: Scheme, dtype: torch.dtype, scales: Tensor | None = None
) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors that a linear layer's weight is stored as, by name.

    Parameters
    ----------
    name : str
        The layer's.
    weight : Tensor of shape (n_out, n_in), float32
        What is stored.
    scheme : Scheme
        Bits and groups.
    dtype : torch.dtype
        Number format of the scales, which weights are computed in when they are unpacked.
    scales : Tensor of shape (n_out, n_groups), optional
        Numbers of `dtype`; by default those of `fit_scales`.
    """
    from compressed_tensors.compressors.base import BaseCompressor

    scale = fit_scales(weight, scheme).to(dtype).float() if scales is None else scales
    values = {"weight": weight, "weight_scale": scale, "weight_zero_point": torch.zeros_like(scale, dtype=torch.int8)}
    packed = BaseCompressor.get_value_from_registry(FORMAT).compress(values, _package_scheme(scheme))
    for part, tensor in packed.items():
        yield f"{name}.{part}", tensor.to(dtype) if part == "weight_scale" else tensor


def compression_config(scheme: Scheme, ignored: Sequence[str]) -> dict[str, Any]:
    """Return what ``config.json`` says of rounded weights; layers called one of `ignored` are stored as they are."""
    import compressed_tensors
    from compressed_tensors.quantization import QuantizationConfig, QuantizationStatus

    package_scheme = _package_scheme(scheme)
    config = QuantizationConfig(
        config_groups={"group_0": package_scheme},
        format=FORMAT,
        quantization_status=QuantizationStatus.COMPRESSED,
        ignore=list(ignored),
    )
    values: dict[str, Any] = config.model_dump(mode="json")
    return {**values, "version": compressed_tensors.__version__}


def _package_scheme(scheme: Scheme) -> Any:
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme

    grouped = {"strategy": "group", "group_size": scheme.group_size} if scheme.group_size else {"strategy": "channel"}
    weights = QuantizationArgs(num_bits=scheme.bits, type="int", symmetric=True, dynamic=False, **grouped)
    return QuantizationScheme(targets=["Linear"], weights=weights, format=FORMAT)
