"""What a blender did and why, in words for people who have never read its code."""

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from lmsys_ensemble.blending.blender import Blender
from lmsys_ensemble.blending.selection import MIN_GROUPS
from lmsys_ensemble.evaluation.intervals import Difference
from lmsys_ensemble.notices import collected_warnings
from lmsys_ensemble.probabilities import Probabilities

NEGLIGIBLE_SHARE = 0.005
"""Of the weights' total; a member with less than this is called unused."""

_METHODS = {
    "equal": "equal average",
    "greedy": "greedy average",
    "linear": "fitted average",
    "log": "logarithmic pool",
    "stack": "regression on log probabilities",
}
_CALIBRATIONS = {
    "before": "temperatures before",
    "after": "a temperature after",
    "bias": "class biases",
}
_WEIGHTS = {
    "linear": "Weights are shares of the average; they sum to 1.",
    "log": "Weights are exponents on the members' probabilities: 0 leaves a member out, and a total above 1 makes the "
    "blend more confident than its members, below 1 less.",
    "stack": "Weights are a member's mean exponent over the classes; the whole matrices are in the blender's file.",
}


def describe_method(method: str, calibration: str) -> str:
    """Name a method and its calibration in words.

    >>> describe_method("linear", "before+after+bias")
    'fitted average with temperatures before, a temperature after and class biases'
    """
    name, parts = _METHODS[method], [_CALIBRATIONS[part] for part in calibration.split("+") if part != "none"]
    if not parts:
        return name
    return f"{name} with {' and '.join([', '.join(parts[:-1]), parts[-1]] if parts[1:] else parts)}"


def describe_weights(blender: Blender) -> str:
    """Say what the weights of a blender mean."""
    pool = blender.blend_.pool if hasattr(blender, "blend_") else "log" if blender.method == "log" else "linear"
    return _WEIGHTS[pool]


def describe_difference(difference: Difference, precision: int = 4) -> str:
    """Say whether a log loss is lower than another's beyond chance.

    Examples
    --------
    >>> describe_difference(Difference(-0.0033, 0.001, -0.0054, -0.0013))
    '0.0033 lower (95 % interval: 0.0013 to 0.0054 lower), which is more than chance'
    """
    size = f"{abs(difference.mean):.{precision}f} {'lower' if difference.mean < 0 else 'higher'}"
    low, high = f"{difference.low:+.{precision}f}", f"{difference.high:+.{precision}f}"
    if difference.high < 0:
        return f"{size} (95 % interval: {high[1:]} to {low[1:]} lower), which is more than chance"
    if difference.low > 0:
        return f"{size} (95 % interval: {low[1:]} to {high[1:]} higher), which is more than chance"
    return f"{size} (95 % interval: {low} to {high}), which chance alone could do"


def explain_choice(blender: Blender, n_groups: int) -> str:
    """Say why a fitted blender uses the method it uses.

    Parameters
    ----------
    blender : Blender
        A fitted one; of interest with method ``auto``.
    n_groups : int
        Number of groups that it was fitted on.

    Returns
    -------
    str
        One or two sentences.
    """
    if blender.method != "auto":
        return f"The {describe_method(blender.method_, blender.calibration_)} was asked for, so nothing was chosen."
    table = blender.selection_
    if table is None:
        return "All rows are of one group, so that nothing can be compared: the equal average is kept."
    best = table.iloc[int(table["log_loss"].argmin())]
    chosen = table.iloc[int(table["selected"].argmax())]
    best_name = describe_method(best["method"], best["calibration"])
    name = describe_method(chosen["method"], chosen["calibration"])
    if chosen.name != 0:
        gain = describe_difference(Difference(chosen["difference"], 0.0, chosen["low"], chosen["high"]))
        start = (
            f"The {name} has an out-of-fold log loss of {chosen['log_loss']:.4f}. Against the equal average: {gain}."
        )
        if chosen.name == best.name:
            return f"{start} It is the lowest of all {len(table)} methods, and no simpler one is within its error."
        if chosen["gap"] > chosen["gap_error"]:
            return (
                f"{start} The lowest of all, the {best_name}, is {chosen['gap']:.4f} lower. But to choose by such "
                "figures is not certain to gain, which shows when the choice is repeated without each fold in turn; so "
                "the simplest method is taken whose own gain is more than chance."
            )
        return (
            f"{start} The lowest of all, the {best_name}, is only {chosen['gap']:.4f} lower, "
            f"within one standard error ({chosen['gap_error']:.4f}), so the simpler one is taken."
        )
    if n_groups < MIN_GROUPS:
        return (
            f"With {n_groups} groups of rows methods cannot be told apart, so the equal average is kept; from "
            f"{MIN_GROUPS} groups on another may be taken."
        )
    if best.name == 0:
        return f"None of the {len(table)} methods has a lower out-of-fold log loss than the equal average."
    gain = describe_difference(Difference(best["difference"], 0.0, best["low"], best["high"]))
    return (
        f"The lowest out-of-fold log loss is that of the {best_name}. Against the equal average it is {gain}: "
        "the equal average is kept."
    )


def explain_folds(blenders: Sequence[Blender]) -> str:
    """Say what the blenders of a cross-fit chose, e.g. "logarithmic pool (4 of 5), equal average (1 of 5)"."""
    names = pd.Series([describe_method(one.method_, one.calibration_) for one in blenders])
    counts = names.value_counts(sort=False).sort_values(ascending=False, kind="stable")
    return ", ".join(f"{name} ({count} of {len(names)})" for name, count in counts.items())


def fit_with_findings(
    blender: Blender,
    members: Sequence[Probabilities],
    labels: Probabilities,
    groups: ArrayLike | None,
    names: Sequence[str],
) -> list[str]:
    """Fit a blender and return what it warned about, with the members' names.

    Parameters
    ----------
    blender : Blender
        Is fitted.
    members, labels, groups
        As for `lmsys_ensemble.Blender.fit`.
    names : sequence of str
        Names of the members.

    Returns
    -------
    list of str
        One sentence per finding.
    """
    with collected_warnings() as collected:
        blender.fit(dict(zip(names, members, strict=True)), labels, groups=groups)
    return [_with_names(str(warning), names) for warning in collected]


def _with_names(message: str, names: Sequence[str]) -> str:
    return re.sub(r"\bscorer (\d+)\b", lambda found: names[int(found[1])], message)


def find_unused(blender: Blender, names: Sequence[str]) -> list[str]:
    """Name the members of a blender that have next to no weight, one sentence each."""
    if not hasattr(blender, "weights_"):
        return []
    sizes = np.abs(blender.weights_)
    unused = [name for name, size in zip(names, sizes, strict=True) if size < NEGLIGIBLE_SHARE * sizes.sum()]
    return [f"{name} has (almost) no weight: the blend does as well without it" for name in unused]
