"""Packed batches: sequences one behind the other, without padding, with beginnings that they share kept once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lmsys_ensemble.encoding.prefixes import Family


@dataclass(frozen=True)
class Span:
    """Consecutive tokens of a packed batch that see each other and, where there is one, the prefix before them.

    Parameters
    ----------
    start, stop : int
        The tokens, as in a slice.
    prefix : tuple of int
        Start and stop of tokens that come before them in their sequences; of length 0 where there are none.
    """

    start: int
    stop: int
    prefix: tuple[int, int] = (0, 0)

    @property
    def n_before(self) -> int:
        """Number of tokens of the prefix."""
        return self.prefix[1] - self.prefix[0]

    @property
    def where(self) -> NDArray[np.intp]:
        """Positions of a whole sequence in the batch: its prefix and its own tokens."""
        return np.concatenate([np.arange(*self.prefix), np.arange(self.start, self.stop)])


@dataclass(frozen=True)
class Packed:
    """A batch without padding.

    Parameters
    ----------
    tokens : Tensor of shape (n_tokens,), int64
        All tokens.
    positions : Tensor of shape (n_tokens,), int64
        Place of every token in its own sequence.
    prefixes : list of Span
        Shared beginnings.
    rows : list of Span
        One span per row, in the order the rows were given.
    """

    tokens: Tensor
    positions: Tensor
    prefixes: list[Span]
    rows: list[Span]

    @property
    def spans(self) -> list[Span]:
        """All spans; together they are all tokens."""
        return [*self.prefixes, *self.rows]


def pack(ids: Sequence[NDArray[np.int32]], families: Sequence[Family], device: str | torch.device) -> Packed:
    """Pack the rows of `families` (positions in `ids`), every one of which must occur once."""
    tokens: list[NDArray[np.int32]] = []
    positions: list[NDArray[np.intp]] = []
    prefixes, rows = [], {}
    end = 0

    def append(part: NDArray[np.int32], n_before: int) -> tuple[int, int]:
        nonlocal end
        tokens.append(part)
        positions.append(np.arange(n_before, n_before + len(part)))
        start, end = end, end + len(part)
        return start, end

    for family in families:
        n_shared, shared = family.n_shared, (0, 0)
        if n_shared:
            shared = append(ids[family.rows[0]][:n_shared], 0)
            prefixes.append(Span(*shared))
        for row in family.rows:
            rows[row] = Span(*append(ids[row][n_shared:], n_shared), shared)
    return Packed(
        to_device(np.concatenate(tokens).astype(np.int64), device),
        to_device(np.concatenate(positions), device),
        prefixes,
        [rows[row] for row in sorted(rows)],
    )


def to_device(values: NDArray[Any], device: str | torch.device) -> Tensor:
    """Copy an array to a device; to a GPU from pinned memory, so that the host does not wait for the copy."""
    tensor = torch.from_numpy(values)
    if torch.device(device).type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
