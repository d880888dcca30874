import pytest

from lmsys_ensemble.data.battles import Battle
from lmsys_ensemble.encoding.choice_prompts import CHOICE_PROMPTS, make_wordings, parse_labels, parse_prompts
from lmsys_ensemble.errors import ConfigError

BATTLE = Battle(1, ("2 + 2?",), ("4",), ("5",))


def text_of(wording):
    pieces = "".join(piece.literal + piece.text for piece in wording.template.pieces(BATTLE))
    return wording.system + pieces + wording.question + wording.plain_cue


@pytest.mark.parametrize("prompt", CHOICE_PROMPTS)
@pytest.mark.parametrize("labels", [("A", "B", "tie"), ("1", "2", "3"), ("first", "second")])
def test_labels_stand_in_headings_and_question_and_no_placeholder_is_left(prompt, labels):
    (wording,) = make_wordings(prompt, labels)
    text = text_of(wording)
    assert "{" not in text
    assert all(label in wording.question for label in labels)
    assert labels[0] in wording.template.response_a
    assert labels[1] in wording.template.response_b
    assert ("equally" in text or "tie" in text) == (len(labels) == 3)


def test_every_prompt_comes_with_every_set_of_labels():
    wordings = make_wordings(["verdict", "brackets"], [["A", "B", "C"], ["1", "2", "3"]])
    assert [(wording.template.name, wording.labels[0]) for wording in wordings] == [
        ("verdict", "A"),
        ("verdict", "1"),
        ("brackets", "A"),
        ("brackets", "1"),
    ]


def test_a_prompt_of_ones_own_changes_what_it_states():
    (wording,) = make_wordings({"system": "Choose {a} or {b}.", "question": "\n\n{a}, {b} or {tie}?"}, None)
    assert (wording.system, wording.question) == ("Choose A or B.", "\n\nA, B or tie?")
    assert wording.template.prompt == CHOICE_PROMPTS["verdict"].prompt


def test_text_in_braces_that_names_nothing_is_refused():
    with pytest.raises(
        ConfigError, match=r"nothing to put in for \{c\} in 'A or \{c\}\?'; known: \{a\}, \{b\}, \{tie\}"
    ):
        make_wordings({"question": "A or {c}?"}, None)
    with pytest.raises(ConfigError, match=r"\{tie\}.*known: \{a\}, \{b\}$"):
        make_wordings({"question_without_tie": "{tie}?"}, ["A", "B"])


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ("verdikt", "did you mean 'verdict'"),
        ({"sistem": "x"}, "unknown key 'sistem' .did you mean 'system'"),
        ([], "prompts is empty"),
        ([3], "unknown prompt '3'"),
    ],
)
def test_prompts_that_are_not_there_are_named(prompts, message):
    with pytest.raises(ConfigError, match=message):
        parse_prompts(prompts)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["A"], "one text per class"),
        ("ABC", "one text per class"),
        ([1, 2, 3], "one text per class"),
        (["A", " B", "C"], "without blanks"),
        (["A", "", "C"], "one text per class"),
        (["A", "B", "A"], "must differ"),
        ([["A", "B"], ["A", "B", "C"]], "same classes"),
        ([], "same classes"),
    ],
)
def test_labels_that_cannot_be_are_refused(labels, message):
    with pytest.raises(ConfigError, match=message):
        parse_labels(labels)
