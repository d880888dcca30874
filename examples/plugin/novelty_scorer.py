"""A scorer of a third party, whole: install this folder with pip, and files may say ``type: novelty``."""

import zlib
from collections.abc import Sequence

import numpy as np

from lmsys_ensemble import Scorer


class NoveltyScorer(Scorer):
    """Prefers the response that adds more to the prompt: bytes by which its compressed size grows.

    Parameters
    ----------
    steepness : float
        By how much the logit grows where the bytes double.
    tie : float
        Logit of a tie above the mean of the other two.
    name, device : str
        As for every scorer.
    """

    shareable = True

    def __init__(
        self, *, steepness: float = 0.5, tie: float = -0.5, name: str = "novelty", device: str = "cpu"
    ):  # only store: the contract reads the settings back
        self.steepness = steepness
        self.tie = tie
        self.name = name
        self.device = device

    def score(self, battles):
        """Return float32 logits of shape (n_rows, 3): A wins, B wins, tie."""
        logits = np.empty((len(battles), 3), dtype=np.float32)
        for row, battle in enumerate(battles):
            a = self.steepness * np.log2(1 + added_bytes(battle.prompt, battle.response_a))
            b = self.steepness * np.log2(1 + added_bytes(battle.prompt, battle.response_b))
            logits[row] = a, b, (a + b) / 2 + self.tie
            self.progress.advance(1, 0)  # raises where the run is being stopped
        return logits


def added_bytes(prompt: Sequence[str], response: Sequence[str]) -> int:
    """Return by how many bytes the compressed prompt grows when a response is appended."""
    before = "\n".join(prompt).encode()
    after = "\n".join([*prompt, *response]).encode()
    return max(len(zlib.compress(after)) - len(zlib.compress(before)), 0)
