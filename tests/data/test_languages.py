"""Script and language of texts."""

import builtins

import pandas as pd
import pytest

from lmsys_ensemble.data import languages
from lmsys_ensemble.data.battles import parse_battles
from lmsys_ensemble.data.languages import LANGUAGE, SCRIPT, column_of, language_of, script_of
from lmsys_ensemble.errors import MissingDependencyError

PROMPTS = {
    "en": "Explain in two sentences how a refrigerator keeps food cold, please.",
    "de": "Erkläre mir bitte in zwei Sätzen, wie ein Kühlschrank das Essen kalt hält.",
    "ru": "Объясни, пожалуйста, в двух предложениях, как холодильник сохраняет еду холодной.",
    "ja": "冷蔵庫がどのように食べ物を冷やすのか、二つの文で説明してください。",
    "ko": "냉장고가 음식을 차갑게 유지하는 방법을 두 문장으로 설명해 주세요.",
}


def battles_of(prompts, responses="4."):
    return parse_battles(
        pd.DataFrame({"id": range(len(prompts)), "prompt": prompts, "response_a": responses, "response_b": responses})
    )


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("Grüße aus Köln", "latin"),
        ("Привет, Bob", "cyrillic"),
        ("今日はいい天気", "japanese"),
        ("カタカナ", "japanese"),
        ("今天天气很好", "han"),
        ("안녕하세요", "hangul"),
        ("مرحبا", "arabic"),
        ("שלום", "hebrew"),
        ("नमस्ते", "devanagari"),
        ("Ｆｕｌｌ", "latin"),
        ("2 + 2 = 4 🍍", "none"),
        ("", "none"),
    ],
)
def test_scripts(text, script):
    assert script_of([text]) == script


def test_the_script_of_a_battle_is_that_of_its_prompt():
    assert column_of(battles_of(list(PROMPTS.values())), SCRIPT) == [
        "latin", "latin", "cyrillic", "japanese", "hangul",
    ]  # fmt: skip


def test_languages_are_told_apart_and_the_same_text_has_always_the_same():
    pytest.importorskip("py3langid", reason="languages are told by an optional package")
    battles = battles_of(list(PROMPTS.values()))
    assert column_of(battles, LANGUAGE) == list(PROMPTS)
    assert column_of(battles, LANGUAGE) == list(PROMPTS)
    assert language_of(["2 + 2 = 4"]) == "none"


def test_a_prompt_of_a_few_letters_is_in_the_language_of_its_responses():
    pytest.importorskip("py3langid", reason="languages are told by an optional package")
    assert column_of(battles_of(["?"], PROMPTS["de"]), LANGUAGE) == ["de"]


def test_without_the_package_the_error_names_what_to_install_also_for_no_rows(monkeypatch):
    imported = builtins.__import__

    def refuse(name, *rest):
        if name.startswith("py3langid"):
            raise ImportError(name)
        return imported(name, *rest)

    languages._classifier.cache_clear()
    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(MissingDependencyError, match=r"lmsys-ensemble\[language\]"):
        column_of(battles_of([]), LANGUAGE)
