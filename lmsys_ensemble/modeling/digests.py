"""Hashes of what a result is made of: base model, adapter, and the way from a battle to token ids."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from lmsys_ensemble.data.battles import Battles
from lmsys_ensemble.encoding.tokens import Encoded
from lmsys_ensemble.files import read_object, sha256_of
from lmsys_ensemble.modeling.golden import golden_battles
from lmsys_ensemble.modeling.tensorfiles import read_header

SCORING_GENERATION = 1
"""Counted up whenever this library computes other logits from the same token ids and weights, beyond rounding."""

ADAPTER_FILES = ("adapter_model.safetensors", "adapter_model.bin")

NO_PART_OF_AN_ADAPTER = ("base_model_name_or_path", "inference_mode", "peft_version")
"""Entries of ``adapter_config.json`` that change no result: the base is named by the user, the mode is set here."""

_BLOCK_BYTES = 4096
_WHOLE_BYTES = 64 * 1024
"""Tensors up to this size (heads, norms, biases) are read whole."""

_BLOCKS_PER_TENSOR = 8
_BASE_FILES = ("*.json", "*.model", "vocab.txt", "merges.txt", "*.safetensors")


def base_digest(folder: Path) -> str:
    """Return a hash of all that a base model's folder brings to a result: configuration, tokenizer, weights.

    Of weights, which may be 18 GB, it takes the headers, small tensors whole (a head, norms), and of every larger
    tensor a few blocks of 4 KiB spread over it: another training, merge or number format changes all of them, even if
    it touched a single layer or nothing but the head.
    """
    digest = hashlib.sha256()
    for path in sorted({path for pattern in _BASE_FILES for path in folder.glob(pattern)}):
        digest.update(f"{path.name} {path.stat().st_size}".encode())
        if path.suffix == ".safetensors":
            for block in _sampled_blocks(path):
                digest.update(block)
        else:
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _sampled_blocks(path: Path) -> Iterator[bytes]:
    entries = read_header(path)
    with path.open("rb") as file:
        yield file.read(min((entry.start for entry in entries.values()), default=path.stat().st_size))
        for entry in entries.values():
            size = entry.stop - entry.start
            if size <= _WHOLE_BYTES:
                file.seek(entry.start)
                yield file.read(size)
                continue
            for block in range(_BLOCKS_PER_TENSOR):
                file.seek(entry.start + block * (size - _BLOCK_BYTES) // (_BLOCKS_PER_TENSOR - 1))
                yield file.read(_BLOCK_BYTES)


def adapter_identity(folder: Path) -> dict[str, Any]:
    """Return the hashes of an adapter's weights, and its configuration setting by setting, so that a change has a name.

    Raises
    ------
    ConfigError
        If ``adapter_config.json`` cannot be read.
    """
    weights = {name: sha256_of(folder / name) for name in ADAPTER_FILES if (folder / name).is_file()}
    path = folder / "adapter_config.json"
    config = read_object(path) if path.is_file() else {}
    return {**weights, "config": {key: value for key, value in config.items() if key not in NO_PART_OF_AN_ADAPTER}}


class EncoderLike(Protocol):
    """What makes token ids of battles."""

    max_tokens: int

    def encode(self, battles: Battles) -> Encoded:
        """Encode battles, in their order."""


def encoding_digest(encoder: EncoderLike) -> str:
    """Return a hash of the token ids that an encoder makes of a few battles, short ones and ones that are cut.

    Template, tokenizer, truncation, control tokens and the code that puts them together all leave their mark in it,
    whatever their version numbers say.
    """
    digest = hashlib.sha256()
    for battles in (golden_battles(), _long_battles(encoder.max_tokens)):
        encoded = encoder.encode(battles)
        for ids, fields in zip(encoded.ids, encoded.fields, strict=True):
            digest.update(f"{len(ids)} ".encode() + ids.tobytes() + fields.tobytes())
    return digest.hexdigest()


def _long_battles(max_tokens: int) -> Battles:
    """Return the golden battles with every text repeated until nothing fits, control tokens written out in it."""
    golden = golden_battles()

    def lengthen(column: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
        # Every word is at least a token.
        return [
            tuple(f"{turn} <eos></s><|eot_id|> {number} " * (max_tokens // 4 + 1) for number, turn in enumerate(turns))
            for turns in column
        ]

    return Battles(golden.ids, lengthen(golden.prompts), lengthen(golden.responses_a), lengthen(golden.responses_b))
