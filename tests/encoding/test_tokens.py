import functools
import itertools
import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmsys_ensemble.data.battles import Battles, parse_battles
from lmsys_ensemble.data.tables import read_table
from lmsys_ensemble.encoding import tokens as tokens_module
from lmsys_ensemble.encoding.retention import FIELD_CODES, LITERAL, retention_table
from lmsys_ensemble.encoding.templates import TEMPLATES, get_template
from lmsys_ensemble.encoding.tokens import MAX_CHARACTERS_PER_TOKEN, Encoder
from lmsys_ensemble.encoding.truncation import POLICIES
from lmsys_ensemble.errors import ConfigError
from lmsys_ensemble.schema import TEXT_COLUMNS

from .conftest import BOS_ID, CONTROL_TOKENS, EOS_ID, render

PLENTY = 4_000
SCRAPS = st.sampled_from(
    [
        *CONTROL_TOKENS,
        "hello ",
        "Grüße",
        " besser",
        "🍍",
        "👍🏽",
        " ",
        "\n\n",
        "<prompt>: ",
        "x",
        "日本",
        "word " * 8,
        "\x00",
    ]
)
TEXTS = st.lists(SCRAPS, max_size=8).map("".join) | st.text(st.characters(codec="utf-8"), max_size=20)
ROWS = st.integers(1, 4).flatmap(
    lambda n_turns: st.tuples(*[st.lists(TEXTS, min_size=n_turns, max_size=n_turns).map(tuple)] * 3)
)
EVERY_WAY = pytest.mark.parametrize(("template", "policy"), list(itertools.product(TEMPLATES, POLICIES)))


def battles_of(*rows):
    prompts, responses_a, responses_b = ([row[field] for row in rows] for field in range(3))
    return Battles(pd.RangeIndex(len(rows)), prompts, responses_a, responses_b)


def encoder_of(tokenizer, template, policy, max_tokens=PLENTY):
    return Encoder(
        tokenizer, get_template(template), max_tokens=max_tokens, truncation=policy, bos_id=BOS_ID, eos_id=EOS_ID
    )


@functools.cache
def shortest_budget(tokenizer, template, policy):
    """Return the smallest max_tokens that an encoder takes."""
    for max_tokens in itertools.count(1):
        try:
            encoder_of(tokenizer, template, policy, max_tokens)
        except ConfigError:
            continue
        return max_tokens


def tokens_of(encoded, field, row=0):
    return encoded.ids[row][encoded.fields[row] == FIELD_CODES[field]].tolist()


# --- properties of every template and policy ------------------------------------------------------------------------


@EVERY_WAY
@given(row=ROWS, spare=st.integers(0, 60))
def test_a_row_is_never_over_budget_and_control_tokens_are_ours_alone(tokenizer, template, policy, row, spare):
    max_tokens = shortest_budget(tokenizer, template, policy) + spare
    encoded = encoder_of(tokenizer, template, policy, max_tokens).encode(battles_of(row))
    ids, fields = encoded.ids[0], encoded.fields[0]
    assert len(ids) == len(fields) == encoded.lengths[0] == encoded.retention["n_tokens"][0] <= max_tokens
    assert (ids[0], ids[-1]) == (BOS_ID, EOS_ID)
    assert fields[0] == fields[-1] == LITERAL
    assert ids[1:-1].min(initial=len(CONTROL_TOKENS)) >= len(CONTROL_TOKENS)


@EVERY_WAY
@given(row=ROWS, spare=st.integers(0, 60))
def test_the_account_says_what_was_kept_and_what_was_cut(tokenizer, template, policy, row, spare):
    whole = encoder_of(tokenizer, template, policy).encode(battles_of(row))
    max_tokens = shortest_budget(tokenizer, template, policy) + spare
    encoded = encoder_of(tokenizer, template, policy, max_tokens).encode(battles_of(row))
    account = encoded.retention.loc[0]
    for field in TEXT_COLUMNS:
        kept, had = len(tokens_of(encoded, field)), len(tokens_of(whole, field))
        assert (account[f"{field}_kept"], account[f"{field}_cut"]) == (kept, had - kept)
        assert (f"{field} cut entirely" in account["note"]) == (had > 0 == kept)
        assert (f"{field} empty" in account["note"]) == (had == 0)
    assert account["truncated"] == any(account[f"{field}_cut"] for field in TEXT_COLUMNS)
    assert not whole.retention["truncated"][0]


@EVERY_WAY
@given(row=ROWS, spare=st.integers(0, 200))
def test_a_row_that_fits_is_not_cut(tokenizer, template, policy, row, spare):
    whole = encoder_of(tokenizer, template, policy).encode(battles_of(row))
    needed = whole.lengths[0]
    if policy == "per_field":  # a third each, whether the others need theirs or not
        needed = 2 + 3 * needed
    max_tokens = max(shortest_budget(tokenizer, template, policy), needed) + spare
    encoded = encoder_of(tokenizer, template, policy, max_tokens).encode(battles_of(row))
    assert encoded.ids[0].tolist() == whole.ids[0].tolist()
    assert not encoded.retention["truncated"][0]


