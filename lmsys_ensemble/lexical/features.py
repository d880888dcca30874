"""What can be counted in a battle: length, format, refusals, overlap, script.

Every number of a response is computed from that response and the prompt alone. A battle is described by differences
(A less B: they change their sign when the responses change places) and by what both responses and the prompt have in
common (which does not change). No model that keeps the two apart can prefer a place.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from lmsys_ensemble.cleaning.normalization import words
from lmsys_ensemble.data.battles import Battles, Turns
from lmsys_ensemble.data.languages import script_of

Array: TypeAlias = NDArray[np.float64]

FEATURES_VERSION = 1
"""Changes whenever a feature means something else: a fitted model reads only those of its own version."""

CHUNK_ROWS = 1000
"""Battles whose words are in memory at a time."""

MAX_CHARACTERS = 100_000
"""Characters of a text that are looked at; its length counts whole."""

OF_RESPONSE = (
    "log characters", "log words", "log lines", "log last turn", "empty", "code blocks", "inline code", "headings",
    "bullets", "numbered items", "table rows", "bold", "links", "formulas", "digits", "capitals", "punctuation",
    "not ASCII", "emoji", "questions", "exclamations", "sentences", "paragraphs", "word length", "words a sentence",
    "distinct words", "distinct lines", "complete", "refusal", "speaks of itself", "repeats the prompt",
    "answers the prompt's words", "script of the prompt",
)  # fmt: skip
"""Names of the numbers of a response, in the order of `describe_response`."""

OF_PROMPT = (
    "prompt: log characters", "prompt: turns", "prompt: questions", "prompt: code", "prompt: digits",
    "prompt: log lines", "prompt: not ASCII",
)  # fmt: skip
OF_PAIR = ("same words", "same text")

_REFUSALS = (
    "i'm sorry", "i am sorry", "i'm very sorry", "i'm really sorry", "i apologi", "i can't", "i cannot", "i can not",
    "i won't", "i will not", "i'm not able", "i am not able", "i'm unable", "i am unable", "unable to assist",
    "unable to help", "unable to provide", "not appropriate", "against my programming", "against my guidelines",
    "lo siento", "no puedo", "désolé", "je ne peux pas", "tut mir leid", "kann ich nicht", "kann ich ihnen nicht",
    "kann ich dir nicht", "desculp", "mi dispiace", "извините", "к сожалению", "не могу", "抱歉", "对不起",
    "無法", "无法", "申し訳", "できません", "죄송",
)  # fmt: skip
_ITSELF = ("as an ai", "as a language", "as a large", "as an artificial", "language model", "i'm an ai", "i am an ai")
_LINE_STARTS = re.compile(r"^[ \t]*(?:(#{1,6} )|([-*+•] )|(\d{1,3}[.)] )|(\|))", re.MULTILINE)
_ASCII_WORD = re.compile(r"[a-z0-9]+")
_REFUSALS_WITHIN = 400
"""Characters from the start of every turn that refusals are looked for in: later, an answer quotes them."""

_DIGITS = np.arange(48, 58)
_CAPITALS = np.arange(65, 91)
_SIGNS = np.array([code for code in range(33, 127) if not chr(code).isalnum()])
_BLANKS = np.array([9, 10, 13, 32])
_ENDS = tuple(".!?:)]}`\"'*|。！？」”…")


@dataclass(frozen=True)
class Features:
    """Battles as numbers.

    Attributes
    ----------
    differences : ndarray of shape (n_rows, n_differences)
        Change their signs when the responses change places.
    shared : ndarray of shape (n_rows, n_shared)
        Do not change then.
    difference_names, shared_names : tuple of str
        Names of the columns.
    """

    differences: Array
    shared: Array
    difference_names: tuple[str, ...]
    shared_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.shared)

    def take(self, rows: NDArray[np.intp]) -> "Features":
        """Return some of the rows."""
        return Features(self.differences[rows], self.shared[rows], self.difference_names, self.shared_names)


@dataclass(frozen=True, slots=True)
class Text:
    """Turns as one text, and its words with their numbers."""

    turns: Turns
    text: str
    words: Counter[str]


def read_text(turns: Turns) -> Text:
    """Join turns and count their words, without case; the first `MAX_CHARACTERS` characters count."""
    text = "\n".join(turns)[:MAX_CHARACTERS]
    lower = text.lower()
    if not lower.strip():
        return Text(turns, text, Counter())
    return Text(turns, text, Counter(_ASCII_WORD.findall(lower) if lower.isascii() else words(lower)))


Texts: TypeAlias = tuple[list[Text], list[Text], list[Text]]
"""Prompts, responses A and responses B."""


def read_texts(battles: Battles) -> Texts:
    """Return the texts of battles, with their words."""
    prompts, a, b = (
        [read_text(turns) for turns in column] for column in (battles.prompts, battles.responses_a, battles.responses_b)
    )
    return prompts, a, b


def read_in_chunks(battles: Battles) -> Iterator[Texts]:
    """Yield the texts of so many battles at a time that their words fit into memory."""
    for start in range(0, len(battles), CHUNK_ROWS):
        yield read_texts(battles[start : start + CHUNK_ROWS])


def describe(texts: Texts) -> Features:
    """Return what is counted in battles as features."""
    n_rows, n_of_response = len(texts[0]), len(OF_RESPONSE)
    a, b = np.empty((n_rows, n_of_response)), np.empty((n_rows, n_of_response))
    prompts, pairs = np.empty((n_rows, len(OF_PROMPT))), np.empty((n_rows, len(OF_PAIR)))
    for row, (prompt, one, other) in enumerate(zip(*texts, strict=True)):
        script = script_of(prompt.turns)
        a[row] = describe_response(one, prompt, script)
        b[row] = describe_response(other, prompt, script)
        prompts[row] = describe_prompt(prompt)
        pairs[row] = describe_pair(one, other)
    both = compare(a, b, OF_RESPONSE)
    return Features(
        both.differences,
        np.hstack([both.shared, prompts, pairs]),
        both.difference_names,
        (*both.shared_names, *OF_PROMPT, *OF_PAIR),
    )


def component_names(n_components: int) -> tuple[str, ...]:
    """Return the names of TF-IDF components."""
    return tuple(f"component {number}" for number in range(1, n_components + 1))


def feature_names(n_components: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names of differences and of what is shared, in the order of the columns."""
    components = component_names(n_components)
    counted = (*_shared_names(OF_RESPONSE), *OF_PROMPT, *OF_PAIR)
    return OF_RESPONSE + components, counted + _shared_names(components)


