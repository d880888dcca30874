"""Token ids of battles, with the field that every token came from; battles that are too long are cut here.

Beginning and end tokens are appended here, as the recipe says; text of the user never becomes a control token.
"""

import copy
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tokenizers import Tokenizer

from lmsys_ensemble.data.battles import Battle, Battles
from lmsys_ensemble.encoding.retention import FIELD_CODES, LITERAL, estimate_tokens, retention_table
from lmsys_ensemble.encoding.templates import Piece, Template, merge_turns
from lmsys_ensemble.encoding.truncation import POLICIES, Policy, balanced_shares
from lmsys_ensemble.errors import ConfigError
from lmsys_ensemble.schema import TEXT_COLUMNS

MAX_CHARACTERS_PER_TOKEN = 32
"""Characters of a text that are read for every token of the budget. The longest tokens in use, runs of blanks,
have about that many; a cell of 50 MB is not tokenised to keep 2,048 tokens of it."""

_ROWS_AT_ONCE = 512


@dataclass(frozen=True)
class Encoded:
    """Token ids of battles.

    Attributes
    ----------
    ids : list of ndarray of int32
        Token ids of every row.
    fields : list of ndarray of int8
        Where each token came from, see `FIELD_CODES`.
    row_ids : pandas.Index
        Ids of the battles.
    totals : list of ndarray of shape (4,)
        Tokens that each field of a row has in all, cut ones included; by code.
    """

    ids: list[NDArray[np.int32]]
    fields: list[NDArray[np.int8]]
    row_ids: "pd.Index[Any]"
    totals: list[NDArray[np.float64]]

    def __len__(self) -> int:
        return len(self.ids)

    def __add__(self, other: "Encoded") -> "Encoded":
        """Return the rows of both, those of `other` last."""
        return Encoded(
            self.ids + other.ids,
            self.fields + other.fields,
            self.row_ids.append(other.row_ids),
            self.totals + other.totals,
        )

    @cached_property
    def retention(self) -> pd.DataFrame:
        """What truncation kept and cut, see `lmsys_ensemble.encoding.retention.retention_table`; made when asked."""
        return retention_table(self.row_ids, self.fields, self.totals)

    @property
    def lengths(self) -> NDArray[np.intp]:
        """Number of tokens of every row."""
        return np.array([len(row) for row in self.ids], dtype=np.intp)


@dataclass
class _Part:
    """A piece as tokens: the template's words, then the user's."""

    piece: Piece
    literal: list[int]
    text: list[int]
    total: float
    """Tokens that the whole text has; an estimate where it was not read to its end."""


@dataclass
class _Row:
    ids: list[int] = field(default_factory=list)
    codes: list[int] = field(default_factory=list)
    totals: NDArray[np.float64] = field(default_factory=lambda: np.zeros(len(FIELD_CODES) + 1))

    def extend(self, ids: Sequence[int], code: int) -> None:
        self.ids.extend(ids)
        self.codes.extend([code] * len(ids))