@pytest.mark.parametrize(
    ("template", "policy"),
    [(name, policy) for name in TEMPLATES for policy in POLICIES if (name, policy) != ("turns", "per_field")],
)
@given(row=ROWS)
def test_a_whole_row_is_the_text_of_the_template(tokenizer, template, policy, row):
    battles = battles_of(row)
    encoded = encoder_of(tokenizer, template, policy).encode(battles)
    text = tokenizer.decode(encoded.ids[0][1:-1].tolist(), skip_special_tokens=False)
    assert text == render(get_template(template), battles[0])


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("policy", ["balanced", "per_field"])
@given(row=ROWS, spare=st.integers(0, 60))
def test_both_responses_and_the_prompt_keep_something_at_every_budget(tokenizer, template, policy, row, spare):
    max_tokens = shortest_budget(tokenizer, template, policy) + spare
    account = encoder_of(tokenizer, template, policy, max_tokens).encode(battles_of(row)).retention.loc[0]
    for field, turns in zip(TEXT_COLUMNS, row, strict=True):
        if turns[-1]:
            assert account[f"{field}_kept"] > 0


# --- each policy ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("template", TEMPLATES)
@given(row=st.tuples(*[TEXTS.map(lambda text: (text,))] * 3), spare=st.integers(0, 60))
def test_balanced_uses_the_whole_budget_and_shares_it_fairly(tokenizer, template, row, spare):
    whole = encoder_of(tokenizer, template, "balanced").encode(battles_of(row))
    max_tokens = shortest_budget(tokenizer, template, "balanced") + spare
    encoded = encoder_of(tokenizer, template, "balanced", max_tokens).encode(battles_of(row))
    assert encoded.lengths[0] == min(whole.lengths[0], max_tokens)
    kept = {field: tokens_of(encoded, field) for field in TEXT_COLUMNS}
    for field in TEXT_COLUMNS:
        had = tokens_of(whole, field)
        assert kept[field] == had[: len(kept[field])]
        if kept[field] != had:
            assert max(map(len, kept.values())) <= len(kept[field]) + 1


@pytest.mark.parametrize("template", TEMPLATES)
def test_balanced_gives_up_the_earliest_turns_first(tokenizer, template):
    words = ("alpha", "beta", "gamma")
    battles = battles_of([tuple(f"{word} " * 10 for word in words)] * 3)
    shortest = shortest_budget(tokenizer, template, "balanced")
    whole = encoder_of(tokenizer, template, "balanced").encode(battles).lengths[0]
    seen = set()
    for max_tokens in range(shortest, whole + 1):
        ids = encoder_of(tokenizer, template, "balanced", max_tokens).encode(battles).ids[0]
        text = tokenizer.decode(ids[1:-1].tolist(), skip_special_tokens=False)
        first, second, third = (text.count(word) for word in words)
        assert second == 30 or first == 0
        assert third == 30 or second == 0
        seen.add((first, second, third))
    assert {(0, 0, 30), (0, 30, 30), (30, 30, 30)} < seen


@pytest.mark.parametrize("template", TEMPLATES)
@given(row=ROWS, spare=st.integers(0, 60))
def test_tail_is_the_beginning_of_the_text_as_the_public_notebooks_encode_it(tokenizer, template, row, spare):
    battles = battles_of(row)
    max_tokens = shortest_budget(tokenizer, template, "tail") + spare
    encoder = encoder_of(tokenizer, template, "tail", max_tokens)
    plain = encoder.tokenizer.encode(render(get_template(template), battles[0]), add_special_tokens=False).ids
    assert encoder.encode(battles).ids[0].tolist() == [BOS_ID, *plain[: max_tokens - 2], EOS_ID]


def test_tail_loses_response_b_where_the_others_keep_it(tokenizer):
    battles = battles_of((("long " * 200,), ("short",), ("shorter",)))
    accounts = {
        policy: encoder_of(tokenizer, "kaggle-gemma", policy, 64).encode(battles).retention.loc[0]
        for policy in POLICIES
    }
    assert accounts["tail"]["note"] == "response_a cut entirely, response_b cut entirely"
    for policy in ("balanced", "per_field"):
        assert accounts[policy]["note"] == ""
        assert accounts[policy]["response_b_cut"] == 0
    assert accounts["balanced"]["n_tokens"] == 64  # what the responses leave goes to the prompt
    assert accounts["per_field"]["n_tokens"] < 64


# --- text that is not what it seems ---------------------------------------------------------------------------------


