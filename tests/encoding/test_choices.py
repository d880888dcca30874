import copy
import functools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmsys_ensemble.data.battles import Battles, parse_battles
from lmsys_ensemble.data.tables import read_table
from lmsys_ensemble.encoding.choice_prompts import make_wordings
from lmsys_ensemble.encoding.choices import ChoiceEncoder, Question
from lmsys_ensemble.encoding.prefixes import find_families
from lmsys_ensemble.encoding.retention import FIELD_CODES
from lmsys_ensemble.errors import ConfigError
from tests.tiny import make_battles, make_tokenizer

BEFORE = (1, 40, 41)
LONGEST = 90


@functools.cache
def make_encoder(max_tokens=LONGEST, afters=((50, 51), (50, 52, 53)), truncation="balanced"):
    """Return an encoder of questions that differ behind the texts only."""
    (wording,) = make_wordings("verdict", None)
    questions = [
        Question(f"question {number}", wording.template, BEFORE, after, (60, 61 + number, 70))
        for number, after in enumerate(afters)
    ]
    tokenizer = copy.deepcopy(make_tokenizer().backend_tokenizer)
    return ChoiceEncoder(tokenizer, questions, max_tokens=max_tokens, truncation=truncation)


TURNS = st.lists(
    st.tuples(*[st.text("ab <eos>\n日", max_size=40) | st.just("kettle river " * 60) for _ in range(3)]),
    min_size=1,
    max_size=3,
)


@settings(max_examples=25)
@given(st.lists(TURNS, min_size=1, max_size=4), st.sampled_from(["balanced", "per_field", "tail"]))
def test_however_long_a_battle_is_every_question_stands_whole_at_its_ends(rows, truncation):
    encoder = make_encoder(truncation=truncation)
    columns = [[tuple(turn[field] for turn in turns) for turns in rows] for field in range(3)]
    encoded = encoder.encode(Battles(pd.RangeIndex(len(rows)), *columns))
    assert len(encoded) == len(rows) * len(encoder.questions)
    for row, (ids, fields) in enumerate(zip(encoded.ids, encoded.fields, strict=True)):
        question = encoder.questions[row % len(encoder.questions)]
        assert len(ids) <= LONGEST
        assert tuple(ids[: len(BEFORE)]) == BEFORE
        assert tuple(ids[-len(question.after) :]) == question.after
        assert not fields[: len(BEFORE)].any()
        assert not fields[-len(question.after) :].any()
        if truncation == "balanced":
            last = rows[row // len(encoder.questions)][-1]
            kept = {code for code, text in zip(FIELD_CODES.values(), last, strict=True) if text}
            assert kept <= set(fields.tolist())
        assert not set(ids[len(BEFORE) : -len(question.after)].tolist()) & {0, 1, 2}  # <eos> stays text


def test_questions_that_differ_behind_the_texts_begin_alike_however_they_are_cut():
    encoded = make_encoder().encode(make_battles(1, longest=200))
    one, other = encoded.ids
    assert encoded.retention["truncated"].all()
    assert one[:-2].tolist() == other[:-3].tolist()
    (family,) = find_families(encoded.ids, encoded.fields, 1000)
    assert family.n_shared >= len(one) - 2


def test_the_fixed_beginning_of_all_battles_is_computed_once_in_a_batch():
    before = tuple(range(100, 140))
    (wording,) = make_wordings("verdict", None)
    asked = [Question("mine", wording.template, before, (50, 51), (60, 61, 70))]
    encoder = ChoiceEncoder(copy.deepcopy(make_tokenizer().backend_tokenizer), asked, max_tokens=200)
    encoded = encoder.encode(make_battles(6))
    (family,) = find_families(encoded.ids, encoded.fields, 5000)
    assert sorted(family.rows) == list(range(6))
    assert family.n_shared >= len(before)


def test_rows_lie_question_by_question_and_columns_find_the_labels():
    encoder = make_encoder(max_tokens=400)
    battles = make_battles(3)
    encoded = encoder.encode(battles)
    assert encoded.row_ids.tolist() == [0, 0, 1, 1, 2, 2]
    alone = make_encoder(max_tokens=400, afters=((50, 51),)).encode(battles)
    assert [row.tolist() for row in encoded.ids[::2]] == [row.tolist() for row in alone.ids]
    assert encoder.label_ids == (60, 61, 62, 70)
    assert encoder.columns.tolist() == [[0, 1, 3], [0, 2, 3]]


def test_too_little_room_for_a_question_is_said():
    with pytest.raises(ConfigError, match="max_tokens=20 is too short"):
        make_encoder(max_tokens=20, afters=((50, 51),))


def test_rows_of_the_preference_data_end_with_their_question_the_longest_first(data_folder):
    encoder = make_encoder(max_tokens=128)
    for path in sorted(data_folder.glob("*.parquet")):
        battles = parse_battles(read_table(path))
        longest = np.argsort(-battles.characters(), kind="stable")
        encoded = encoder.encode(battles.take(np.concatenate([longest[:5], longest[:: len(longest) // 10]])))
        assert encoded.lengths.max() == 128
        for row, ids in enumerate(encoded.ids):
            question = encoder.questions[row % 2]
            assert tuple(ids[:3]) == BEFORE
            assert tuple(ids[-len(question.after) :]) == question.after
