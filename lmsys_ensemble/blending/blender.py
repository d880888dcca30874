"""The blender: one prediction out of several scorers' probabilities, with scikit-learn's conventions."""

import copy
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from lmsys_ensemble.blending.blend import Blend
from lmsys_ensemble.blending.checks import as_fixed, check_members, check_sample_weight
from lmsys_ensemble.blending.classifier import BlendingClassifier
from lmsys_ensemble.blending.labels import count_labels, parse_class_labels
from lmsys_ensemble.blending.members import (
    MemberOrderWarning,
    MemberProbabilities,
    arrange_members,
    check_names,
    listed,
    order_of,
    split_members,
)
from lmsys_ensemble.blending.settings import BlenderNotFittedError, BlenderSettings
from lmsys_ensemble.blending.spec import Method
from lmsys_ensemble.blending.stored import StoredAsJson
from lmsys_ensemble.errors import ConfigError, InputError
from lmsys_ensemble.evaluation.folds import group_codes
from lmsys_ensemble.evaluation.metrics import row_log_losses
from lmsys_ensemble.notices import warn
from lmsys_ensemble.probabilities import Probabilities

__all__ = ["Blender", "BlenderNotFittedError", "MissingMemberWarning"]


class MissingMemberWarning(UserWarning):
    """A prediction was made without some of the scorers."""


