"""How fast a device multiplies matrices: what arithmetic goes by where nothing is loaded to be timed."""

import time

import torch

from lmsys_ensemble.modeling.hardware import limit_threads

_ROWS, _SIZE = 512, 1024
_SECONDS = 0.2

EFFICIENCY = 0.5
"""Share of the speed of plain matrix products that a whole forward pass reaches."""


def forward_flops_per_s(device: str, dtype: torch.dtype, n_cores: int = 0) -> float:
    """Return the operations a second that a forward pass is likely to reach, after a fifth of a second of products.

    Parameters
    ----------
    device : str
        ``cpu``, ``cuda:0`` and so on.
    dtype : torch.dtype
        Of the arithmetic.
    n_cores : int
        Cores of the CPU that one slot has; 0 leaves that to torch.
    """
    if n_cores:
        limit_threads(n_cores)
    left = torch.ones(_ROWS, _SIZE, device=device, dtype=dtype)
    right = torch.ones(_SIZE, _SIZE, device=device, dtype=dtype)
    _finish(left @ right)
    n_products, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < _SECONDS or not n_products:
        _finish(left @ right)
        n_products += 1
    return EFFICIENCY * n_products * 2.0 * _ROWS * _SIZE * _SIZE / max(elapsed, 1e-9)


def _finish(product: torch.Tensor) -> None:
    """Wait until a device has computed a product."""
    float(product[0, 0])
