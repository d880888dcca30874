"""Token ids of battles as two conversations each, the prompt with either response, as reward models read them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from lmsys_ensemble.data.battles import Battles
from lmsys_ensemble.encoding.retention import FIELD_CODES, LITERAL, estimate_tokens
from lmsys_ensemble.encoding.tokens import MAX_CHARACTERS_PER_TOKEN, Encoded, common_prefix
from lmsys_ensemble.encoding.truncation import balanced_shares
from lmsys_ensemble.errors import ConfigError
from lmsys_ensemble.schema import PROMPT, RESPONSE_A

Turn: TypeAlias = tuple[str, str]
"""What the user writes, and the response."""

_CODES = FIELD_CODES[PROMPT], FIELD_CODES[RESPONSE_A]
"""Either response has the same code: the same conversation is the same row, whichever response it is of."""

_ROWS_AT_ONCE = 512


@dataclass(frozen=True)
class Slot:
    """What stands before a text.

    Parameters
    ----------
    control : tuple of int
        Tokens up to the last control token.
    words : str
        What is left of the chat template's words; encoded together with the text, as tokenizers join both.
    trim : bool
        Whether the chat template takes blanks off both ends of the text.
    """

    control: tuple[int, ...]
    words: str
    trim: bool = False


@dataclass(frozen=True)
class Frame:
    """What stands around the texts of a conversation.

    Parameters
    ----------
    slots : tuple of Slot
        Two for every turn: before what the user writes, and before the response.
    end : tuple of int
        Tokens behind the last response.
    """

    slots: tuple[Slot, ...]
    end: tuple[int, ...]


@dataclass
class _Conversation:
    turns: list[Turn]
    totals: NDArray[np.float64] = field(default_factory=lambda: np.zeros(len(FIELD_CODES) + 1))
    """Tokens of every field that were dropped with whole turns, by code; an estimate where they were not read."""


@dataclass
class _Part:
    fixed: list[int]
    text: list[int]
    total: float


class RewardEncoder:
    """Turns every battle into two sequences, one behind the other: the prompt with response A, and with response B.

    A sequence depends on its own response alone, so that swapped responses give swapped sequences. In both of them the
    tokens of the response count as those of ``response_a`` in `Encoded.fields` and `Encoded.retention`.

    Parameters
    ----------
    tokenizer : tokenizers.Tokenizer
        Of which nobody else makes use; control tokens in the texts of a battle stay text.
    frame : callable
        Given a number of turns, returns the `Frame` of such a conversation.
    max_tokens : int
        Longest sequence. Only texts are cut, and of long conversations whole turns dropped from the beginning, as
        ``balanced`` truncation does (see `lmsys_ensemble.encoding.truncation`); the turns that are left then stand in
        the frame of a shorter conversation, its beginning and its control tokens included.

    Raises
    ------
    ConfigError
        If `max_tokens` has no room for the frame of one turn and a token of each text.
    """

    def __init__(self, tokenizer: Tokenizer, frame: Callable[[int], Frame], *, max_tokens: int):
        self.max_tokens = max_tokens
        self._tokenizer = tokenizer
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._make_frame = frame
        self._frames: dict[int, Frame] = {}
        self._words: dict[str, list[int]] = {}
        shortest = self._frame(1)
        least = sum(len(slot.control) + len(self._fixed(slot.words)) + 1 for slot in shortest.slots)
        if max_tokens < least + len(shortest.end):
            raise ConfigError(
                f"max_tokens={max_tokens} is too short: what stands around a prompt and a response, and a token of "
                f"each, need at least {least + len(shortest.end)} tokens"
            )

    def encode(self, battles: Battles) -> Encoded:
        """Encode battles, in their order; the two conversations of a battle lie one behind the other."""
        ids: list[NDArray[np.int32]] = []
        codes: list[NDArray[np.int8]] = []
        totals: list[NDArray[np.float64]] = []
        for start in range(0, len(battles), _ROWS_AT_ONCE):
            conversations = [
                _Conversation(list(zip(battle.prompt, response, strict=True)))
                for battle in battles[start : start + _ROWS_AT_ONCE]
                for response in (battle.response_a, battle.response_b)
            ]
            rows = self._encode(conversations)
            ids.extend(np.array(rows[place][0], dtype=np.int32) for place in range(len(rows)))
            codes.extend(np.array(rows[place][1], dtype=np.int8) for place in range(len(rows)))
            totals.extend(conversation.totals for conversation in conversations)
        return Encoded(ids, codes, battles.ids.repeat(2), totals)

    def _encode(self, conversations: Sequence[_Conversation]) -> Mapping[int, tuple[list[int], list[int]]]:
        """Return token ids and field codes of conversations by their places; adds to the totals of each."""
        rows: dict[int, tuple[list[int], list[int]]] = {}
        left = dict(enumerate(conversations))
        for conversation in conversations:
            _drop(conversation, self._first_read(conversation.turns))
        while left:  # as long as turns are dropped; those that remain are encoded again, in their new frame
            shorter = {}
            for (place, conversation), parts in zip(left.items(), self._parts(list(left.values())), strict=True):
                end = self._frame(len(conversation.turns)).end
                by_turn = [parts[start : start + 2] for start in range(0, len(parts), 2)]
                shares, first = balanced_shares(
                    [[len(part.text) for part in turn] for turn in by_turn],
                    [sum(len(part.fixed) for part in turn) for turn in by_turn],
                    self.max_tokens - len(end),
                )
                if first:
                    _drop(conversation, first, by_turn)
                    shorter[place] = conversation
                else:
                    rows[place] = _join(by_turn, shares, end)
                    for turn in by_turn:
                        _add_totals(conversation, turn)
            left = shorter
        return rows

    def _parts(self, conversations: Sequence[_Conversation]) -> Iterator[list[_Part]]:
        """Tokenise conversations; the words of a template are those tokens that they have on their own as well."""
        slots = [self._frame(len(conversation.turns)).slots for conversation in conversations]
        n_read = MAX_CHARACTERS_PER_TOKEN * self.max_tokens
        texts = [
            [text.strip() if slot.trim else text for slot, text in zip(row, chain(*conversation.turns), strict=True)]
            for row, conversation in zip(slots, conversations, strict=True)
        ]
        read = [
            [slot.words + text[:n_read] for slot, text in zip(*row, strict=True)]
            for row in zip(slots, texts, strict=True)
        ]
        different = list(dict.fromkeys(text for row in read for text in row))  # both conversations have the same prompt
        self._tokenizer.encode_special_tokens = True
        encodings = self._tokenizer.encode_batch_fast(different, add_special_tokens=False)
        ids = {text: encoding.ids for text, encoding in zip(different, encodings, strict=True)}
        for row, its_slots, its_texts in zip(read, slots, texts, strict=True):
            parts = []
            for together, slot, text in zip(row, its_slots, its_texts, strict=True):
                tokens, words = ids[together], self._fixed(slot.words)
                n_fixed = common_prefix(words, tokens)
                n_characters = min(len(text), n_read)
                total = estimate_tokens(len(tokens) - n_fixed, n_characters, len(text))
                parts.append(_Part([*slot.control, *tokens[:n_fixed]], tokens[n_fixed:], total))
            yield parts

    def _first_read(self, turns: Sequence[Turn]) -> int:
        """Return the first turn that must be read; those from it on have more characters than the budget holds."""
        left = MAX_CHARACTERS_PER_TOKEN * self.max_tokens
        for turn in reversed(range(len(turns))):
            left -= sum(len(text) + 1 for text in turns[turn])
            if left <= 0:
                return turn
        return 0

    def _frame(self, n_turns: int) -> Frame:
        if n_turns not in self._frames:
            self._frames[n_turns] = self._make_frame(n_turns)
        return self._frames[n_turns]

    def _fixed(self, words: str) -> list[int]:
        if words not in self._words:
            self._tokenizer.encode_special_tokens = True
            self._words[words] = self._tokenizer.encode(words, add_special_tokens=False).ids
        return self._words[words]


def _drop(conversation: _Conversation, n_turns: int, parts: Sequence[Sequence[_Part]] = ()) -> None:
    """Drop the first turns, counting their tokens; without `parts`, by an estimate."""
    dropped, conversation.turns = conversation.turns[:n_turns], conversation.turns[n_turns:]
    if parts:
        for turn in parts[:n_turns]:
            _add_totals(conversation, turn)
        return
    for texts in dropped:
        for code, text in zip(_CODES, texts, strict=True):
            conversation.totals[code] += estimate_tokens(0, 0, len(text))


def _add_totals(conversation: _Conversation, turn: Sequence[_Part]) -> None:
    for code, part in zip(_CODES, turn, strict=True):
        conversation.totals[code] += part.total


def _join(
    turns: Sequence[Sequence[_Part]], shares: Sequence[Sequence[int]], end: Sequence[int]
) -> tuple[list[int], list[int]]:
    """Return token ids and field codes of a conversation."""
    ids: list[int] = []
    codes: list[int] = []
    for turn, kept in zip(turns, shares, strict=True):
        for part, code, n_kept in zip(turn, _CODES, kept, strict=True):
            text = part.text[:n_kept]
            ids += [*part.fixed, *text]
            codes += [LITERAL] * len(part.fixed) + [code] * len(text)
    return [*ids, *end], [*codes, *[LITERAL] * len(end)]


def canonical_order(ids: Sequence[NDArray[np.int32]]) -> NDArray[np.intp]:
    """Return the order of rows in which the two conversations of a battle do not depend on which response is A.

    A forward pass rounds otherwise where rows lie otherwise; in this order swapped responses get the same rewards to
    the last bit.
    """
    order = np.arange(len(ids), dtype=np.intp)
    for first in range(0, len(ids), 2):
        if ids[first].tobytes() > ids[first + 1].tobytes():
            order[[first, first + 1]] = first + 1, first
    return order
