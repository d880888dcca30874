"""How fast a device multiplies matrices: the basis of estimates before a model is loaded."""

import time

import torch

from lmsys_ensemble.compute.hardware import limit_threads

_ROWS, _SIZE = 512, 1024
_SECONDS = 0.2

EFFICIENCY = 0.65
"""Share of the speed of plain matrix products that a whole forward pass reaches: 0.8 measured of a core that has the
memory to itself (benchmarks/README.md), less what the other cores take of it."""


def forward_flops_per_s(device: str, dtype: torch.dtype, n_cores: int = 0) -> float:
    """Return the operations a second that a forward pass is likely to reach, after a fifth of a second of products.

    The fastest product counts: what else happens to run in that moment says nothing of the hours to come.

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
    fastest, start = float("inf"), time.perf_counter()
    while (before := time.perf_counter()) - start < _SECONDS or fastest == float("inf"):
        _finish(left @ right)
        fastest = min(fastest, time.perf_counter() - before)
    return EFFICIENCY * 2.0 * _ROWS * _SIZE * _SIZE / max(fastest, 1e-9)


def _finish(product: torch.Tensor) -> None:
    """Wait until a device has computed a product."""
    float(product[0, 0])
