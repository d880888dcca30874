"""TF-IDF vectors of responses, brought down to a few components.

Term weights are ``(1 + log(count)) * idf`` with ``idf = log((1 + n) / (1 + df)) + 1``, rows of length 1, as in
scikit-learn's ``TfidfTransformer(sublinear_tf=True)``. Components are those of a truncated singular value
decomposition (latent semantic analysis; Deerwester et al. 1990, JASIS 41).
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, vstack
from sklearn.utils.extmath import randomized_svd

from lmsys_ensemble.data.battles import Battles
from lmsys_ensemble.lexical.features import Features, Text, Texts, compare, component_names, read_in_chunks

Array: TypeAlias = NDArray[np.float64]

MIN_TEXTS = 5
"""Responses that a term must occur in."""


@dataclass(frozen=True, eq=False)
class Tfidf:
    """A vocabulary and the directions that its vectors are projected on.

    Attributes
    ----------
    terms : tuple of str
        The vocabulary.
    idf : ndarray of shape (n_terms,)
        Weight per term.
    components : ndarray of shape (n_components, n_terms)
        Orthonormal directions.
    """

    terms: tuple[str, ...]
    idf: Array
    components: Array

    def project(self, texts: Sequence[Text]) -> Array:
        """Return the components of texts, of shape (n_texts, n_components)."""
        return np.asarray(_weigh(_count(texts, self.terms), self.idf) @ self.components.T)

    def describe(self, texts: Texts) -> Features:
        """Return the components of the responses as features of battles."""
        return compare(self.project(texts[1]), self.project(texts[2]), component_names(len(self.components)))

    def explain(self, component: int, n_terms: int = 6) -> str:
        """Return the terms that weigh most in a component, counted from 0."""
        weights = self.components[component]
        return " ".join(self.terms[position] for position in np.argsort(-np.abs(weights), kind="stable")[:n_terms])


NO_TFIDF = Tfidf((), np.empty(0), np.empty((0, 0)))
"""No vocabulary, no components."""


def fit_tfidf(battles: Battles, *, n_terms: int, n_components: int, seed: int = 0) -> Tfidf:
    """Learn a vocabulary and components from the responses of battles; labels have no say.

    Parameters
    ----------
    battles : Battles
        Rows to learn from.
    n_terms : int
        The most frequent terms that are kept, of those in at least `MIN_TEXTS` responses.
    n_components : int
        Components; fewer where there are fewer terms.
    seed : int
        Seed of the decomposition.
    """
    frequencies: Counter[str] = Counter()
    for _, a, b in read_in_chunks(battles):
        for text in (*a, *b):
            frequencies.update(text.words.keys())
    frequent = sorted((-count, term) for term, count in frequencies.items() if count >= MIN_TEXTS)[:n_terms]
    terms = tuple(sorted(term for _, term in frequent))
    n_components = min(n_components, len(terms) - 1, 2 * len(battles) - 1)
    if n_components < 1:
        return NO_TFIDF
    document_counts = np.array([frequencies[term] for term in terms], dtype=np.float64)
    idf = np.log((1 + 2 * len(battles)) / (1 + document_counts)) + 1
    counts = vstack([_count([*a, *b], terms) for _, a, b in read_in_chunks(battles)])
    components = randomized_svd(_weigh(counts, idf), n_components, n_iter=7, random_state=seed)[2]
    return Tfidf(terms, idf, components)


def _count(texts: Sequence[Text], terms: Sequence[str]) -> Any:
    """Return the logarithmic counts of terms, a sparse matrix of shape (n_texts, n_terms)."""
    positions = {term: position for position, term in enumerate(terms)}
    columns: list[int] = []
    counts: list[int] = []
    ends = [0]
    for text in texts:
        for term in text.words.keys() & positions.keys():
            columns.append(positions[term])
            counts.append(text.words[term])
        ends.append(len(columns))
    values = 1 + np.log(np.array(counts, dtype=np.float64))
    matrix = csr_matrix((values, np.array(columns, dtype=np.int64), np.array(ends)), shape=(len(texts), len(terms)))
    matrix.sort_indices()  # sets have no order, sums of floats do
    return matrix


def _weigh(matrix: Any, idf: Array) -> Any:
    """Weigh terms and bring rows to length 1; rows without a term stay empty."""
    weighted = matrix.multiply(idf[None, :]).tocsr()
    lengths = np.sqrt(np.asarray(weighted.multiply(weighted).sum(axis=1)).ravel())
    return csr_matrix(weighted.multiply(1 / np.where(lengths > 0, lengths, 1)[:, None]))
