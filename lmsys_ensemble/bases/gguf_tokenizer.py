"""The byte-level BPE tokenizer that a GGUF file describes, put together as the model's own ``tokenizer.json`` is.

A GGUF file holds tokens, merges, what kind each token is and the name of the pre-tokeniser; how text is normalised and
split is known by that name only.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from lmsys_ensemble.errors import ModelError

SPLITS = {
    "qwen2": (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
}
"""How text is split before merging, by ``tokenizer.ggml.pre``: Qwen2's expression, from its ``tokenizer.json``."""


class TokenKind(IntEnum):
    """Values of ``tokenizer.ggml.token_type`` (llama.cpp's ``llama_token_type``) that byte-level vocabularies have."""

    NORMAL = 1
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5


@dataclass(frozen=True)
class TokenizerDescription:
    """What a GGUF file says of its tokenizer.

    Attributes
    ----------
    model, split : str
        ``tokenizer.ggml.model`` and ``tokenizer.ggml.pre``.
    tokens, kinds : sequence of str and of int
        Every token by its id, and its `TokenKind`.
    merges : sequence of str
        Pairs of tokens with a blank between, best first.
    bos_id, eos_id, pad_id : int or None
        Control tokens by their roles.
    adds_bos : bool
        Whether a text begins with the token `bos_id`.
    chat_template : str or None
        Jinja template of a conversation.
    max_tokens : int
        Longest sequence that the model takes.
    """

    model: str
    split: str
    tokens: Sequence[str]
    kinds: Sequence[int]
    merges: Sequence[str]
    bos_id: int | None
    eos_id: int | None
    pad_id: int | None
    adds_bos: bool
    chat_template: str | None
    max_tokens: int


def write_tokenizer(described: TokenizerDescription, folder: Path) -> None:
    """Write ``tokenizer.json``, ``tokenizer_config.json`` and the chat template.

    Unused tokens, with which a vocabulary is padded to a round size, are left out, as the model's own tokenizer lacks
    them. A token that begins sequences is named only if the model wants it there.

    Raises
    ------
    ModelError
        If the tokenizer is of another kind, or a token would get another id.
    """
    roles = {"eos_token": described.eos_id, "pad_token": described.pad_id}
    if described.adds_bos:
        roles["bos_token"] = described.bos_id
    named = {role: described.tokens[token] for role, token in roles.items() if token is not None}
    fast = PreTrainedTokenizerFast(
        tokenizer_object=make_byte_level(described),
        model_max_length=described.max_tokens,
        clean_up_tokenization_spaces=False,
        **named,
    )
    fast.chat_template = described.chat_template
    fast.save_pretrained(folder)


def make_byte_level(described: TokenizerDescription) -> Tokenizer:
    """Return the tokenizer; see `write_tokenizer`."""
    if described.model != "gpt2" or described.split not in SPLITS:
        raise ModelError(
            f"the GGUF file has a tokenizer of kind {described.model!r} with the pre-tokeniser {described.split!r}; "
            f"known are gpt2 with {' or '.join(SPLITS)}"
        )
    kinds = dict(enumerate(described.kinds))
    vocabulary = {token: number for number, token in enumerate(described.tokens) if kinds[number] == TokenKind.NORMAL}
    merges = [(left, right) for left, _, right in (merge.partition(" ") for merge in described.merges)]
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.normalizer = normalizers.NFC()
    split: Any = pre_tokenizers.Split(Regex(SPLITS[described.split]), behavior="isolated")
    spelling: Any = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, spelling])
    tokenizer.decoder = decoders.ByteLevel()
    added = {
        number: AddedToken(token, normalized=False, special=kinds[number] == TokenKind.CONTROL)
        for number, token in enumerate(described.tokens)
        if kinds[number] in (TokenKind.CONTROL, TokenKind.USER_DEFINED)
    }
    tokenizer.add_tokens(list(added.values()))
    moved = [token.content for number, token in added.items() if tokenizer.token_to_id(token.content) != number]
    if moved:
        raise ModelError(f"control tokens of the GGUF file do not follow its vocabulary: {', '.join(moved[:5])}")
    return tokenizer