def _shared_names(names: tuple[str, ...]) -> tuple[str, ...]:
    return (*(f"difference of {name}" for name in names), *(f"mean {name}" for name in names))


def compare(a: Array, b: Array, names: tuple[str, ...]) -> Features:
    """Return numbers of the responses, each of shape (n_rows, n_names), as features of battles."""
    return Features(a - b, np.hstack([np.abs(a - b), (a + b) / 2]), names, _shared_names(names))


def describe_response(response: Text, prompt: Text, prompt_script: str) -> list[float]:
    """Return the numbers of a response, named by `OF_RESPONSE`; any text has them, an empty one too."""
    text, counts = response.text, response.words
    codes, by_code = _codes(text)
    n_characters, n_words = len(text), counts.total()
    starts = Counter(match.lastindex for match in _LINE_STARTS.finditer(text))
    fences = text.count("```")
    lines = [line for line in text.split("\n") if line.strip()]
    n_sentences = sum(map(text.count, ".!?。！？"))
    stripped = text.rstrip()
    shared = len(counts.keys() & prompt.words.keys())
    begins = "\n".join(turn[:_REFUSALS_WITHIN] for turn in response.turns)[:MAX_CHARACTERS].lower().replace("’", "'")
    share = 1 / max(n_characters, 1)
    return [
        math.log1p(sum(map(len, response.turns))),
        math.log1p(n_words),
        math.log1p(len(lines)),
        math.log1p(len(response.turns[-1]) if response.turns else 0),
        float(not stripped),
        math.log1p(fences // 2),
        math.log1p(max(text.count("`") - 3 * fences, 0) // 2),
        math.log1p(starts[1]),
        math.log1p(starts[2]),
        math.log1p(starts[3]),
        math.log1p(starts[4]),
        math.log1p(text.count("**") // 2),
        math.log1p(text.count("](") + text.count("http")),
        math.log1p(text.count("$") + text.count("\\")),
        float(by_code[_DIGITS].sum()) * share,
        float(by_code[_CAPITALS].sum()) * share,
        float(by_code[_SIGNS].sum()) * share,
        float(by_code[128]) * share,
        math.log1p(float(((codes >= 0x1F300) & (codes < 0x1FB00)).sum())),
        math.log1p(text.count("?") + text.count("？")),
        math.log1p(text.count("!") + text.count("！")),
        math.log1p(n_sentences),
        math.log1p(text.count("\n\n")),
        (n_characters - float(by_code[_BLANKS].sum())) / max(n_words, 1),
        math.log1p(n_words / max(n_sentences, 1)),
        len(counts) / max(n_words, 1),
        len(set(lines)) / max(len(lines), 1),
        float(stripped.endswith(_ENDS)),
        float(any(phrase in begins for phrase in _REFUSALS)),
        float(any(phrase in begins for phrase in _ITSELF)),
        shared / max(len(counts), 1),
        shared / max(len(prompt.words), 1),
        float(script_of(response.turns) == prompt_script),
    ]


def describe_prompt(prompt: Text) -> list[float]:
    """Return the numbers of a prompt, named by `OF_PROMPT`."""
    text = prompt.text
    by_code, share = _codes(text)[1], 1 / max(len(text), 1)
    return [
        math.log1p(sum(map(len, prompt.turns))),
        math.log(max(len(prompt.turns), 1)),
        math.log1p(text.count("?") + text.count("？")),
        float("```" in text),
        float(by_code[_DIGITS].sum()) * share,
        math.log1p(text.count("\n")),
        float(by_code[128]) * share,
    ]


def describe_pair(a: Text, b: Text) -> list[float]:
    """Return what two responses have in common, named by `OF_PAIR`; the same in either order."""
    both = len(a.words.keys() & b.words.keys())
    return [both / max(len(a.words) + len(b.words) - both, 1), float(a.turns == b.turns)]


def _codes(text: str) -> tuple[NDArray[np.uint32], NDArray[np.intp]]:
    """Return the characters' code points, and how often each of ASCII occurs; entry 128 counts all others."""
    codes = np.frombuffer(text.encode("utf-32-le", "replace"), dtype=np.uint32)
    return codes, np.bincount(np.minimum(codes, 128), minlength=129)


def swap_features(features: Features) -> Features:
    """Return the features of the same battles with the responses swapped."""
    return Features(-features.differences, features.shared, features.difference_names, features.shared_names)


def join(parts: Sequence[Features]) -> Features:
    """Return the columns of several features of the same battles side by side."""
    return Features(
        np.hstack([part.differences for part in parts]),
        np.hstack([part.shared for part in parts]),
        tuple(name for part in parts for name in part.difference_names),
        tuple(name for part in parts for name in part.shared_names),
    )


def stack(parts: Sequence[Features]) -> Features:
    """Return the rows of several features one below the other."""
    return Features(
        np.vstack([part.differences for part in parts]),
        np.vstack([part.shared for part in parts]),
        parts[0].difference_names,
        parts[0].shared_names,
    )
