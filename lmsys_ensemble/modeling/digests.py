"""Hashes of what a result is made of: base model, adapter, and the way from a battle to token ids."""

import hashlib
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from lmsys_ensemble.cache import cache_folder
from lmsys_ensemble.data.battles import Battles
from lmsys_ensemble.encoding.tokens import Encoded
from lmsys_ensemble.errors import ConfigError
from lmsys_ensemble.files import read_object, sha256_of, write_json
from lmsys_ensemble.modeling.golden import golden_battles
from lmsys_ensemble.modeling.tensorfiles import read_header

SCORING_GENERATION = 1
"""Counted up whenever this library computes other logits from the same token ids and weights, beyond rounding."""

ADAPTER_FILES = ("adapter_model.safetensors", "adapter_model.bin")

NO_PART_OF_AN_ADAPTER = ("base_model_name_or_path", "inference_mode", "peft_version")
"""Entries of ``adapter_config.json`` that change no result: the base is named by the user, the mode is set here."""

BASE_HASHES = ("base_digest", "base_sha256")
"""What the recipe of an adapter calls the hashes of its base model's files; see `describe_base_files`."""

_BLOCK_BYTES = 4096
_WHOLE_BYTES = 64 * 1024
"""Tensors up to this size (heads, norms, biases) are read whole."""

_BLOCKS_PER_TENSOR = 8
_BASE_FILES = ("*.json", "*.model", "vocab.txt", "merges.txt", "*.safetensors")

_SETTLED_NS = 2 * 10**9
"""Age from which a file's time of change is trusted: clocks of file systems tick in steps, the coarsest in 2 s."""


def base_digest(folder: Path) -> str:
    """Return a hash of all that a base model's folder brings to a result: configuration, tokenizer, weights.

    Of weights, which may be 18 GB, it takes the headers, small tensors whole (a head, norms), and of every larger
    tensor a few blocks of 4 KiB spread over it: another training, merge or number format changes all of them, even if
    it touched a single layer or nothing but the head. A change in place of a few rows of a large tensor may escape it;
    `base_sha256` sees every byte.
    """
    digest = hashlib.sha256()
    for path in _base_files(folder):
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


def base_sha256(folder: Path) -> str:
    """Return a hash of every byte of what `base_digest` samples.

    Files of weights are read once: their hashes are kept in ``digests`` of
    `lmsys_ensemble.cache.cache_folder`, and hold as long as path, size and time of change are the same.
    """
    digest = hashlib.sha256()
    for path in _base_files(folder):
        found = _kept_sha256(path) if path.suffix == ".safetensors" else sha256_of(path)
        digest.update(f"{path.name} {found}\n".encode())
    return digest.hexdigest()


def describe_base_files(folder: Path) -> dict[str, str]:
    """Return what the recipe of an adapter says of its base model's files; `is_base_of` reads it."""
    return dict(zip(BASE_HASHES, (base_digest(folder), base_sha256(folder)), strict=True))


def is_base_of(training: Mapping[str, Any], folder: Path) -> bool | None:
    """Tell whether a base model's files are those that an adapter was trained on.

    Parameters
    ----------
    training : mapping
        ``training`` of the adapter's recipe.
    folder : Path
        Folder of the base model.

    Returns
    -------
    bool or None
        None where the recipe says nothing of the files.
    """
    if (known := training.get("base_sha256")) is not None:
        return bool(known == base_sha256(folder))
    if (known := training.get("base_digest")) is not None:
        return bool(known == base_digest(folder))
    return None


def _base_files(folder: Path) -> list[Path]:
    return sorted({path for pattern in _BASE_FILES for path in folder.glob(pattern)})


def _kept_sha256(path: Path) -> str:
    file = path.resolve()
    state = file.stat()
    known = {"path": str(file), "size": state.st_size, "mtime_ns": state.st_mtime_ns}
    name = hashlib.sha256(str(file).encode(errors="surrogateescape")).hexdigest()[:24]
    kept = cache_folder() / "digests" / f"{name}.json"
    with suppress(ConfigError):  # there is none yet, or it is damaged
        values = read_object(kept)
        if all(values.get(key) == value for key, value in known.items()) and isinstance(values.get("sha256"), str):
            return str(values["sha256"])
    found = sha256_of(file)
    if time.time_ns() - state.st_mtime_ns > _SETTLED_NS:
        with suppress(OSError):  # a cache that cannot be written costs time and no result
            write_json(kept, {**known, "sha256": found})
    return found


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


_LONG = 2**15
"""Tokens up to which the digest of an encoding tries what is cut; beyond, texts of that length must do."""


def _long_battles(max_tokens: int) -> Battles:
    """Return the golden battles with every text repeated until nothing fits, control tokens written out in it."""
    golden = golden_battles()
    n_times = min(max_tokens, _LONG) // 4 + 1

    def lengthen(column: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
        # Every word is at least a token.
        return [
            tuple(f"{turn} <eos></s><|eot_id|> {number} " * n_times for number, turn in enumerate(turns))
            for turns in column
        ]

    return Battles(golden.ids, lengthen(golden.prompts), lengthen(golden.responses_a), lengthen(golden.responses_b))
