"""LightGBM's text format, checked before LightGBM reads it: its own reader ends the process where a file is damaged."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from lmsys_ensemble.errors import IntegrityError
from lmsys_ensemble.lexical.boosting import import_lightgbm

_INNER = ("split_feature", "threshold", "decision_type", "left_child", "right_child")
_MAX_LEAVES = 4096


def load_trees(text: str, where: object, n_features: int, n_classes: int) -> Any:
    """Return a booster.

    Parameters
    ----------
    text : str
        Content of the file.
    where : object
        The file, for errors.
    n_features, n_classes : int
        What the trees must be for.

    Raises
    ------
    IntegrityError
        If a tree is cut short, an array has another length, an index points out of its tree or its features, or the
        trees are for other features or classes.
    MissingDependencyError
        If lightgbm is not installed.
    """
    lightgbm = import_lightgbm()
    head, *trees = re.split(r"^Tree=\d+$", text, flags=re.MULTILINE)
    found = (_number(head, "max_feature_idx", where) + 1, _number(head, "num_tree_per_iteration", where))
    if found != (n_features, n_classes):
        raise IntegrityError(f"{where} is for (features, classes) {found}, expected {(n_features, n_classes)}")
    if not trees or len(trees) % n_classes or "end of trees" not in trees[-1]:
        raise IntegrityError(
            f"{where} is cut short: {len(trees)} trees, and the end is not there. Copy the folder again"
        )
    for number, tree in enumerate(trees):
        fault = _fault(dict(re.findall(r"^(\w+)=(.*)$", tree, flags=re.MULTILINE)), n_features)
        if fault:
            raise IntegrityError(f"{where}, tree {number}: {fault}. Copy the folder again")
    try:
        return lightgbm.Booster(model_str=text)
    except lightgbm.basic.LightGBMError as error:
        raise IntegrityError(f"{where} cannot be read: {error}. Copy the folder again") from error


def _number(text: str, key: str, where: object) -> int:
    found = re.search(rf"^{key}=(\d{{1,9}})$", text, flags=re.MULTILINE)
    if found is None:
        raise IntegrityError(f"{where} is no file of trees: it does not say {key}")
    return int(found[1])


def _fault(tree: Mapping[str, str], n_features: int) -> str:
    """Return what is wrong with a tree; empty where nothing is."""
    if not tree.get("num_leaves", "").isdigit() or not 1 <= int(tree["num_leaves"]) <= _MAX_LEAVES:
        return f"num_leaves is {tree.get('num_leaves', 'missing')!r:.40}"
    if tree.get("num_cat", "0") != "0" or tree.get("is_linear", "0") != "0":
        return "it has categories or linear leaves, which such models do not have"
    n_leaves = int(tree["num_leaves"])
    if n_leaves == 1:
        return _wrong_length(tree, "leaf_value", 1)
    fault = next(filter(None, (_wrong_length(tree, key, n_leaves - 1) for key in _INNER)), "")
    fault = fault or _wrong_length(tree, "leaf_value", n_leaves)
    if fault:
        return fault
    features = np.array(tree["split_feature"].split(), dtype=float)
    children = np.array([*tree["left_child"].split(), *tree["right_child"].split()], dtype=float)
    if features.min() < 0 or features.max() >= n_features:
        return f"it splits by a feature that there is not among {n_features}"
    # Every node but the root, and every leaf (as ~leaf), is a child once.
    if sorted(children.tolist()) != [*range(-n_leaves, 0), *range(1, n_leaves - 1)]:
        return "its nodes do not form a tree"
    return ""


def _wrong_length(tree: Mapping[str, str], key: str, length: int) -> str:
    values = tree.get(key, "").split()
    try:
        numbers = np.array(values, dtype=float)
    except ValueError:
        return f"{key} does not hold numbers"
    if len(numbers) != length or not np.isfinite(numbers).all():
        return f"{key} holds {len(numbers)} numbers, expected {length} finite ones"
    return ""
