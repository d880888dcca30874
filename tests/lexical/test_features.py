"""What is counted in battles."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmsys_ensemble.data.battles import parse_battles
from lmsys_ensemble.lexical import features
from lmsys_ensemble.lexical.features import (
    OF_PAIR,
    OF_PROMPT,
    OF_RESPONSE,
    describe,
    describe_pair,
    describe_prompt,
    describe_response,
    feature_names,
    read_in_chunks,
    read_text,
    read_texts,
    swap_features,
)
from tests.lexical.longer import make_table, odd_battles

TURNS = st.lists(st.text(max_size=40), min_size=1, max_size=3).map(tuple)


def of_response(text, prompt="What is it?"):
    numbers = describe_response(read_text((text,)), read_text((prompt,)), "latin")
    return dict(zip(OF_RESPONSE, numbers, strict=True))


@pytest.mark.parametrize(
    ("text", "feature", "n"),
    [
        ("```\na\n```\ntext\n```\nb\n```", "code blocks", 2),
        ("use `a` and `b`, not ```c```", "inline code", 2),
        ("# One\n## Two\n#no heading\na # b", "headings", 2),
        ("- a\n* b\n  • c\n-no\nx - y", "bullets", 3),
        ("1. a\n2) b\n2024 was\n1.5", "numbered items", 2),
        ("| a | b |\n|---|---|\nc | d", "table rows", 2),
        ("**a** and **b**", "bold", 2),
        ("[a](http://b.c) http://d.e", "links", 3),
        ("Why? Who？ Me!", "questions", 2),
        ("🙂🙂 ok", "emoji", 2),
        ("a\n\nb\n\nc", "paragraphs", 2),
    ],
)
def test_format_is_counted(text, feature, n):
    assert of_response(text)[feature] == pytest.approx(np.log1p(n))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("I’m sorry, but I can’t help.", (1, 0)),
        ("As an AI language model, I like tea.", (0, 1)),
        ("对不起，我不能回答。", (1, 0)),
        ("Say: " + "so " * 200 + "I'm sorry", (0, 0)),
        ("Tea is made of leaves.", (0, 0)),
    ],
)
def test_refusals_are_found_where_an_answer_begins(text, expected):
    found = of_response(text)
    assert (found["refusal"], found["speaks of itself"]) == expected


def test_shares_overlap_and_script_are_those_of_the_text():
    found = of_response("It is AB 12", "what is it")
    assert (found["digits"], found["capitals"]) == pytest.approx((2 / 11, 3 / 11))
    assert found["repeats the prompt"] == pytest.approx(2 / 4)
    assert found["answers the prompt's words"] == pytest.approx(2 / 3)
    assert (found["script of the prompt"], of_response("Привет")["script of the prompt"]) == (1, 0)
    assert describe_pair(read_text(("a b c",)), read_text(("B c d",))) == [pytest.approx(2 / 4), 0]
    assert dict(zip(OF_PROMPT, describe_prompt(read_text(("a?", "b?"))), strict=True))["prompt: turns"] == np.log(2)


@settings(max_examples=20, deadline=None)
@given(TURNS, TURNS, TURNS)
def test_any_text_has_finite_features_that_swap_with_the_responses(prompt, a, b):
    prompt, a, b = (read_text(turns) for turns in (prompt, a, b))
    one, other = describe(([prompt], [a], [b])), describe(([prompt], [b], [a]))
    assert np.isfinite(one.differences).all()
    assert np.isfinite(one.shared).all()
    np.testing.assert_array_equal(swap_features(one).differences, other.differences)
    np.testing.assert_array_equal(one.shared, other.shared)
    assert (one.difference_names, one.shared_names) == feature_names(0)
    assert len(one.shared_names) == one.shared.shape[1] == 2 * len(OF_RESPONSE) + len(OF_PROMPT) + len(OF_PAIR)


def test_odd_and_empty_texts_are_described_alike_in_one_chunk_and_in_many(monkeypatch):
    battles = parse_battles(odd_battles())
    whole = describe(read_texts(battles))
    assert np.isfinite(whole.differences).all()
    monkeypatch.setattr(features, "CHUNK_ROWS", 10)
    parts = [describe(texts).differences for texts in read_in_chunks(battles)]
    assert len(parts) > 3
    np.testing.assert_array_equal(np.vstack(parts), whole.differences)


def test_a_huge_text_is_read_up_to_a_limit_but_its_length_counts_whole(monkeypatch):
    monkeypatch.setattr(features, "MAX_CHARACTERS", 100)
    text = read_text(("a b " * 1000,))
    assert (len(text.text), text.words.total()) == (100, 50)
    assert of_response("a b " * 1000)["log characters"] == pytest.approx(np.log1p(4000))


def test_rows_that_are_taken_are_those_rows():
    whole = describe(read_texts(parse_battles(make_table(6))))
    np.testing.assert_array_equal(whole.take(np.array([4, 1])).shared, whole.shared[[4, 1]])
