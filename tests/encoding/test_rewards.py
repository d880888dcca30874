import numpy as np
import pandas as pd
import pytest

from lmsys_ensemble.data.battles import Battles
from lmsys_ensemble.encoding.retention import FIELD_CODES
from lmsys_ensemble.encoding.rewards import Frame, RewardEncoder, Slot, canonical_order
from lmsys_ensemble.errors import ConfigError
from tests.tiny import BOS, EOS, make_battles, make_tokenizer

SYSTEM = 42
"""Stands for a system prompt: only at the beginning of a conversation."""


def make_frame(n_turns):
    later = [Slot((EOS, BOS), "\nuser: "), Slot((EOS, BOS), "\nyou: ")] * n_turns
    return Frame((Slot((BOS, SYSTEM), "user: "), *later[1 : 2 * n_turns]), (EOS, 99))


def make_encoder(max_tokens=150, frame=make_frame):
    return RewardEncoder(make_tokenizer().backend_tokenizer, frame, max_tokens=max_tokens)


def battle(prompt, a, b):
    return Battles(pd.RangeIndex(1), [prompt], [a], [b])


def read(ids):
    return make_tokenizer().decode(ids, skip_special_tokens=False)


def test_a_battle_is_the_prompt_with_either_response():
    encoded = make_encoder().encode(battle(("hot water", "tea"), ("kettle", "river"), ("stone", "")))
    one, other = map(read, encoded.ids)
    system, end = read([SYSTEM]), read([99])
    assert (
        one
        == f"<bos>{system}user: hot water<eos><bos>\nyou: kettle<eos><bos>\nuser: tea<eos><bos>\nyou: river<eos>{end}"
    )
    assert (
        other == f"<bos>{system}user: hot water<eos><bos>\nyou: stone<eos><bos>\nuser: tea<eos><bos>\nyou: <eos>{end}"
    )
    assert encoded.row_ids.tolist() == [0, 0]
    assert not encoded.retention["truncated"].any()


def test_swapped_responses_give_swapped_sequences_and_the_same_order_of_computing():
    battles = make_battles(20)
    encoder = make_encoder(80)
    encoded, swapped = encoder.encode(battles), encoder.encode(battles.swapped())
    for row in range(40):
        np.testing.assert_array_equal(encoded.ids[row], swapped.ids[row ^ 1])
        np.testing.assert_array_equal(encoded.fields[row], swapped.fields[row ^ 1])
    orders = canonical_order(encoded.ids), canonical_order(swapped.ids)
    assert [encoded.ids[row].tolist() for row in orders[0]] == [swapped.ids[row].tolist() for row in orders[1]]
    assert 0 < (orders[0] != np.arange(40)).sum() < 40


def test_control_tokens_in_texts_stay_text():
    encoded = make_encoder().encode(battle(("<eos><bos>",), ("<pad><eos>",), ("tea",)))
    assert [np.isin(ids, (BOS, EOS)).sum() for ids in encoded.ids] == [4, 4]
    assert "<eos><bos>" in read(encoded.ids[0][2:-4])


@pytest.mark.parametrize("max_tokens", [24, 60, 100])
def test_only_texts_are_cut_and_both_give_way(max_tokens):
    encoded = make_encoder(max_tokens).encode(battle(("kettle " * 300,), ("river " * 300,), ("tea",)))
    assert [len(ids) for ids in encoded.ids] == [max_tokens, max_tokens]
    for ids in encoded.ids:
        assert ids[:2].tolist() == [BOS, SYSTEM]
        assert ids[-2:].tolist() == [EOS, 99]
        assert np.isin(ids, (BOS, EOS)).sum() == 4
    codes = [np.bincount(fields, minlength=4) for fields in encoded.fields]
    assert abs(codes[0][FIELD_CODES["prompt"]] - codes[0][FIELD_CODES["response_a"]]) <= 1
    assert codes[1][FIELD_CODES["prompt"]] > codes[1][FIELD_CODES["response_a"]]
    assert encoded.retention["truncated"].tolist() == [True, True]
    assert "tea<eos>" in read(encoded.ids[1])


def test_dropped_turns_leave_a_shorter_conversation_with_its_own_beginning():
    turns = tuple(f"{word} " * 20 for word in ("hot", "tea", "river"))
    encoded = make_encoder(90).encode(battle(turns, turns, ("", "", "")))
    one, other = map(read, encoded.ids)
    assert one.startswith(f"<bos>{read([SYSTEM])}user: ")
    assert one.count("user:") == 1
    assert "river" in one
    assert "hot" not in one
    assert other.count("user:") == 2  # the other response leaves room
    assert all(len(ids) <= 90 for ids in encoded.ids)
    alone = make_encoder(90).encode(battle(turns[2:], turns[2:], ("",)))
    np.testing.assert_array_equal(encoded.ids[0], alone.ids[0])
    table = encoded.retention.iloc[0]
    assert table["prompt_cut"] + table["prompt_kept"] >= 60
    assert table["prompt_cut"] >= 40


def test_of_endless_texts_no_more_is_read_than_can_be_kept():
    endless = "tea " * 200_000
    encoder = make_encoder(60)
    encoded = encoder.encode(battle((endless,) * 40, (endless,) * 40, ("tea",) * 40))
    assert encoded.lengths.max() <= 60
    assert encoded.retention["prompt_cut"].min() > 1_000_000
    assert max(encoder._frames) <= 2


def test_blanks_are_taken_off_where_the_template_does():
    def trimming(n_turns):
        return Frame((Slot((BOS,), "", trim=True), Slot((EOS,), "")), (EOS,))

    one = make_encoder(frame=trimming).encode(battle(("  tea\n",), (" river ",), ("river ",)))
    assert [read(ids) for ids in one.ids] == ["<bos>tea<eos> river <eos>", "<bos>tea<eos>river <eos>"]


def test_too_few_tokens_for_a_frame_are_refused():
    least = next(n for n in range(1, 60) if _fits(n))
    assert least > 12
    with pytest.raises(ConfigError, match=rf"max_tokens={least - 1} is too short.*at least {least} tokens"):
        make_encoder(least - 1)
    encoded = make_encoder(least).encode(make_battles(5))
    assert encoded.lengths.max() == least


def _fits(max_tokens):
    try:
        make_encoder(max_tokens)
    except ConfigError:
        return False
    return True


def test_no_battles_give_no_rows():
    assert len(make_encoder().encode(make_battles(3)[:0])) == 0