@EVERY_WAY
@pytest.mark.parametrize("control", CONTROL_TOKENS)
def test_control_tokens_in_a_text_are_text(tokenizer, template, policy, control):
    text = f"{control}Ignore this.{control} {control}"
    control_ids = {tokenizer.token_to_id(token) for token in CONTROL_TOKENS}
    assert control_ids & set(tokenizer.encode(text).ids)  # what would happen without care
    encoder = Encoder(tokenizer, get_template(template), max_tokens=PLENTY, truncation=policy)
    encoded = encoder.encode(battles_of(((text,), (control,), (control,))))
    assert not control_ids & set(encoded.ids[0].tolist())
    assert text in tokenizer.decode(encoded.ids[0].tolist(), skip_special_tokens=False)


@EVERY_WAY
def test_an_empty_battle_has_a_defined_result_and_a_flag(tokenizer, template, policy):
    encoded = encoder_of(tokenizer, template, policy).encode(battles_of((("",), ("",), ("",))))
    text = tokenizer.decode(encoded.ids[0][1:-1].tolist(), skip_special_tokens=False)
    assert text == render(get_template(template), battles_of((("",), ("",), ("",)))[0])
    assert (encoded.fields[0] == LITERAL).all()
    assert encoded.retention["note"][0] == "prompt empty, response_a empty, response_b empty"
    assert not encoded.retention["truncated"][0]


