"""A small real tokenizer: byte-level BPE, trained here, with control tokens like those of the big models."""

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

CONTROL_TOKENS = ("<pad>", "<bos>", "<eos>", "<|eot_id|>", "<|endoftext|>")
PAD_ID, BOS_ID, EOS_ID = 0, 1, 2

CORPUS = (
    "Which answer is better, and why? The first response is longer; the second response is right.",
    "Explain to a child why the sky is blue. Sunlight is scattered by the air, and blue light most of all.",
    "Welche Antwort ist besser, und warum? Die erste Antwort ist länger; die zweite Antwort stimmt.",
    "Erkläre einem Kind, warum der Himmel blau ist. Grüße aus Zürich! Übermorgen früh käme später.",
    "<prompt>: hello\n\n<response_a>: hi there\n\n<response_b>: good day\n\n",
    "User prompt: hello\n\nModel A :\nhi there\n\n--------\n\nModel B:\ngood day",
    "🍍🍎👍🏽 party 🎉🎉 日本語 null None [] {} 1 2 3 42 100 == != def f(x): return x",
    " " * 64 + "x" + " " * 64 + "y" + " " * 64,
)


def render(template, battle):
    """Return the whole text of a battle, before any truncation."""
    return "".join(piece.literal + piece.text for piece in template.pieces(battle))


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=list(CONTROL_TOKENS),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS * 4, trainer)
    assert [tokenizer.token_to_id(token) for token in ("<pad>", "<bos>", "<eos>")] == [PAD_ID, BOS_ID, EOS_ID]
    return tokenizer
