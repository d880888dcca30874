import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from lmsys_ensemble.errors import ConfigError
from lmsys_ensemble.modeling.rewards import Writing, chat_frame, make_reward_encoder
from tests.reward_models import CHAT
from tests.tiny import BOS, EOS, make_battles, make_tokenizer

HEADER = "<bos>{{ message['role'] }}\n\n{{ message['content'] | trim }}<eos>"
TRIMMED = "{% for message in messages %}" + HEADER + "{% endfor %}"
TRIMMED_USER = (
    "{% for message in messages %}{% if message['role'] == 'user' %}<bos>{{ message['content'] | trim }}"
    "{% else %}<eos>{{ message['content'] }}<eos>{% endif %}{% endfor %}"
)
SYSTEM = "{% if messages[0]['role'] != 'system' %}<bos>system\nBe kind.<eos>\n{% endif %}" + CHAT
WORDS = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}[INST] {{ message['content'] }} "
    "[/INST]{% else %} {{ message['content'] }}{{ eos_token }}{% endif %}{% endfor %}"
)


def save_tokenizer(folder, template):
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=make_tokenizer().backend_tokenizer, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>"
    )
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    return folder


def make_encoder(folder, **settings):
    values = {"chat": None, "chat_options": {}, "bos": None, "eos": None, "max_tokens": 2000}
    return make_reward_encoder(folder, Writing(**{**values, **settings}))


@pytest.mark.parametrize(
    "template", [CHAT, TRIMMED, TRIMMED_USER, SYSTEM, WORDS], ids=["chat", "trimmed", "user trimmed", "system", "words"]
)
def test_conversations_are_those_that_the_chat_template_writes(tmp_path, template):
    folder = save_tokenizer(tmp_path, template)
    battles = make_battles(6)
    battles.prompts[2] = tuple(f" {text}\n" for text in battles.prompts[2])
    battles.responses_b[2] = tuple(f"\n{text}  " for text in battles.responses_b[2])
    encoded = make_encoder(folder).encode(battles)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    expected = []
    for battle in battles:
        for response in (battle.response_a, battle.response_b):
            messages = []
            for asked, answered in zip(battle.prompt, response, strict=True):
                messages += [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
            text = tokenizer.apply_chat_template(messages, tokenize=False)
            expected.append(tokenizer(text, add_special_tokens=False)["input_ids"])
    assert [ids.tolist() for ids in encoded.ids] == expected


def test_without_a_chat_template_turns_are_written_out(tmp_path):
    make_tokenizer().save_pretrained(tmp_path)
    battles = make_battles(6)
    battle = next(battle for battle in battles if len(battle.prompt) == 2)
    ids = make_encoder(tmp_path).encode(battles).ids[2 * battle.id]
    parts = [
        f"<prompt>: {asked}\n\n<response>: {answered}"
        for asked, answered in zip(battle.prompt, battle.response_a, strict=True)
    ]
    assert make_tokenizer().decode(ids) == f"<bos>{parts[0]}\n\n{parts[1]}<eos>"
    bare = make_encoder(tmp_path, bos=False, eos=False).encode(battles).ids[2 * battle.id]
    np.testing.assert_array_equal(bare, ids[1:-1])


def test_the_end_of_a_template_is_never_cut(tmp_path):
    encoded = make_encoder(save_tokenizer(tmp_path, CHAT), max_tokens=60).encode(make_battles(8, longest=90))
    assert encoded.retention["truncated"].sum() > 5
    last = encoded.ids[0][-2:]
    assert last[0] == EOS
    for ids in encoded.ids:
        assert len(ids) <= 60
        np.testing.assert_array_equal(ids[-2:], last)
        assert (ids == BOS).sum() == (ids == EOS).sum()


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ raise_exception('never') }}", "cannot be filled with a conversation of 1 turns; set chat=False"),
        ("{{ messages[0]['content'] }}", "loses, repeats or reorders a message; set chat=False"),
        (CHAT + "{{ messages[-1]['content'] }}", "loses, repeats or reorders a message"),
        ("{% for message in messages[::-1] %}" + HEADER + "{% endfor %}", "loses, repeats or reorders a message"),
    ],
    ids=["refuses", "loses", "repeats", "reorders"],
)
def test_a_template_that_cannot_hold_a_conversation_is_named(tmp_path, template, message):
    with pytest.raises(ConfigError, match=message):
        make_encoder(save_tokenizer(tmp_path, template))


def test_options_reach_the_template():
    tokenizer = make_tokenizer()
    template = "{{ date_string }}" + CHAT
    assert tokenizer.chat_template is None
    frames = [chat_frame(tokenizer, {"date_string": date, "chat_template": template}, 1) for date in ("tea", "river")]
    assert frames[0].slots[0] != frames[1].slots[0]
    assert frames[0].slots[1:] == frames[1].slots[1:]


def test_what_the_tokenizer_does_not_have_is_said(tmp_path):
    make_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="no chat template; leave chat out"):
        make_encoder(tmp_path, chat=True)
    backend = make_tokenizer().backend_tokenizer
    PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>").save_pretrained(tmp_path / "bare")
    with pytest.raises(ConfigError, match="no eos token; set eos=False"):
        make_encoder(tmp_path / "bare", eos=True)
    encoded = make_encoder(tmp_path / "bare").encode(make_battles(1))
    assert not np.isin(encoded.ids[0], (BOS, EOS)).any()
