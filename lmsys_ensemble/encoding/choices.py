"""Token ids of battles as questions with few possible answers, every battle asked in several ways."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from lmsys_ensemble.data.battles import Battles
from lmsys_ensemble.encoding.templates import Template
from lmsys_ensemble.encoding.tokens import Encoded, Encoder
from lmsys_ensemble.encoding.truncation import Policy


@dataclass(frozen=True)
class Question:
    """One way to ask.

    Parameters
    ----------
    name : str
        For errors.
    template : Template
        How the texts of a battle stand between the fixed tokens.
    before, after : tuple of int
        Tokens before the texts (control tokens, system prompt) and behind them (the question, up to the answer).
    label_ids : tuple of int
        The token of every class.
    """

    name: str
    template: Template
    before: tuple[int, ...]
    after: tuple[int, ...]
    label_ids: tuple[int, ...]


class ChoiceEncoder:
    """Turns every battle into one sequence per question; each ends with the last token of its question.

    Parameters
    ----------
    tokenizer : tokenizers.Tokenizer
        Of which nobody else makes use; control tokens in the texts of a battle stay text.
    questions : sequence of Question
        At least one.
    max_tokens : int
        Longest sequence. Only the texts are cut, never what stands around them.
    truncation : {"balanced", "per_field", "tail"}
        How they are cut, see `lmsys_ensemble.encoding.truncation`. Questions that differ only behind the texts cut
        them alike, so that their sequences begin with the same tokens, which are computed once.

    Raises
    ------
    ConfigError
        If `max_tokens` has no room for a question and a token of each field.
    """

    def __init__(
        self, tokenizer: Tokenizer, questions: Sequence[Question], *, max_tokens: int, truncation: Policy = "balanced"
    ):
        self.questions = tuple(questions)
        self.max_tokens = max_tokens
        self.label_ids = tuple(sorted({token for question in questions for token in question.label_ids}))
        self._encoders = []
        for question in questions:
            longest = max(len(other.after) for other in questions if _begins_alike(question, other))
            self._encoders.append(
                Encoder(
                    tokenizer,
                    question.template,
                    max_tokens=max_tokens - longest + len(question.after),
                    truncation=truncation,
                    before=question.before,
                    after=question.after,
                    owns_tokenizer=True,
                )
            )

    @property
    def columns(self) -> NDArray[np.intp]:
        """For every question, where the tokens of its classes lie in `label_ids`: of shape (n_questions, n_classes)."""
        places = [np.searchsorted(self.label_ids, question.label_ids) for question in self.questions]
        return np.array(places, dtype=np.intp)

    def encode(self, battles: Battles) -> Encoded:
        """Encode battles, in their order; the questions of a battle lie one behind the other."""
        parts = [encoder.encode(battles) for encoder in self._encoders]

        def interleave(lists: Sequence[Sequence[Any]]) -> list[Any]:
            return [one for together in zip(*lists, strict=True) for one in together]

        return Encoded(
            interleave([part.ids for part in parts]),
            interleave([part.fields for part in parts]),
            battles.ids.repeat(len(parts)),
            interleave([part.totals for part in parts]),
        )


def _begins_alike(one: Question, other: Question) -> bool:
    return one.template == other.template and one.before == other.before
