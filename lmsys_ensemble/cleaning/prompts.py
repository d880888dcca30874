"""Which rows share a prompt: equal after normalisation, or nearly so.

Two prompts are nearly identical where the Jaccard similarity of their word pairs reaches a threshold. All such pairs
are found, none by chance: in two sets that similar, the rarest pairs of words of one must meet those of the other
(prefix filtering; Bayardo, Ma and Srikant, "Scaling up all pairs similarity search", WWW 2007).
"""

import hashlib
import math
from collections import defaultdict
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from lmsys_ensemble.cleaning.normalization import words

_ROUNDING = 1e-9  # 0.55 x 20 is 11.000000000000002


class Clusters:
    """Disjoint sets of the numbers 0 to ``n - 1``; the smallest number of a set stands for it."""

    def __init__(self, n: int):
        self._parents = list(range(n))

    def find(self, number: int) -> int:
        """Return the smallest number of the set that `number` is in."""
        root = number
        while self._parents[root] != root:
            root = self._parents[root]
        while self._parents[number] != root:
            self._parents[number], number = root, self._parents[number]
        return root

    def join(self, one: int, other: int) -> None:
        """Make one set of two."""
        one, other = self.find(one), self.find(other)
        self._parents[max(one, other)] = min(one, other)

    def join_equal(self, values: Sequence[Hashable]) -> None:
        """Join all numbers whose values are equal; None is equal to nothing."""
        first: dict[Hashable, int] = {}
        for number, value in enumerate(values):
            if value is not None:
                self.join(first.setdefault(value, number), number)

    def codes(self) -> NDArray[np.intp]:
        """Return the sets' numbers 0, 1, ... in the order of their smallest members, of shape (n,)."""
        roots = [self.find(number) for number in range(len(self._parents))]
        result: NDArray[np.intp] = np.unique(np.array(roots, dtype=np.intp), return_inverse=True)[1]
        return result


def join_similar(clusters: Clusters, normalised: Sequence[str], threshold: float) -> None:
    """Join texts that are equal, and those whose word pairs have a Jaccard similarity of at least `threshold`.

    Parameters
    ----------
    clusters : Clusters
        Of as many numbers as there are texts; changed in place.
    normalised : sequence of str
        Texts from `normalise`.
    threshold : float
        Above 0; at 1 only texts with the same set of word pairs are joined.
    """
    clusters.join_equal(normalised)
    threshold -= _ROUNDING
    first = {text: number for number, text in reversed(list(enumerate(normalised)))}
    members = sorted(first.values())
    sets = _ranked(_pair_hashes([normalised[number] for number in members]))
    order = sorted(range(len(members)), key=lambda position: (len(sets[position]), position))
    meeting: defaultdict[int, list[int]] = defaultdict(list)
    for position in order:  # short sets first: those met are never longer
        pairs = sets[position]
        tried: set[int] = set()
        for rank in pairs[: len(pairs) - math.ceil(threshold * len(pairs)) + 1].tolist():
            for other in meeting[rank]:
                if other in tried or len(sets[other]) < threshold * len(pairs):
                    continue
                tried.add(other)
                one, two = members[position], members[other]
                if clusters.find(one) != clusters.find(two) and _jaccard(pairs, sets[other]) >= threshold:
                    clusters.join(one, two)
            meeting[rank].append(position)


def _pair_hashes(texts: Sequence[str]) -> list[NDArray[np.uint64]]:
    """Return a hash of every pair of neighbouring words (of the word, where there is one), each once, sorted."""
    known: dict[str, int] = {}
    hashed = []
    for text in texts:
        numbers = np.array([_word_hash(word, known) for word in words(text)], dtype=np.uint64)
        if len(numbers) > 1:
            numbers = numbers[:-1] * np.uint64(0x9E3779B97F4A7C15) ^ numbers[1:]
        hashed.append(np.unique(numbers))
    return hashed


def _word_hash(word: str, known: dict[str, int]) -> int:
    if word not in known:
        known[word] = int.from_bytes(hashlib.blake2b(word.encode(errors="surrogatepass"), digest_size=8).digest())
    return known[word]


def _ranked(sets: Sequence[NDArray[np.uint64]]) -> list[NDArray[np.intp]]:
    """Replace members of sets by their ranks, the rarest of all sets first; sorted by rank."""
    if not sets:
        return []
    _, codes, counts = np.unique(np.concatenate(sets), return_inverse=True, return_counts=True)
    ranks = np.empty(len(counts), dtype=np.intp)
    ranks[np.argsort(counts, kind="stable")] = np.arange(len(counts))
    ends = np.cumsum([len(members) for members in sets])[:-1]
    return [np.sort(part) for part in np.split(ranks[codes], ends)]


def _jaccard(one: NDArray[np.intp], other: NDArray[np.intp]) -> float:
    shared = len(np.intersect1d(one, other, assume_unique=True))
    return shared / (len(one) + len(other) - shared)
