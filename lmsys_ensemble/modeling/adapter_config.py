"""``adapter_config.json`` from strangers: read, bounded and checked before PEFT acts on it."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from peft import LoraConfig, PeftConfig

from lmsys_ensemble.errors import CheckError, ConfigError, ModelError
from lmsys_ensemble.files import read_object
from lmsys_ensemble.modeling.patterns import Way, check_patterns

CONFIG_FILE = "adapter_config.json"

REFUSED = {
    "megatron_config": "it makes PEFT import a module that the file names",
    "layer_replication": "it copies layers of the base model, which is not supported",
}
"""Entries that are refused where they are set, and why."""


def read_lora_config(folder: Path) -> LoraConfig:
    """Read the configuration of a LoRA adapter.

    Raises
    ------
    CheckError
        If there is none.
    ModelError
        If it is no LoRA adapter, or a setting is one that cannot be.
    """
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise CheckError([f"{folder} holds no {CONFIG_FILE}; is it a folder that PEFT saved?"])
    try:
        values = read_object(path)
    except ConfigError as error:
        raise ModelError(str(error)) from error
    kind = values.get("peft_type")
    if kind != "LORA":
        raise ModelError(f"{folder} is a {kind} adapter; only LoRA adapters are supported")
    faults = list(_faults(values))
    if faults:
        raise ModelError(f"{path}: {'; '.join(faults)}")
    try:
        config = PeftConfig.from_pretrained(str(folder))
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        raise ModelError(f"{path} is none that PEFT reads: {error}") from error
    if not isinstance(config, LoraConfig):
        raise ModelError(f"{folder} is a {config.peft_type} adapter; only LoRA adapters are supported")
    return config


def _faults(values: Mapping[str, Any]) -> Iterator[str]:
    for name, why in REFUSED.items():
        if values.get(name):
            yield f"{name} is refused: {why}"
    yield from _wrong_numbers("r", values.get("r", 8), whole=True)
    yield from _wrong_numbers("lora_alpha", values.get("lora_alpha", 8))
    for name, whole in (("rank_pattern", True), ("alpha_pattern", False)):
        patterns = values.get(name) or {}
        if not isinstance(patterns, dict):
            yield f"{name} must be names with their values, got {type(patterns).__name__}"
            continue
        for key, value in patterns.items():
            yield from _wrong_numbers(f"{name}[{key!r}]", value, whole=whole)
    for name in ("target_modules", "exclude_modules", "modules_to_save", "layers_pattern"):
        value = values.get(name)
        if value is not None and not isinstance(value, str) and not _is_list_of_texts(value):
            yield f"{name} must be a text or a list of texts"
    layers = values.get("layers_to_transform")
    if layers is not None and not all(isinstance(layer, int) for layer in _as_list(layers)):
        yield "layers_to_transform must be a list of whole numbers"


def _wrong_numbers(name: str, value: Any, *, whole: bool = False) -> Iterator[str]:
    kinds = int if whole else int | float
    if isinstance(value, bool) or not isinstance(value, kinds) or not math.isfinite(value) or not value > 0:
        yield f"{name} must be a {'whole ' if whole else ''}number above 0, got {str(value)[:40]}"


def check_ranks(config: LoraConfig, shapes: Mapping[str, Sequence[int]], source: object) -> None:
    """Make sure that no rank is larger than those of the adapter's own tensors, before matrices of it are made.

    Raises
    ------
    ModelError
        States both.
    """
    largest = max((shape[0] for key, shape in shapes.items() if ".lora_A." in key and shape), default=None)
    if largest is None:
        largest = max((shape[-1] for key, shape in shapes.items() if ".lora_" in key and shape), default=0)
    asked = max([config.r, *(config.rank_pattern or {}).values()])
    if asked > largest:
        has = f"its largest LoRA matrix has rank {largest}" if largest else "it holds no LoRA matrices"
        raise ModelError(f"{source}: {CONFIG_FILE} states a LoRA rank of {asked:,}, but {has}")


def check_lora_patterns(config: LoraConfig, names: Sequence[str], source: object) -> None:
    """Try the regular expressions of a configuration on a model's module names, as PEFT will match them.

    Raises
    ------
    ModelError
        If one is none, or may take for ever.
    """
    texts = [text for text in (config.target_modules, config.exclude_modules) if isinstance(text, str)]
    around = [rf"(.*\.)?({key})$" for key in _doubtful([*(config.rank_pattern or {}), *(config.alpha_pattern or {})])]
    around += [rf"(^|.*\.){name}($|\..*)" for name in _doubtful(_as_list(config.modules_to_save))]
    around += [rf"(?:^|.*?\.){name}\.(?P<idx>\d+)\." for name in _doubtful(_as_list(config.layers_pattern))]
    patterns: list[tuple[Way, str]] = [("fullmatch", text) for text in texts if text != "all-linear"]
    patterns += [("match", pattern) for pattern in around]
    check_patterns(patterns, names, source)


def _doubtful(texts: Sequence[str]) -> list[str]:
    """Return those that are more than a module's name: what PEFT puts around a name takes no time."""
    return [text for text in texts if not re.fullmatch(r"[\w.\-]*", text)]


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return [value] if isinstance(value, str | int) else list(value)


def _is_list_of_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(entry, str) for entry in value)