class Reader:
    """A tokenizer that counts the characters it is given."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer
        self.n_characters = 0

    def _count(self, texts):
        self.n_characters += sum(map(len, texts))

    def encode(self, text, **options):
        self._count([text])
        return self.tokenizer.encode(text, **options)

    def encode_batch(self, texts, **options):
        self._count(texts)
        return self.tokenizer.encode_batch(texts, **options)

    def encode_batch_fast(self, texts, **options):
        self._count(texts)
        return self.tokenizer.encode_batch_fast(texts, **options)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize(
    ("template", "n_turns", "field"), [("kaggle-gemma", 1, 0), ("kaggle-llama", 500, 2), ("turns", 500, 0)]
)
def test_a_cell_of_50_megabytes_is_not_read_to_its_end(tokenizer, template, policy, n_turns, field):
    max_tokens = 256
    cells = [json.dumps(["short"] * n_turns)] * 3
    cells[field] = json.dumps(["words " * (50_000_000 // 6 // n_turns)] * n_turns)
    assert len(cells[field]) > 49_000_000
    battles = parse_battles(pd.DataFrame([["id", *cells]], columns=["id", *TEXT_COLUMNS]))
    encoder = encoder_of(tokenizer, template, policy, max_tokens)
    reader = encoder.tokenizer = Reader(encoder.tokenizer)
    encoded = encoder.encode(battles)
    literals = sum(len(piece.literal) for piece in get_template(template).pieces(battles[0]))
    # A field's worth for each field, and the words of the template.
    assert reader.n_characters <= 3 * MAX_CHARACTERS_PER_TOKEN * max_tokens + 6 * 500 + literals
    assert encoded.lengths[0] <= max_tokens
    account = encoded.retention.loc[0]
    assert account["truncated"]
    # An estimate of right size: "words " is one to four tokens.
    assert 50_000_000 / 12 < account[f"{TEXT_COLUMNS[field]}_cut"] < 50_000_000
    if policy != "tail" and n_turns == 1:
        assert account[["prompt_kept", "response_a_kept", "response_b_kept"]].min() > 0


def test_what_was_not_read_counts_as_cut_even_where_the_rest_left_room(tokenizer):
    max_tokens = 100
    text = " " * (MAX_CHARACTERS_PER_TOKEN * max_tokens + 1)
    encoder = encoder_of(tokenizer, "kaggle-gemma", "balanced", max_tokens)
    encoded = encoder.encode(battles_of(((text,), ("",), ("",))))
    assert encoded.lengths[0] < max_tokens
    assert encoded.retention["prompt_cut"][0] > 0
    assert encoded.retention["truncated"][0]


# --- the encoder ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", POLICIES)
def test_many_rows_are_encoded_like_each_by_itself_and_keep_their_order(tokenizer, policy):
    rows = [((f"question {i} " * (i % 7),), (f"yes {i}",), ("no",)) for i in range(1_100)]
    encoder = encoder_of(tokenizer, "turns", policy, 64)
    together = encoder.encode(battles_of(*rows))
    assert together.retention["id"].tolist() == list(range(1_100))
    for i in (0, 511, 512, 1_023, 1_024, 1_099):
        alone = encoder.encode(battles_of(rows[i]))
        assert together.ids[i].tolist() == alone.ids[0].tolist()
        assert together.fields[i].tolist() == alone.fields[0].tolist()
        assert together.retention.loc[i].drop("id").equals(alone.retention.loc[0].drop("id").rename(i))


def test_the_account_is_made_when_it_is_asked_for_and_once(tokenizer, monkeypatch):
    made = []

    def tabulate(*given):
        made.append(len(given[0]))
        return retention_table(*given)

    monkeypatch.setattr(tokens_module, "retention_table", tabulate)
    encoded = encoder_of(tokenizer, "turns", "balanced", 64).encode(battles_of((("p",), ("a " * 99,), ("b",))))
    assert encoded.lengths.tolist() == [64]
    assert not made
    assert encoded.retention["truncated"].all()
    assert encoded.retention["response_a_cut"].sum() > 0
    assert made == [1]


@pytest.mark.parametrize("policy", POLICIES)
def test_rows_that_are_put_together_keep_tokens_and_account(tokenizer, policy):
    rows = [(("p",), (f"a{i} " * 50,), ("b",)) for i in range(4)]
    encoder = encoder_of(tokenizer, "turns", policy, 64)
    whole = encoder.encode(battles_of(*rows))
    parts = encoder.encode(battles_of(*rows)[:3]) + encoder.encode(battles_of(*rows)[3:])
    assert [row.tolist() for row in parts.ids] == [row.tolist() for row in whole.ids]
    assert [row.tolist() for row in parts.fields] == [row.tolist() for row in whole.fields]
    pd.testing.assert_frame_equal(parts.retention, whole.retention)


def test_no_rows_make_an_empty_account(tokenizer):
    encoded = encoder_of(tokenizer, "turns", "balanced").encode(battles_of())
    assert len(encoded) == len(encoded.retention) == 0
    assert encoded.lengths.shape == (0,)


def test_settings_of_the_given_tokenizer_neither_matter_nor_change(tokenizer):
    given_tokenizer = type(tokenizer).from_str(tokenizer.to_str())
    given_tokenizer.enable_truncation(4)
    given_tokenizer.enable_padding(length=64)
    row = battles_of((("Which is better?",), ("This one",), ("That one <eos>",)))
    encoded = encoder_of(given_tokenizer, "turns", "tail").encode(row)
    assert encoded.ids[0].tolist() == encoder_of(tokenizer, "turns", "tail").encode(row).ids[0].tolist()
    assert given_tokenizer.truncation["max_length"] == 4
    assert given_tokenizer.padding["length"] == 64
    assert EOS_ID in given_tokenizer.encode("<eos>").ids


@pytest.mark.parametrize(("bos_id", "eos_id"), [(None, None), (1, None), (None, 2), (1, 2)])
def test_control_tokens_are_added_as_asked_and_count(tokenizer, bos_id, eos_id):
    row = battles_of((("word " * 100,), ("a",), ("b",)))
    encoder = Encoder(tokenizer, get_template("turns"), max_tokens=50, bos_id=bos_id, eos_id=eos_id)
    ids = encoder.encode(row).ids[0].tolist()
    assert len(ids) == 50
    assert (ids[0] == BOS_ID, ids[-1] == EOS_ID) == (bos_id is not None, eos_id is not None)


@EVERY_WAY
def test_a_budget_without_room_for_the_template_is_refused_with_the_least_that_works(tokenizer, template, policy):
    least = shortest_budget(tokenizer, template, policy)
    with pytest.raises(ConfigError, match=rf"max_tokens={least - 1} is too short: .* needs at least {least} tokens"):
        encoder_of(tokenizer, template, policy, least - 1)


def test_an_unknown_policy_is_refused(tokenizer):
    with pytest.raises(ConfigError, match="unknown truncation 'middle'; known: tail, per_field, balanced"):
        encoder_of(tokenizer, "turns", "middle")


@pytest.mark.parametrize("policy", POLICIES)
def test_real_conversations_keep_to_the_budget_and_to_both_responses(data_folder, tokenizer, policy):
    battles = parse_battles(read_table(data_folder / "hh_multi_turn.parquet").head(300))
    encoded = encoder_of(tokenizer, "turns", policy, 256).encode(battles)
    assert 250 < encoded.lengths.max() <= 256
    assert (encoded.retention["truncated"]).sum() > 100
    cut = encoded.retention["note"].str.contains("cut entirely")
    assert cut.any() == (policy == "tail")
    assert all(np.all(ids[1:-1] >= len(CONTROL_TOKENS)) for ids in encoded.ids)


def test_no_rows_have_an_account_of_the_same_kinds(tokenizer):
    encoder = encoder_of(tokenizer, "turns", "balanced", 64)
    some, none = (encoder.encode(battles_of(("p", "a", "b"))[:stop]).retention for stop in (1, 0))
    assert len(none) == 0
    counted = [name for name in some.columns if name not in ("id", "note")]
    assert none[counted].dtypes.equals(some[counted].dtypes)
    assert none["n_tokens"].sum() == 0
