import numpy as np
import pytest

from lmsys_ensemble.data.conversations import UnusableRow, chosen_is_a, split_messages, split_transcript


def test_a_system_message_begins_the_first_prompt():
    spoken = [("system", "Be brief."), ("user", "Hi"), ("assistant", None)]
    assert split_messages([{"role": role, "content": text} for role, text in spoken]) == (("Be brief.\n\nHi",), ("",))


def test_other_names_of_roles_and_arrays_of_messages():
    spoken = np.array([{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}], dtype=object)
    assert split_messages(spoken) == (("Hi",), ("Hello",))


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        (None, "got NoneType"),
        ([], "got list"),
        (["Hi"], "got str"),
        ([{"content": "Hi"}], "no role"),
        ([{"role": "user", "content": 3}, {"role": "assistant", "content": ""}], "int, expected text"),
        ([{"role": "system", "content": "x"}], "take turns"),
        ([{"role": "user", "content": "x"}, {"role": "user", "content": "y"}], "take turns"),
        ([{"role": "assistant", "content": "x"}, {"role": "user", "content": "y"}], "take turns"),
        ([{"role": "user", "content": "x"}, {"role": "tool", "content": "y"}], "take turns"),
    ],
)
def test_what_is_no_conversation_says_why(messages, words):
    with pytest.raises(UnusableRow, match=words):
        split_messages(messages)


def test_a_transcript_splits_only_where_a_speaker_begins():
    text = "\n\nHuman: Who is Human: here?\nAssistant: no\n\nAssistant:\n\nHuman: x\n\nAssistant: end "
    assert split_transcript(text) == (("Who is Human: here?\nAssistant: no", "x"), ("", "end"))


@pytest.mark.parametrize("text", [None, "", "Hello", "Hello\n\nHuman: Hi\n\nAssistant: x"])
def test_what_is_no_transcript_says_why(text):
    with pytest.raises(UnusableRow, match="transcript"):
        split_transcript(text)


def test_exactly_one_of_two_responses_comes_first_whichever_was_chosen():
    firsts = 0
    for number in range(50):
        prompt, one, other = (f"p{number}",), (f"x{number}",), (f"y{number}",)
        assert chosen_is_a(prompt, one, other) != chosen_is_a(prompt, other, one)
        firsts += chosen_is_a(prompt, one, other)
    assert 10 < firsts < 40
