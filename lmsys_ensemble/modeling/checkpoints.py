"""What a folder of a base model must be before it is read: safetensors only, and never code."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lmsys_ensemble.errors import ConfigError, IntegrityError, ModelError
from lmsys_ensemble.files import read_object
from lmsys_ensemble.modeling.tensorfiles import check_safetensors, describe_content

HEAD_NAMES = ("score", "classifier")
"""Names that transformers gives to classification heads; they stay unquantised."""


def check_base_folder(folder: Path) -> None:
    """Refuse a folder with remote code, with pickled weights or with damaged or lost files.

    Raises
    ------
    ModelError
        Says which, and how to put it right.
    """
    check_base_config(folder)
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        pickled = [path.name for path in folder.glob("*.bin")] + [path.name for path in folder.glob("*.pt*")]
        found = f"; {', '.join(pickled)} are pickles, which can run code and are not read" if pickled else ""
        raise ModelError(
            f"{folder} holds no *.safetensors{found}. Load it where you trust it and save it again: save_pretrained of "
            "transformers 5 writes safetensors"
        )
    for path in weights:
        check_safetensors(path)
    if (folder / "adapter_config.json").exists():
        raise ModelError(
            f"{folder} holds an adapter (adapter_config.json) beside the base model, which transformers would put into "
            "it unchecked. Move the adapter's files to a folder of their own, and give that as adapter="
        )
    for index in folder.glob("*.safetensors.index.json"):
        shards = read_object(index).get("weight_map")
        if not isinstance(shards, dict):
            raise IntegrityError(f"{index} states no weight_map; copy or fetch it again")
        elsewhere = sorted({str(shard) for shard in shards.values() if not _is_own_weights(shard)})
        if elsewhere:
            raise IntegrityError(
                f"{index} names {', '.join(elsewhere)[:200]}; weights are read from *.safetensors in {folder} itself "
                "only"
            )
        lost = sorted({str(shard) for shard in shards.values() if not (folder / str(shard)).is_file()})
        if lost:
            raise IntegrityError(f"{folder} lacks {', '.join(lost)}, which {index.name} lists; copy or fetch it again")


MAX_LAYERS, MAX_SIZE = 1024, 2**24
"""Bounds on what a ``config.json`` may ask for, ten times above any model there is."""

_SIZES = ("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads", "head_dim", "vocab_size")


def check_base_config(folder: Path) -> dict[str, Any]:
    """Return a base model's ``config.json``, unless it asks for code from elsewhere or for absurd sizes.

    Raises
    ------
    ModelError
        Names the entry.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise ModelError(f"{folder} holds no config.json; is it the folder of a model?")
    try:
        config = read_object(path)
    except ConfigError as error:
        kind = describe_content(path)
        pointer = f"; it is {kind}" if kind not in ("", "JSON", "a text") else ""
        raise ModelError(f"{error}{pointer}") from error
    if not isinstance(config.get("text_config", {}), dict):
        raise ModelError(
            f"{path}: text_config must be names with their values, got {str(config['text_config'])[:40]!r}"
        )
    for where, name, value in _entries(config):
        if name == "auto_map":
            raise ModelError(
                f"{path} asks for code of its own ({where}), which is never run. Where transformers knows "
                "the architecture itself, delete the entry auto_map"
            )
        if name.endswith("_implementation") and "/" in str(value):
            raise ModelError(
                f"{path} asks for {where} {str(value)[:60]!r}, which would be fetched from the Hub and run. "
                f"Delete the entry {name}"
            )
        if name == "transformers_weights" and value is not None:
            raise ModelError(
                f"{path} asks for weights from {str(value)[:60]!r} ({where}); weights are read from model.safetensors, "
                f"or what its index lists. Delete the entry {name}, and rename the file if it is the one you mean"
            )
        limit = MAX_LAYERS if name == "num_hidden_layers" else MAX_SIZE
        if name in (*_SIZES, "num_hidden_layers") and not _is_size(value, limit):
            raise ModelError(f"{path}: {where} must be a whole number from 1 to {limit:,}, got {str(value)[:40]}")
    return config


def _is_own_weights(shard: object) -> bool:
    """Tell whether what an index names is a safetensors file beside it: what is hashed is what is read."""
    return isinstance(shard, str) and bool(re.fullmatch(r"[^/\\]+\.safetensors", shard))


def _entries(config: dict[str, Any], where: str = "") -> Iterator[tuple[str, str, Any]]:
    """Yield dotted path, name and value of every entry, also of configurations inside (``text_config``)."""
    for name, value in config.items():
        yield f"{where}{name}", name, value
        if isinstance(value, dict):
            yield from _entries(value, f"{where}{name}.")


def _is_size(value: object, limit: int) -> bool:
    return value is None or (isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= limit)
