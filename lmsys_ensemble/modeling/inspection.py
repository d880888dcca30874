"""What can be known of a model to be loaded without loading its weights: folders, headers, configuration, tokenizer."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lmsys_ensemble.compute.hardware import DTYPES
from lmsys_ensemble.errors import ModelError, collected
from lmsys_ensemble.modeling.adapters import account_for_shapes, read_adapter_header, shapes_of
from lmsys_ensemble.modeling.checkpoints import HEAD_NAMES, check_base_config, check_base_folder
from lmsys_ensemble.modeling.golden import check_golden_fits, read_golden
from lmsys_ensemble.modeling.heads import is_head_key, missing_head
from lmsys_ensemble.modeling.loading import check_attention
from lmsys_ensemble.modeling.pooling import pooled_size
from lmsys_ensemble.modeling.prequantized import check_stored
from lmsys_ensemble.modeling.quantization import QUANTIZATIONS
from lmsys_ensemble.modeling.recipe import Recipe
from lmsys_ensemble.modeling.settings import ComputeSettings
from lmsys_ensemble.modeling.skeleton import adapter_skeleton
from lmsys_ensemble.modeling.tensorfiles import TensorEntry, read_header
from lmsys_ensemble.settings import suggest

_EMBEDDINGS = ("embed_tokens.weight", "tok_embeddings.weight", "word_embeddings.weight")


def setting_faults(settings: ComputeSettings) -> Iterator[str]:
    """Yield what is wrong with the settings of a `lmsys_ensemble.ClassifierScorer` by themselves."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", str(settings.device)):
        yield f"unknown device {settings.device!r}; a device is called auto, cpu, cuda:0, cuda:1 and so on"
    if settings.dtype not in (*DTYPES, "auto"):
        yield f"unknown dtype {settings.dtype!r}{suggest(str(settings.dtype), [*DTYPES, 'auto'])}"
    quantization = settings.quantization
    if quantization not in QUANTIZATIONS:
        yield f"unknown quantization {quantization!r}{suggest(str(quantization), QUANTIZATIONS)}"
    faults: list[str] = []
    with collected(faults):
        check_attention(settings.attn_implementation)
    yield from faults
    if settings.merge and quantization != "none":
        yield f"merge=True on a base with quantization={quantization!r} would round the update away; leave merge out"
    n_tokens = settings.tokens_per_batch
    if n_tokens is not None and (not isinstance(n_tokens, int) or n_tokens < 1):
        yield f"tokens_per_batch must be a whole number above 0, got {n_tokens!r}"


def base_faults(base: Path, recipe: Recipe, *, head_follows: bool) -> Iterator[str]:
    """Yield what is wrong with a base model's folder; a head must be in it unless an adapter brings one."""
    faults: list[str] = []
    with collected(faults):
        check_base_folder(base)
    yield from faults
    if faults:
        return
    config = check_base_config(base)
    header = {key: entry for path in base.glob("*.safetensors") for key, entry in read_header(path).items()}
    text = config.get("text_config", config)
    layers = text.get("num_hidden_layers")
    if recipe.head.layers is not None and layers is not None and recipe.head.layers > layers:
        yield f"{base} has {layers} layers, {recipe.head.layers} are asked for"
    yield from _embedding_faults(base, text, header)
    if not head_follows:
        yield from _head_faults(base, recipe, header, text.get("hidden_size"))
        yield from golden_faults(base, base, recipe)


def stored_faults(base: Path, quantization: str, merge: bool | None) -> Iterator[str]:
    """Yield why a base model that is stored quantised cannot be loaded as it is asked for."""
    faults: list[str] = []
    if (base / "config.json").is_file():
        with collected(faults):
            check_stored(base, quantization, merge)
    yield from faults


def _embedding_faults(base: Path, text: Mapping[str, Any], header: Mapping[str, TensorEntry]) -> Iterator[str]:
    expected = (text.get("vocab_size"), text.get("hidden_size"))
    for key, entry in header.items():
        if key.endswith(_EMBEDDINGS) and None not in expected and entry.shape != expected:
            yield (
                f"{base}: {key} has shape {entry.shape}, config.json states {expected} (vocab_size, hidden_size); "
                "weights and configuration are not of one model"
            )


def _head_faults(
    base: Path, recipe: Recipe, header: Mapping[str, TensorEntry], hidden_size: int | None
) -> Iterator[str]:
    heads = {key: entry for key, entry in header.items() if is_head_key(key)}
    if not heads:
        yield missing_head(base, recipe.head.pooling)
    if recipe.head.pooling != "last_token" and hidden_size is not None:
        n_inputs = pooled_size(recipe.head.pooling, hidden_size)
        yield from (
            f"{base}: {key} takes {entry.shape[1]} values, a head on {recipe.head.pooling} is given {n_inputs}"
            for key, entry in heads.items()
            if len(entry.shape) == 2 and entry.shape[1] != n_inputs
        )
    for key, entry in heads.items():
        if key.endswith("weight") and len(entry.shape) == 2 and entry.shape[0] != len(recipe.classes):
            yield f"{base}: {key} is for {entry.shape[0]} classes, expected {len(recipe.classes)} ({recipe.classes})"


def adapter_faults(adapter: Path, base: Path | None, recipe: Recipe | None) -> Iterator[str]:
    """Yield what is wrong with an adapter's folder, and where the base is there, what does not fit it."""
    faults: list[str] = []
    with collected(faults):
        config, shapes = read_adapter_header(adapter)
        if not any(part in HEAD_NAMES for key in shapes for part in key.split(".")):
            raise ModelError(
                f"{adapter} holds no classification head ({' or '.join(HEAD_NAMES)}): it was not saved (task_type or "
                "modules_to_save unset in training); a random head would give random probabilities"
            )
        if base is not None and recipe is not None:
            account_for_shapes(shapes_of(adapter_skeleton(base, recipe, config)), shapes, adapter)
    yield from faults
    yield from golden_faults(adapter, base, recipe)


def golden_faults(folder: Path, base: Path | None, recipe: Recipe | None) -> Iterator[str]:
    """Yield what is wrong with a folder's ``golden.json``, and where the base is there, what does not fit it."""
    faults: list[str] = []
    with collected(faults):
        golden = read_golden(folder)
        if golden is not None and base is not None and recipe is not None:
            config = check_base_config(base)
            vocab_size = config.get("text_config", config).get("vocab_size")
            check_golden_fits(golden, len(recipe.classes), vocab_size, folder)
    yield from faults
