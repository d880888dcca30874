import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from lmsys_ensemble.encoding.label_tokens import continue_text, find_label_tokens
from lmsys_ensemble.errors import ConfigError

CORPUS = ["Answer: A Answer: B Answer: tie Answer: C", "[[A]] [[B]] [[C]] [[tie]]", "assistant\nA\nB\nC\ntie"] * 9


def byte_level() -> Tokenizer:
    """BPE like that of Llama 3, Qwen and SmolLM."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=alphabet, special_tokens=["<bos>", "<|end|>"], show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def sentence_piece() -> Tokenizer:
    """BPE over blanks that are letters, one of which is put before every text, like that of Llama 2 and Mistral."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(content=" ", left=1, right=0)]
    )
    trainer = trainers.BpeTrainer(vocab_size=60, special_tokens=["<unk>", "<bos>", "<|end|>"], show_progress=False)
    words = [word for line in CORPUS for word in line.split()]
    tokenizer.train_from_iterator(words, trainer)
    return tokenizer


KINDS = {"byte level": byte_level, "sentence piece": sentence_piece}


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request):
    return KINDS[request.param]()


@pytest.mark.parametrize(
    ("ending", "blank"), [("Answer:", True), ("assistant\n", False), ("[[", False)], ids=["words", "line", "brackets"]
)
def test_the_variant_is_the_one_that_follows_the_prompt(tokenizer, ending, blank):
    labels = ("A", "B", "tie")
    ids = find_label_tokens(tokenizer, ending, labels, name="mine")
    for label, token in zip(labels, ids, strict=True):
        text = ending + (" " if blank else "") + label
        whole = continue_text(tokenizer, text)
        assert whole == [*continue_text(tokenizer, ending), token]
        assert tokenizer.id_to_token(token).startswith(("Ġ", "▁")) == blank
    assert len(set(ids)) == 3


def test_what_the_template_says_of_blanks_comes_first(tokenizer):
    (token,) = find_label_tokens(tokenizer, "assistant\n", ["A"], name="mine", blank=True)
    assert tokenizer.id_to_token(token).startswith(("Ġ", "▁"))


def test_a_text_goes_on_without_the_blank_that_begins_a_text(tokenizer):
    tokens = [tokenizer.id_to_token(token) for token in continue_text(tokenizer, "\nA")]
    assert "".join(tokens).replace("Ċ", "\n").replace("<unk>", "\n") == "\nA"


def test_a_label_of_several_tokens_is_named_with_them_and_the_cure():
    with pytest.raises(ConfigError) as caught:
        find_label_tokens(byte_level(), "Answer:", ("A", "neither"), name="mine")
    message = str(caught.value)
    assert message.startswith("mine: the label 'neither' is ")
    assert "'Ġ'" in message
    assert "exactly one. Choose labels that are single tokens" in message


def test_a_cue_that_ends_with_a_blank_runs_into_the_label():
    with pytest.raises(ConfigError, match=r"the label 'A' runs into the end of the prompt.*without a blank at its end"):
        find_label_tokens(byte_level(), "Answer: ", ("A", "B"), name="mine")


def test_labels_that_become_one_token_are_refused():
    lower = byte_level()
    lower.normalizer = normalizers.Lowercase()
    with pytest.raises(ConfigError, match="the labels 'A' and 'a' are the same token"):
        find_label_tokens(lower, "x\n", ("A", "a"), name="mine")


@pytest.mark.parametrize("label", ["<|end|>", "日"])
def test_a_control_token_or_an_unknown_one_is_no_label(label):
    with pytest.raises(ConfigError, match="which is unknown or a control token; choose another label"):
        find_label_tokens(sentence_piece(), "[[", ("A", label), name="mine")