class Blender(StoredAsJson, BlenderSettings, BlendingClassifier):
    """Blend the class probabilities of several scorers, calibrated where that helps.

    Parameters
    ----------
    method : {"equal", "greedy", "linear", "log", "stack", "auto"}
        How scorers are combined:

        - ``equal``: the average;
        - ``greedy``: an average with weights from greedy selection with replacement (Caruana et al. 2004);
        - ``linear``: an average with the best weights on the simplex;
        - ``log``: the logarithmic pool, one exponent per scorer (Genest & Zidek 1986);
        - ``stack``: multinomial regression on log probabilities, pulled towards the equal logarithmic pool;
        - ``auto``: the simplest of these that cross-fitting cannot tell from the best, and the equal average
          unless something is better beyond chance (see `lmsys_ensemble.blending.selection.select_spec`).
    calibration : str, optional
        "none", or joined by "+": "before" (a temperature per scorer before blending), "after" (one after),
        "bias" (class biases after). ``log`` and ``stack`` hold temperatures by themselves and take "none" or
        "bias" only. Default: "bias" for ``stack``, "none" for the others; ``auto`` chooses among all, or
        among the parts given here.
    weights : sequence of float of length n_scorers, optional
        Weights to use instead of fitted ones, scaled to sum to 1; with method ``log`` exponents, used as they
        are.
    temperature : float or sequence of float of length n_scorers, optional
        Temperature to use instead of a fitted one: a number is applied after the blend, a
        sequence (one per scorer) before it.
    swap_equivariant : bool
        Whether swapping the two responses in all inputs must swap them in the result. Concerns
        ``stack`` and class biases; everything else is so by nature.
    l2 : float
        Pull of exponents, matrices, inverse temperatures and biases towards the equal blend:
        ``l2 / 2 * ||change||**2`` beside the summed log loss, so that it fades as rows are added.
    n_folds, seed : int
        Folds of the cross-fitting of ``auto`` and their seed.
    classes : sequence, optional
        Names of the classes in the order of the probabilities' columns, where labels are names. Without it names
        belong to the columns in their sorted order, as in every scikit-learn classifier.

    Attributes
    ----------
    blend_ : Blend
        What was fitted, as one value.
    method_, calibration_ : str
        What is used; of interest after ``auto``.
    weights_ : ndarray of shape (n_scorers,)
        Weights or exponents; of a stack the mean exponents.
    temperatures_ : ndarray of shape (n_scorers,)
        Temperatures before blending, 1 where there are none.
    temperature_ : float
        Temperature after blending, 1 where there is none.
    bias_ : ndarray of shape (n_classes,)
        Class biases after blending, 0 where there are none.
    n_rows_, n_classes_ : int
        Sizes of what it was fitted on.
    classes_ : ndarray of shape (n_classes,)
        Names of the classes in the order of the columns, or 0, 1, ... where the labels had none.
    member_names_ : tuple of str or None
        What the members are called, in the order of ``weights_``; None where they were passed without names.
    fingerprints_ : dict
        What an `Ensemble` knew about its scorers when it fitted this, by name; empty elsewhere.
    log_loss_ : float
        Log loss on the rows it was fitted on, which is too good; `selection_` has out-of-fold ones.
    selection_ : DataFrame or None
        What ``auto`` compared and chose; see `lmsys_ensemble.blending.selection.select_spec`.

    Notes
    -----
    With fixed values only, or method ``equal`` without calibration, `predict_proba` works without `fit`.
    Everything is float64 and deterministic. Before a logarithm, probabilities are floored at 1e-15.

    Probabilities are passed as a mapping from names to arrays of shape (n_rows, n_classes), as a list of such
    arrays, or as one array of shape (n_rows, n_members, n_classes). A mapping is the safest: who was fitted by name
    is matched by name, in whatever order. The array is for scikit-learn's splitters and searches
    (``cross_val_score``, ``GridSearchCV``), which take rows of it; they compare by accuracy unless told
    ``scoring="neg_log_loss"``.

    Examples
    --------
    >>> blender = Blender(weights=[0.6, 0.4], temperature=1.0)
    >>> blender.predict_proba([[[0.5, 0.3, 0.2]], [[1.0, 0.0, 0.0]]]).round(2)
    array([[0.7 , 0.18, 0.12]])
    """

    def __init__(
        self,
        method: Method = "equal",
        calibration: str | None = None,
        *,
        weights: Sequence[float] | None = None,
        temperature: float | Sequence[float] | None = None,
        swap_equivariant: bool = False,
        l2: float = 1.0,
        n_folds: int = 5,
        seed: int = 0,
        classes: Sequence[Any] | None = None,
    ):
        self.method = method
        self.calibration = calibration
        self.weights = weights
        self.temperature = temperature
        self.swap_equivariant = swap_equivariant
        self.l2 = l2
        self.n_folds = n_folds
        self.seed = seed
        self.classes = classes

    def fit(
        self,
        probabilities: MemberProbabilities,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        groups: ArrayLike | None = None,
    ) -> "Blender":
        """Learn what is not fixed, on rows that the scorers were not trained on.

        Warns with `MemberWarning` about scorers that look misaligned or know nothing, and with
        `sklearn.exceptions.ConvergenceWarning` where a fit did not converge.

        Parameters
        ----------
        probabilities : mapping or list of array-like of shape (n_rows, n_classes), or array
            One per scorer, with names or without; or all in one array of shape (n_rows, n_members, n_classes).
        y : array-like of shape (n_rows,) or (n_rows, n_classes)
            Names of classes, class positions, or one-hot or soft labels.
        sample_weight : array-like of shape (n_rows,), optional
            Weights of the rows; 2 is the same as the row twice.
        groups : array-like of shape (n_rows,), optional
            Rows of one group stay together in the cross-fitting of ``auto`` and in its intervals.

        Returns
        -------
        Blender
            Itself.

        Raises
        ------
        InputError
            If probabilities, labels, weights or groups are wrong or do not match.
        ConfigError
            If the settings are wrong or contradict each other.
        """
        names, given = split_members(probabilities, n_rows=count_labels(y))
        members = check_members(given, names)
        n_rows, n_classes = members[0].shape
        if n_rows == 0:
            raise InputError("there are no rows to fit on")
        classes, labels = parse_class_labels(y, self.classes, n_classes=n_classes, n_rows=n_rows)
        weights = check_sample_weight(sample_weight, n_rows)
        codes = group_codes(groups, n_rows)
        if not (counts := weights > 0).all():  # a row of weight 0 is the same as no row
            members, labels = [member[counts] for member in members], labels[counts]
            weights, codes = weights[counts], group_codes(codes[counts], int(counts.sum()))
        spec, selection, blend = self._learn(members, labels, weights, codes)
        losses = row_log_losses(labels, blend.apply(members))
        self.member_names_, self.classes_ = names, classes
        self.fingerprints_: dict[str, Any] = {}
        self.method_, self.calibration_, self.selection_ = spec.method, spec.calibration, selection
        self.n_rows_, self.n_classes_ = len(labels), n_classes
        self.log_loss_ = float(np.average(losses, weights=weights))
        self._store(blend)
        return self

    def predict_proba(
        self, probabilities: MemberProbabilities, missing: Literal["error", "renormalise", "silent"] = "error"
    ) -> Probabilities:
        """Blend probabilities.

        Parameters
        ----------
        probabilities : mapping or list of array-like of shape (n_rows, n_classes), or array
            One per scorer. A mapping is matched by the names of `fit`. A list is in the order of `fit` or of the fixed
            weights, with None for a scorer that is missing; and so is the second axis of an array of shape
            (n_rows, n_members, n_classes).
        missing : {"error", "renormalise", "silent"}
            What to do without a scorer: refuse, or scale up the weights of the others to the same total,
            which is said by a `MissingMemberWarning`; ``silent`` does it without a word.

        Returns
        -------
        ndarray of shape (n_rows, n_classes)
            float64; every row sums to 1.

        Raises
        ------
        BlenderNotFittedError
            If the method has to be fitted first.
        InputError
            If arrays are misaligned, hold no probabilities, or their names or number are not those of the weights; or
            if a scorer is missing and that was not allowed, or nothing with a weight is left.
        ConfigError
            If the settings are wrong or contradict each other.
        """
        if missing not in ("error", "renormalise", "silent"):
            raise ConfigError(f"missing must be 'error', 'renormalise' or 'silent', got {missing!r}")
        known: tuple[str, ...] | None = getattr(self, "member_names_", None)
        names, given = arrange_members(probabilities, known, self._n_members())
        absent = [position for position, member in enumerate(given) if member is None]
        absentees = f"scorers {absent if names is None else listed(names[one] for one in absent)} of {len(given)}"
        if absent and missing == "error":
            raise InputError(f"{absentees} are missing; missing='renormalise' blends the others")
        there = [position for position, member in enumerate(given) if member is not None]
        members = check_members([given[one] for one in there], None if names is None else [names[one] for one in there])
        blend = self._current_blend(len(given))
        n_classes = getattr(self, "n_classes_", members[0].shape[1])
        if members[0].shape[1] != n_classes:
            raise InputError(f"probabilities have {members[0].shape[1]} classes, the blender was fitted on {n_classes}")
        if absent:
            blend = blend.without(absent)
        if absent and missing == "renormalise":
            warn(
                f"{absentees} are missing; the others are blended with weights {blend.weights.round(4).tolist()}",
                MissingMemberWarning,
            )
        return blend.apply(members)

    def in_order_of(self, names: Sequence[str]) -> "Blender":
        """Return a blender whose weights are in the order of these members: a copy, or itself where nothing changes.

        Parameters
        ----------
        names : sequence of str
            The members that will be passed, in that order.

        Raises
        ------
        ConfigError
            If it was fitted on members of other names.

        Warns
        -----
        MemberOrderWarning
            If it was fitted without names, so that the order has to be trusted.
        """
        given = check_names(names, ConfigError)
        known = getattr(self, "member_names_", None)
        if known is None:
            if hasattr(self, "blend_") and self.blend_.n_scorers == len(given) and not self.blend_.is_symmetric:
                warn(
                    "the blender does not know its members' names: its weights are taken to be in the order "
                    f"{listed(given)}. Fit it again on named members, and they are matched by name",
                    MemberOrderWarning,
                )
            return self
        order = order_of(known, given)
        if given == known:
            return self
        moved = copy.copy(self)
        for name in ("weights", "temperature"):
            if isinstance(fixed := as_fixed(getattr(self, name)), tuple):
                setattr(moved, name, [fixed[position] for position in order])
        moved.member_names_ = given
        moved._store(self.blend_.reordered(order))
        return moved

    def _store(self, blend: Blend) -> None:
        """Keep a fitted blend and show its parts."""
        self.blend_, self.weights_ = blend, blend.weights
        self.temperatures_, self.temperature_ = blend.temperatures, blend.temperature
        self.bias_ = np.zeros(self.n_classes_) if blend.bias is None else blend.bias
