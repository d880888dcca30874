"""A fitted lexical model: from battles to logits, the same for swapped responses by construction."""

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lmsys_ensemble.data.battles import Battles
from lmsys_ensemble.evaluation.folds import group_codes, make_folds
from lmsys_ensemble.lexical.boosting import ROUNDS, choose_rounds, fit_trees, gains, has_lightgbm, raw_logits
from lmsys_ensemble.lexical.features import Features, Texts, describe, feature_names, join, read_in_chunks, stack
from lmsys_ensemble.lexical.logistic import PENALTIES, Logistic, choose_penalty, fit_logistic, shares_of
from lmsys_ensemble.lexical.settings import LexicalSettings
from lmsys_ensemble.lexical.tfidf import NO_TFIDF, Tfidf, fit_tfidf
from lmsys_ensemble.probabilities import Logits, Probabilities

Array: TypeAlias = NDArray[np.float64]

N_INNER_FOLDS = 3
"""Folds by group, of the rows learned from, that penalty and rounds are chosen on."""


@dataclass(frozen=True, eq=False)
class LexicalModel:
    """Features, and a regression on them, alone or averaged with boosted trees in log space.

    Attributes
    ----------
    tfidf : Tfidf
        What words are made of them; without terms where none are used.
    regression : Logistic
        The regression.
    trees : Booster or None
        LightGBM's trees.
    n_classes : int
        3 (A, B, tie) or 2 (A, B).
    chosen : dict
        ``penalty`` and, where there are trees, ``rounds``, as chosen on inner folds.
    shares : ndarray of shape (n_features,)
        What each feature counts; they sum to 1. Differences come first, then what is shared.
    directions : ndarray of shape (n_features,)
        Correlation, on the rows learned from, of a difference with the logit of A less that of B, and of what is shared
        with the logit of the tie.
    """

    tfidf: Tfidf
    regression: Logistic
    trees: Any
    n_classes: int
    chosen: dict[str, float]
    shares: Array
    directions: Array

    def features(self, texts: Texts) -> Features:
        """Return what the model sees of some battles."""
        counted = describe(texts)
        return join([counted, self.tfidf.describe(texts)]) if self.tfidf.terms else counted

    def logits(self, texts: Texts) -> Logits:
        """Return float32 logits of shape (n_rows, n_classes); swapped responses swap the first two exactly."""
        return _logits_of(self.regression, self.trees, self.features(texts), self.n_classes).astype(np.float32)

    def logits_in_chunks(self, battles: Battles) -> Logits:
        """Return what `logits` does, for battles of any number."""
        none = np.empty((0, self.n_classes), dtype=np.float32)
        return np.concatenate([none, *(self.logits(texts) for texts in read_in_chunks(battles))])

    def importances(self) -> pd.DataFrame:
        """Return the features with what they count, the heaviest first.

        Returns
        -------
        DataFrame
            Columns: feature; share (of the regression's absolute weights, averaged with that of what trees gained);
            direction (see `directions`); speaks_for (what more of the feature goes with: ``its response``, ``the other
            response``, ``a tie``, ``no tie``); words (the heaviest of a component).
        """
        differences, shared = feature_names(len(self.tfidf.components))
        words = [self.tfidf.explain(component) for component in range(len(self.tfidf.components))]
        table = pd.DataFrame({"feature": differences + shared, "share": self.shares, "direction": self.directions})
        sides = [("its response", "the other response")] * len(differences) + [("a tie", "no tie")] * len(shared)
        table["speaks_for"] = [
            ("", *side)[int(np.sign(direction))] for side, direction in zip(sides, self.directions, strict=True)
        ]
        table["words"] = [
            words[int(name.rsplit(" ", 1)[1]) - 1] if "component " in name else "" for name in table["feature"]
        ]
        return table.sort_values("share", ascending=False, kind="stable", ignore_index=True)


def count_features(battles: Battles) -> Features:
    """Return what is counted in battles; it is the same whatever is learned, and can be computed once."""
    return stack([describe(texts) for texts in read_in_chunks(battles)])


def fit_model(
    battles: Battles,
    labels: Probabilities,
    groups: NDArray[np.object_],
    settings: LexicalSettings,
    counted: Features | None = None,
) -> LexicalModel:
    """Fit a lexical model.

    Parameters
    ----------
    battles : Battles
        Rows to learn from.
    labels : ndarray of shape (n_rows, n_classes)
        One-hot or soft; a soft label is a row per class with its share as weight.
    groups : ndarray of shape (n_rows,)
        Rows of one group (a prompt) are on one side when penalty and rounds are chosen.
    settings : LexicalSettings
        What is fitted.
    counted : Features, optional
        `count_features` of the same battles.

    Raises
    ------
    MissingDependencyError
        If trees are asked for and lightgbm is not installed.
    """
    features = count_features(battles) if counted is None else counted
    tfidf = NO_TFIDF
    if settings.components and settings.terms:
        tfidf = fit_tfidf(battles, n_terms=settings.terms, n_components=settings.components, seed=settings.seed)
    if tfidf.terms:
        features = join([features, stack([tfidf.describe(texts) for texts in read_in_chunks(battles)])])
    folds, weights, n_classes = _inner_folds(groups, settings.seed), np.ones(len(labels)), labels.shape[1]
    penalty = PENALTIES[-1]
    if folds is not None:
        penalty = choose_penalty(features, labels, weights, folds, settings.seed)
    regression, trees = fit_logistic(features, labels, weights, penalty), None
    shares, chosen = shares_of(regression), {"penalty": penalty}
    if settings.model == "boosted" or (settings.model == "auto" and has_lightgbm()):
        rounds = ROUNDS[0] if folds is None else choose_rounds(features, labels, weights, folds, settings.seed)
        trees = fit_trees(features, labels, weights, rounds, seed=settings.seed)
        shares, chosen = (shares + gains(trees)) / 2, {**chosen, "rounds": rounds}
    directions = _directions(features, _logits_of(regression, trees, features, n_classes))
    return LexicalModel(tfidf, regression, trees, n_classes, chosen, shares, directions)


def _logits_of(regression: Logistic, trees: Any, features: Features, n_classes: int) -> Array:
    logits = regression.logits(features)
    return logits if trees is None else (logits + raw_logits(trees, features, n_classes)) / 2


def _directions(features: Features, logits: Array) -> Array:
    """Correlate differences with the margin, and what is shared with the logit of the tie."""
    margin = logits[:, 0] - logits[:, 1]
    lengths = np.linalg.norm(features.differences, axis=0) * np.linalg.norm(margin)  # in both orders means are 0
    of_differences = features.differences.T @ margin / np.where(lengths > 0, lengths, 1)
    if logits.shape[1] == 2:
        return np.concatenate([of_differences, np.zeros(features.shared.shape[1])])
    tie = logits[:, 2] - logits[:, :2].mean(axis=1)
    centred, tie = features.shared - features.shared.mean(axis=0), tie - tie.mean()
    lengths = np.linalg.norm(centred, axis=0) * np.linalg.norm(tie)
    of_shared = centred.T @ tie / np.where(lengths > 1e-9, lengths, np.inf)
    return np.asarray(np.concatenate([of_differences, of_shared]))


def _inner_folds(groups: NDArray[np.object_], seed: int) -> NDArray[np.intp] | None:
    """Return the fold of every row; None where there are too few groups to divide."""
    codes = group_codes(groups, len(groups))
    n_groups = int(codes.max()) + 1 if len(codes) else 0
    return make_folds(groups, min(N_INNER_FOLDS, n_groups), seed) if n_groups > 1 else None