class Encoder:
    """Turns battles into token ids.

    Parameters
    ----------
    tokenizer : tokenizers.Tokenizer
        Copied, so that no two threads share one, unless `owns_tokenizer`.
    template : Template
        How a battle becomes text.
    max_tokens : int
        Longest sequence, control tokens included.
    truncation : {"balanced", "per_field", "tail"}
        What is cut from battles that are too long, see `lmsys_ensemble.encoding.truncation`.
    bos_id, eos_id : int or None
        Ids put before and behind every sequence; None for none.
    before, after : sequence of int
        More ids that every sequence begins and ends with, inside of those.
    owns_tokenizer : bool
        Whether nobody else will use `tokenizer`: a copy of a large one takes as long as to read it.

    Raises
    ------
    ConfigError
        If the policy is unknown, or `max_tokens` has no room for the template and a token of each field.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        template: Template,
        *,
        max_tokens: int,
        truncation: Policy = "balanced",
        bos_id: int | None = None,
        eos_id: int | None = None,
        before: Sequence[int] = (),
        after: Sequence[int] = (),
        owns_tokenizer: bool = False,
    ):
        self.tokenizer = tokenizer if owns_tokenizer else copy.deepcopy(tokenizer)
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()
        self.tokenizer.encode_special_tokens = True  # control tokens in the text of a user stay text
        self.template = template
        self.max_tokens = max_tokens
        self.truncation = truncation
        self.before = [*([] if bos_id is None else [bos_id]), *before]
        self.after = [*after, *([] if eos_id is None else [eos_id])]
        self.budget = max_tokens - len(self.before) - len(self.after)
        self._literals: dict[str, list[int]] = {}
        if truncation not in POLICIES:
            raise ConfigError(f"unknown truncation {truncation!r}; known: {', '.join(POLICIES)}")
        least = self._least_budget() + max_tokens - self.budget
        if max_tokens < least:
            raise ConfigError(
                f"max_tokens={max_tokens} is too short: template {template.name!r} with truncation {truncation!r} "
                f"needs at least {least} tokens"
            )

    def encode(self, battles: Battles) -> Encoded:
        """Encode battles, in their order."""
        rows: list[_Row] = []
        encode = {"balanced": self._balanced, "per_field": self._per_field, "tail": self._tail}[self.truncation]
        ids: list[NDArray[np.int32]] = []
        codes: list[NDArray[np.int8]] = []
        totals: list[NDArray[np.float64]] = []
        for start in range(0, len(battles), _ROWS_AT_ONCE):
            rows = encode(battles[start : start + _ROWS_AT_ONCE])
            around = [LITERAL] * len(self.before), [LITERAL] * len(self.after)
            ids.extend(np.array(self.before + row.ids + self.after, dtype=np.int32) for row in rows)
            codes.extend(np.array(around[0] + row.codes + around[1], dtype=np.int8) for row in rows)
            totals.extend(row.totals for row in rows)
        return Encoded(ids, codes, battles.ids, totals)

    def _literal(self, literal: str) -> list[int]:
        if literal not in self._literals:
            self._literals[literal] = self.tokenizer.encode(literal, add_special_tokens=False).ids
        return self._literals[literal]

    def _least_budget(self) -> int:
        """Return the tokens of the template's words around a last turn, and one for each of its fields."""
        pieces = list(self.template.pieces(Battle(None, ("", ""), ("", ""), ("", ""))))
        if self.truncation == "per_field":
            return 3 * max(len(self._literal(piece.literal)) + 1 for piece in pieces if piece.turn == 0)
        if self.template.layout == "by_turn":
            pieces = [piece for piece in pieces if piece.turn == 1]
        return sum(len(self._literal(piece.literal)) for piece in pieces) + len(TEXT_COLUMNS)

    @property
    def _max_characters(self) -> int:
        return MAX_CHARACTERS_PER_TOKEN * self.max_tokens

    def _parts(self, rows: Sequence[Sequence[Piece]]) -> Iterator[list[_Part]]:
        """Tokenise pieces; a piece's own words are those of its tokens that its literal alone begins with."""
        firsts = [self._first_turn(pieces) for pieces in rows]
        texts = [
            piece.literal + (piece.text[: self._max_characters] if piece.turn >= first else "")
            for pieces, first in zip(rows, firsts, strict=True)
            for piece in pieces
        ]
        encodings = iter(self.tokenizer.encode_batch_fast(texts, add_special_tokens=False))
        for pieces, first in zip(rows, firsts, strict=True):
            parts = []
            for piece in pieces:
                ids = next(encodings).ids
                n_literal = common_prefix(self._literal(piece.literal), ids)
                n_read = min(len(piece.text), self._max_characters) if piece.turn >= first else 0
                total = estimate_tokens(len(ids) - n_literal, n_read, len(piece.text))
                parts.append(_Part(piece, ids[:n_literal], ids[n_literal:], total))
            yield parts

    def _first_turn(self, pieces: Sequence[Piece]) -> int:
        """Return the first turn that must be read; those from it on have more characters than the budget holds."""
        characters: Counter[int] = Counter()
        for piece in pieces:
            characters[piece.turn] += len(piece.text)
        left = self._max_characters
        for turn in sorted(characters, reverse=True):
            left -= characters[turn]
            if left <= 0:
                return turn
        return 0

    def _balanced(self, battles: Battles) -> list[_Row]:
        return [
            self._balance(parts) for parts in self._parts([list(self.template.pieces(battle)) for battle in battles])
        ]

    def _balance(self, parts: list[_Part]) -> _Row:
        row = _Row()
        # Before all turns of a field stands its name, which stays; before a turn's own words, it goes with the turn.
        always = [self.template.layout == "by_field" and part.piece.turn == 0 for part in parts]
        n_turns = max((part.piece.turn for part in parts), default=-1) + 1
        lengths: list[list[int]] = [[] for _ in range(n_turns)]
        literals = [0] * n_turns
        budget = self.budget
        for part, kept in zip(parts, always, strict=True):
            lengths[part.piece.turn].append(len(part.text))
            if kept:
                budget -= len(part.literal)
            else:
                literals[part.piece.turn] += len(part.literal)
            row.totals[FIELD_CODES[part.piece.field]] += part.total
        shares, first = balanced_shares(lengths, literals, budget)
        taken = [iter(turn) for turn in shares]
        for part, kept in zip(parts, always, strict=True):
            if kept or part.piece.turn >= first:
                row.extend(part.literal, LITERAL)
            row.extend(part.text[: next(taken[part.piece.turn])], FIELD_CODES[part.piece.field])
        return row

    def _per_field(self, battles: Battles) -> list[_Row]:
        merged = [merge_turns(self.template.pieces(battle)) for battle in battles]
        rows = []
        for parts in self._parts(merged):
            row = _Row()
            for part in parts:
                room = self.budget // len(parts)
                code = FIELD_CODES[part.piece.field]
                row.totals[code] += part.total
                row.extend(part.literal[:room], LITERAL)
                row.extend(part.text[: max(room - len(part.literal), 0)], code)
            rows.append(row)
        return rows

    def _tail(self, battles: Battles) -> list[_Row]:
        rows = [list(self.template.pieces(battle)) for battle in battles]
        texts = ["".join(piece.literal + piece.text[: self._max_characters] for piece in pieces) for pieces in rows]
        read = [text[: self._max_characters] for text in texts]
        encodings = self.tokenizer.encode_batch(read, add_special_tokens=False)
        return [self._cut_tail(pieces, encoding) for pieces, encoding in zip(rows, encodings, strict=True)]

    def _cut_tail(self, pieces: list[Piece], encoding: Any) -> _Row:
        ends, codes = [], []
        n_read, n_all = [0] * (len(FIELD_CODES) + 1), [0] * (len(FIELD_CODES) + 1)
        position = 0
        for piece in pieces:
            code = FIELD_CODES[piece.field]
            start = position + len(piece.literal)
            position = start + min(len(piece.text), self._max_characters)
            ends += [start, position]
            codes += [LITERAL, code]
            n_read[code] += max(min(position, self._max_characters) - start, 0)
            n_all[code] += len(piece.text)
        last_characters = np.array([end for _, end in encoding.offsets], dtype=np.intp) - 1
        owners = np.array(codes, dtype=np.intp)[np.searchsorted(ends, last_characters, side="right")]
        row = _Row(encoding.ids[: self.budget], owners[: self.budget].tolist())
        n_tokens = np.bincount(owners, minlength=len(n_all)).tolist()
        row.totals = np.array([estimate_tokens(*counts) for counts in zip(n_tokens, n_read, n_all, strict=True)])
        return row


def common_prefix(one: Sequence[int], other: Sequence[int]) -> int:
    """Return how many tokens two sequences begin with alike."""
    for position, (left, right) in enumerate(zip(one, other, strict=False)):
        if left != right:
            return position
    return min(len(one), len(other))
