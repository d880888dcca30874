import dataclasses

import pytest
from tokenizers import Tokenizer
from transformers import Qwen2Tokenizer

from lmsys_ensemble.bases.bundled import bundled_folder, is_ready
from lmsys_ensemble.bases.catalogue import get_bundled
from lmsys_ensemble.bases.gguf_tokenizer import TokenizerDescription, make_byte_level, write_tokenizer
from lmsys_ensemble.encoding.templates import get_template
from lmsys_ensemble.encoding.tokens import Encoder
from lmsys_ensemble.errors import ModelError
from lmsys_ensemble.modeling.loading import load_tokenizer
from tests.modeling.conftest import QwenFile
from tests.tiny import make_battles

TEXTS = (
    "the quick brown fox",
    "We'll SEE, it's 2024: 3.14159   and\n\n\n  more\t\r\n end ",
    "Zürich Zu\u0308rich 日本語 🙂 \u200b x\u00a0y",
    "<|im_start|>user\nhi<|im_end|> <tool_call> [PAD400] <|endoftext|>",
    "",
)


@pytest.fixture
def described(tmp_path):
    file = QwenFile(tmp_path / "tiny.gguf")
    merges = [" ".join(pair) for pair in file.merges]
    return TokenizerDescription(
        "gpt2", "qwen2", file.tokens, file.kinds, merges, file.n_words, file.n_words + 2, file.n_words, False,
        "{% for message in messages %}<|im_start|>{{ message.content }}<|im_end|>\n{% endfor %}", 512,
    )  # fmt: skip


def test_ids_are_those_of_the_models_own_tokenizer(described, tmp_path):
    n_words = described.kinds.count(1)
    words = {token: number for number, token in enumerate(described.tokens[:n_words])}
    own = Qwen2Tokenizer(vocab=words, merges=[tuple(merge.split(" ")) for merge in described.merges])
    own.add_tokens(["<|im_start|>", "<|im_end|>", "<tool_call>"])
    write_tokenizer(described, tmp_path)
    ours = load_tokenizer(tmp_path)
    for text in TEXTS:
        assert ours(text).input_ids == own(text).input_ids, text
    assert len(ours) == n_words + 4, "tokens that only pad the vocabulary are left out"
    assert (ours.bos_token, ours.eos_token, ours.pad_token) == (None, "<|im_end|>", "<|endoftext|>")
    said = ours.apply_chat_template([{"role": "user", "content": "hot tea"}], tokenize=False)
    assert said == "<|im_start|>hot tea<|im_end|>\n"


def test_control_tokens_in_the_text_of_a_user_stay_text(described):
    encoder = Encoder(make_byte_level(described), get_template("turns"), max_tokens=300)
    battles = make_battles(1)
    battles.prompts[0] = ("<|im_start|> and <|endoftext|>",)
    n_words = described.kinds.count(1)
    assert not {n_words, n_words + 1, n_words + 2} & set(encoder.encode(battles).ids[0].tolist())


def test_a_control_token_with_another_id_is_refused(described):
    moved = dataclasses.replace(described, kinds=[1] * (len(described.tokens) - 1) + [3], tokens=described.tokens)
    make_byte_level(moved)
    kinds = list(described.kinds)
    kinds[5] = 3
    with pytest.raises(ModelError, match="do not follow its vocabulary"):
        make_byte_level(dataclasses.replace(described, kinds=kinds, merges=[]))


@pytest.mark.bundled
@pytest.mark.parametrize("name", ["qwen2.5-coder-0.5b", "qwen2.5-coder-1.5b"])
def test_the_real_tokenizer_has_the_ids_that_are_known(name):
    if not is_ready(get_bundled(name)):
        pytest.skip(f"{name} is not in the cache; run 'lmsys-ensemble models pull {name}'")
    folder = bundled_folder(get_bundled(name))
    ours, plain = load_tokenizer(folder), Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert len(ours) == 151_665
    assert ours("Hello world").input_ids == [9707, 1879]
    assert ours("12345 apples").input_ids == [16, 17, 18, 19, 20, 40676]
    assert ours.convert_tokens_to_ids(["<|endoftext|>", "<|im_start|>", "<|im_end|>"]) == [151643, 151644, 151645]
    for text in TEXTS:
        assert ours(text).input_ids == plain.encode(text).ids
    said = ours.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True)
    assert said.startswith("<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.")
    assert said.endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")
