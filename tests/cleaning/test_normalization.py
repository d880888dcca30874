import pytest

from lmsys_ensemble.cleaning.normalization import battle_key, normalise, words
from lmsys_ensemble.data.battles import Battle


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is AI?", "  what\n is\tai? "),
        ("ﬁne Ａ①", "fine a1"),
        ("Stra\u00dfe", "STRASSE"),
        ("e\u0301t\u00e9", "\u00e9te\u0301"),
        ("zero\u200bwidth\ufeff", "zerowidth"),
    ],
)
def test_what_differs_only_in_case_spacing_or_form_is_equal(one, other):
    assert normalise([one]) == normalise([other])


def test_the_borders_of_turns_are_spaces_and_other_differences_stay():
    assert normalise(["Hi", "there"]) == normalise(["hi there"])
    assert len({normalise([text]) for text in ("2 + 2", "2 - 2", "2 2", "C", "C++", "")}) == 6


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("what's 2+2?", ["what", "s", "2", "2"]),
        ("你好, world", ["你", "好", "world"]),
        ("สวัสดี", list("สวัสดี")),
        ("abc中文", ["abc", "中", "文"]),
        ("snake_case", ["snake", "case"]),
        ("?!", ["?!"]),
        ("", [""]),
    ],
)
def test_words_have_no_punctuation_and_unspaced_scripts_fall_into_characters(text, found):
    assert words(text) == found


def test_a_key_is_the_same_in_both_orders_and_says_which():
    one = battle_key(Battle(1, ("Hi?",), ("Yes.",), ("No.",)))
    other = battle_key(Battle(2, ("hi?",), ("no.",), ("YES.",)))
    assert one.prompt == other.prompt
    assert one.responses == other.responses
    assert one.is_swapped != other.is_swapped


def test_responses_that_differ_only_in_what_is_normalised_away_are_told_apart():
    one = battle_key(Battle(1, ("Hi?",), ("Yes",), ("yes",)))
    other = battle_key(Battle(2, ("Hi?",), ("yes",), ("Yes",)))
    assert one.responses == other.responses
    assert one.is_swapped != other.is_swapped
