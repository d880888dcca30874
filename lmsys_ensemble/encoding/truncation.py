"""Truncation policies as pure arithmetic on token counts.

``tail`` cuts the end of the whole text, as the public notebooks do: with a long prompt nothing of response B is left.
``per_field`` gives the prompt and each response a third. ``balanced`` (the default) fills from the last turn backwards;
within a turn the three fields share what is there, and what one does not use goes to the others.
"""

from collections.abc import Sequence
from typing import Literal, TypeAlias, get_args

Policy: TypeAlias = Literal["tail", "per_field", "balanced"]
POLICIES: tuple[str, ...] = get_args(Policy)


def fair_shares(lengths: Sequence[int], budget: int) -> list[int]:
    """Divide `budget` among fields of given lengths; no field gets more than it has, and none is wasted.

    Parameters
    ----------
    lengths : sequence of int
        Tokens that each field has.
    budget : int
        Tokens that there is room for, in all.

    Returns
    -------
    list of int
        Tokens that each field keeps. Their sum is ``min(budget, sum(lengths))``. Fields that are cut keep
        the same number of tokens, give or take one (max-min fairness).

    Examples
    --------
    >>> fair_shares([10, 500, 700], 400)
    [10, 195, 195]
    """
    kept = [0] * len(lengths)
    by_length = sorted(range(len(lengths)), key=lambda field: lengths[field])
    left = max(budget, 0)
    for rank, field in enumerate(by_length):
        kept[field] = min(lengths[field], left // (len(by_length) - rank))
        left -= kept[field]
    return kept


def balanced_shares(
    turns: Sequence[Sequence[int]], literals: Sequence[int], budget: int
) -> tuple[list[list[int]], int]:
    """Divide `budget` over the turns of a battle, from the last backwards.

    Parameters
    ----------
    turns : sequence of (sequence of int)
        For every turn the tokens of its fields.
    literals : sequence of int
        For every turn the tokens of the template's words, which are kept where the turn is.
    budget : int
        Tokens that there is room for, in all.

    Returns
    -------
    kept : list of (list of int)
        Tokens that each field of each turn keeps.
    first : int
        First turn that is kept; all before it are dropped, words of the template included.
    """
    kept = [[0] * len(fields) for fields in turns]
    left = budget
    for turn in reversed(range(len(turns))):
        room = left - literals[turn]
        n_filled = sum(length > 0 for length in turns[turn])
        if room < n_filled or (room < 0):
            return kept, turn + 1
        kept[turn] = fair_shares(turns[turn], room)
        left = room - sum(kept[turn])
        if kept[turn] != list(turns[turn]):
            return kept, turn
    return kept, 0
