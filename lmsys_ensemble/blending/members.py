"""The members of a blend: how their probabilities may be passed, what they are called, and whose weight is whose."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from lmsys_ensemble.errors import ConfigError, EnsembleError, InputError

MemberProbabilities: TypeAlias = Mapping[str, ArrayLike | None] | Sequence[ArrayLike | None] | NDArray[np.float64]
"""Probabilities of several members, in one of three ways:

- a mapping from names to arrays of shape (n_rows, n_classes): members are matched by name;
- a list of such arrays: members are told apart by their position;
- one array of shape (n_rows, n_members, n_classes), rows first as everywhere in scikit-learn, so that its
  splitters can take rows of it. ``numpy.stack(arrays, axis=1)`` makes it out of a list.

A list is always one of members, an array always one of rows.
"""

WRAP = "probabilities must be a list of arrays of shape (n_rows, n_classes), one per scorer; wrap a single one: [p]"
LAYOUT = (
    "an array of probabilities has the shape (n_rows, n_members, n_classes); make it with "
    "numpy.stack(arrays, axis=1), or pass the list of arrays itself"
)


class MemberOrderWarning(UserWarning):
    """Weights were matched to members by their order alone, because the blender does not know names."""


def split_members(
    probabilities: Any, *, n_rows: int | None = None, n_members: int | None = None
) -> tuple[tuple[str, ...] | None, list[Any]]:
    """Take probabilities apart into names and one array per member; what the arrays hold is checked later.

    Parameters
    ----------
    probabilities : mapping, sequence or array
        See `MemberProbabilities`.
    n_rows, n_members : int, optional
        Expected sizes, where they are known. Only the layout of an array is checked by them.

    Returns
    -------
    names : tuple of str or None
        None where members have only positions.
    members : list
        One array-like (or None) per member.

    Raises
    ------
    InputError
        If it is none of the three, or the array is laid out otherwise.
    """
    if isinstance(probabilities, Mapping):
        return check_names(probabilities), list(probabilities.values())
    if isinstance(probabilities, (str, bytes, pd.DataFrame)) or not isinstance(probabilities, Iterable):
        raise InputError(f"{WRAP}; got {type(probabilities).__name__}")
    if getattr(probabilities, "ndim", 1) == 1:
        members = list(probabilities)
        if members and np.ndim(members[0]) < 2 and members[0] is not None:
            raise InputError(WRAP)
        return None, members
    return None, _split_array(np.asarray(probabilities), n_rows, n_members)


def _split_array(array: NDArray[Any], n_rows: int | None, n_members: int | None) -> list[Any]:
    if array.ndim == 2:
        raise InputError(f"got one array of shape {array.shape}; {WRAP}")
    if array.ndim != 3:
        raise InputError(f"got an array of shape {array.shape}; {LAYOUT}")
    members_first = n_rows is not None and len(array) != n_rows and array.shape[1] == n_rows
    if n_members is not None and array.shape[1] != n_members:
        members_first |= len(array) == n_members
    elif n_members is None and n_rows is None:
        # Nothing tells how many members there should be. More members than rows is hardly ever meant.
        members_first = array.shape[1] > len(array) > 0
    if members_first:
        raise InputError(f"got an array of shape {array.shape}, which looks as if members came first; {LAYOUT}")
    return [array[:, position] for position in range(array.shape[1])]


def check_names(names: Iterable[Any], error: type[EnsembleError] = InputError) -> tuple[str, ...]:
    """Return members' names as a tuple; what is no text, empty or there twice is refused with `error`."""
    checked = tuple(names)
    for name in checked:
        if not isinstance(name, str) or not name.strip():
            raise error(f"a member's name must be text that is not empty, got {name!r}")
    twice = sorted({name for name in checked if checked.count(name) > 1})
    if twice:
        raise error(f"members need different names; {listed(twice)} occurs more than once")
    return checked


def listed(names: Iterable[str]) -> str:
    """Return names in quotes, joined by commas."""
    return ", ".join(map(repr, names))


def explain_mismatch(known: Sequence[str], given: Sequence[str]) -> str | None:
    """Say in which names two sets of members differ; None where they are the same in whatever order.

    >>> explain_mismatch(["gemma", "llama"], ["llama", "mistral"])
    "the blender was fitted on 'gemma', 'llama', got 'llama', 'mistral': 'gemma' is missing, 'mistral' is unknown to it"
    """
    missing, unknown = [name for name in known if name not in given], [name for name in given if name not in known]
    if not missing and not unknown:
        return None
    faults = [f"{listed(missing)} {'is' if len(missing) == 1 else 'are'} missing"] if missing else []
    if unknown:
        faults.append(f"{listed(unknown)} {'is' if len(unknown) == 1 else 'are'} unknown to it")
    return f"the blender was fitted on {listed(known)}, got {listed(given)}: {', '.join(faults)}"


def order_of(known: Sequence[str], given: Sequence[str]) -> list[int]:
    """Return for every given name its position among the known ones.

    Raises
    ------
    ConfigError
        If the two are not the same names in another order.
    """
    if (mismatch := explain_mismatch(known, given)) is not None:
        raise ConfigError(
            f"{mismatch}. Give members the names that they were fitted under, or fit a blender on the present ones"
        )
    return [known.index(name) for name in given]


def arrange_members(
    probabilities: Any, known: tuple[str, ...] | None, n_members: int | None
) -> tuple[Sequence[str] | None, list[Any]]:
    """Bring members into the order of a blend's weights.

    Parameters
    ----------
    probabilities : mapping, sequence or array
        See `MemberProbabilities`.
    known : tuple of str or None
        Names in the order of the weights.
    n_members : int or None
        Number of weights; None where any number of members will do, because all count alike.

    Returns
    -------
    names : sequence of str or None
        Names in the order of `members`, where there are any.
    members : list
        One array-like per weight; None for one that is missing.

    Raises
    ------
    InputError
        If there are names that the blend does not know.
    """
    names, given = split_members(probabilities, n_members=n_members)
    if names is None:
        return known if known is not None and len(known) == len(given) else None, given
    if known is None:
        if n_members is not None:
            raise InputError(
                f"this blender does not know its members by name, so that {listed(names)} cannot be matched to its "
                "weights; pass a list in the order of the weights, or fit it on a mapping of names to arrays"
            )
        return names, given
    if set(names) - set(known):
        raise InputError(f"{explain_mismatch(known, names)}. Pass members under the names of fit")
    by_name = dict(zip(names, given, strict=True))
    return known, [by_name.get(name) for name in known]
