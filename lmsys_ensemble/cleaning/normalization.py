"""Texts made comparable: one spelling for what differs only in case, spacing or the form of its characters."""

import hashlib
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

from lmsys_ensemble.data.battles import Battle

_INVISIBLE = re.compile("[\u00ad\u200b\u200c\u200d\u2060\ufeff]+")  # they only say where lines break or letters join

# Chinese, Japanese, Thai, Lao, Burmese and Khmer write no spaces between words: every character counts as a word.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+")


def normalise(turns: Iterable[str]) -> str:
    r"""Return turns as one text in Unicode's NFKC form, without case, with single spaces.

    Line breaks and the borders of turns become spaces; punctuation stays.

    >>> normalise(["What  is\nＡＩ?", "Really?"])
    'what is ai? really?'
    """
    text = unicodedata.normalize("NFKC", visible(" ".join(turns))).casefold()
    return " ".join(text.split())


def visible(text: str) -> str:
    """Return a text without characters that show nothing."""
    return text if text.isascii() else _INVISIBLE.sub("", text)


def words(normalised: str) -> list[str]:
    """Return the words of a normalised text, without punctuation; where there are none, the text itself.

    >>> words("what's 2 + 2?"), words("你好!"), words("?!")
    (['what', 's', '2', '2'], ['你', '好'], ['?!'])
    """
    return _WORD.findall(normalised) or [normalised]


@dataclass(frozen=True, slots=True)
class BattleKey:
    """A battle's texts, made comparable.

    Attributes
    ----------
    prompt : str
        Normalised.
    responses : tuple of bytes
        Digests of the two normalised responses, the smaller first.
    is_swapped : bool
        Whether the smaller one is that of response B.
    """

    prompt: str
    responses: tuple[bytes, bytes]
    is_swapped: bool


def battle_key(battle: Battle) -> BattleKey:
    """Return what two battles have in common whose texts are equal after normalisation, in either order."""
    a, b = normalise(battle.response_a), normalise(battle.response_b)
    if a == b:  # only what is normalised away tells which is which
        a, b = "\0".join(battle.response_a), "\0".join(battle.response_b)
    one, other = (hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=16).digest() for text in (a, b))
    return BattleKey(normalise(battle.prompt), (min(one, other), max(one, other)), one > other)
