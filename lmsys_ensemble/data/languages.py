"""Script and language of texts, for slices of a measurement and for features.

Scripts are told from Unicode names alone. Languages need the optional package py3langid (BSD-3-Clause). Its model comes
with it, and the same text always gets the same answer.
"""

import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable
from functools import cache, lru_cache
from importlib.util import find_spec

from lmsys_ensemble.data.battles import Battles, Turns
from lmsys_ensemble.errors import MissingDependencyError

LANGUAGE, SCRIPT = "language", "script"
COMPUTED = (LANGUAGE, SCRIPT)
"""What `column_of` computes where a table has no such column."""

SAMPLE = 2000
"""Characters of a text that script and language are told from."""

NO_SCRIPT = "none"
"""What script and language of a text without letters are called."""

MIN_LETTERS = 20
"""Letters that a prompt needs for its language to be told from it alone; below that its responses count, too."""

_KANA_SHARE = 0.05  # Japanese mixes kana with Han characters; Chinese has none


def script_of(turns: Iterable[str]) -> str:
    """Return the script that most letters of a text belong to.

    Languages that share a script are not told apart: English and Spanish are both ``latin``. Text with kana is
    ``japanese``, whatever else is in it; Han characters alone are ``han``.

    >>> script_of(["Grüße"]), script_of(["Привет, Bob"]), script_of(["今日は"]), script_of(["2 + 2"])
    ('latin', 'cyrillic', 'japanese', 'none')
    """
    sample = _sample(turns)
    if sample.isascii():
        return "latin" if any(map(str.isalpha, sample)) else NO_SCRIPT
    counts: Counter[str] = Counter()
    for character, count in Counter(unicodedata.normalize("NFKC", sample)).items():
        if script := _script(character):
            counts[script] += count
    if not counts:
        return NO_SCRIPT
    kana = counts.pop("kana", 0)
    if kana >= _KANA_SHARE * (kana + counts.total()):
        counts["japanese"] = kana + counts.pop("han", 0)
    return min(counts, key=lambda script: (-counts[script], script))


def language_of(turns: Iterable[str]) -> str:
    """Return the language that a text is most likely written in, as an ISO 639 code.

    A guess by a small model: it errs on texts of a few words, and on closely related languages.

    Raises
    ------
    MissingDependencyError
        If the package py3langid is not installed.

    Examples
    --------
    >>> language_of(["Wie komme ich am schnellsten zum Bahnhof?"])  # doctest: +SKIP
    'de'
    """
    classify = _classifier()
    sample = _sample(turns)
    return classify(sample) if any(map(str.isalpha, sample)) else NO_SCRIPT


def can_tell(name: str) -> bool:
    """Tell whether `column_of` can: scripts always, languages where the package for them is installed."""
    return name == SCRIPT or find_spec("py3langid") is not None


def column_of(battles: Battles, name: str) -> list[str]:
    """Return the script or the language of every battle.

    The script is that of the prompt, and so is the language, unless the prompt has fewer than `MIN_LETTERS` letters:
    then it is told from prompt and responses.

    Parameters
    ----------
    battles : Battles
        The rows.
    name : {"script", "language"}
        Which of the two.

    Raises
    ------
    MissingDependencyError
        If the language is asked for and the package py3langid is not installed.
    """
    if name == SCRIPT:
        return [script_of(turns) for turns in battles.prompts]
    _classifier()  # told before the first row, also where there is none
    return [language_of(_telling(battle.prompt, battle.response_a, battle.response_b)) for battle in battles]


def _telling(prompt: Turns, *responses: Turns) -> Turns:
    n_letters = sum(map(str.isalpha, _sample(prompt)))
    return prompt if n_letters >= MIN_LETTERS else prompt + sum(responses, ())


def _sample(turns: Iterable[str]) -> str:
    return " ".join(turns)[:SAMPLE]


@cache
def _classifier() -> Callable[[str], str]:
    """Load the model once; it holds no state, so that threads may share it."""
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError as error:
        raise MissingDependencyError(
            "languages are told by the package py3langid, which is not installed: pip install "
            "'lmsys-ensemble[language]'. Scripts need no package"
        ) from error
    identifier = LanguageIdentifier.from_model_file(MODEL_FILE)
    # Those with codes of three letters are rare, and what odd texts are mistaken for.
    identifier.set_languages(sorted({code for code in identifier.nb_classes if len(code) == 2}))
    return lambda text: str(identifier.classify(text)[0])


@lru_cache(maxsize=1 << 16)
def _script(character: str) -> str:
    """Return the script of a letter, which is the first word of its Unicode name; '' for anything else."""
    if not character.isalpha():
        return ""
    name = unicodedata.name(character, "other").split()[0].lower()
    return {"cjk": "han", "hiragana": "kana", "katakana": "kana", "katakana-hiragana": "kana"}.get(name, name)
