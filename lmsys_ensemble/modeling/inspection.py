"""What can be known of a model to be loaded without loading its weights: folders, headers, configuration, tokenizer."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lmsys_ensemble.errors import ModelError, collected
from lmsys_ensemble.files import suggest
from lmsys_ensemble.modeling.adapters import account_for_shapes, read_adapter_header, shapes_of
from lmsys_ensemble.modeling.checkpoints import check_base_config, check_base_folder
from lmsys_ensemble.modeling.golden import check_golden_fits, read_golden
from lmsys_ensemble.modeling.hardware import DTYPES
from lmsys_ensemble.modeling.loading import HEAD_NAMES, check_attention
from lmsys_ensemble.modeling.quantization import QUANTIZATIONS
from lmsys_ensemble.modeling.recipe import Recipe
from lmsys_ensemble.modeling.skeleton import adapter_skeleton
from lmsys_ensemble.modeling.tensorfiles import TensorEntry, read_header

_EMBEDDINGS = ("embed_tokens.weight", "tok_embeddings.weight", "word_embeddings.weight")


def setting_faults(
    *,
    device: str,
    dtype: str,
    quantization: str,
    attn_implementation: str,
    merge: bool | None,
    tokens_per_batch: int | None,
) -> Iterator[str]:
    """Yield what is wrong with the settings of `lmsys_ensemble.ClassifierScorer` by themselves."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", str(device)):
        yield f"unknown device {device!r}; a device is called auto, cpu, cuda:0, cuda:1 and so on"
    if dtype not in (*DTYPES, "auto"):
        yield f"unknown dtype {dtype!r}{suggest(str(dtype), [*DTYPES, 'auto'])}"
    if quantization not in QUANTIZATIONS:
        yield f"unknown quantization {quantization!r}{suggest(str(quantization), QUANTIZATIONS)}"
    faults: list[str] = []
    with collected(faults):
        check_attention(attn_implementation)
    yield from faults
    if merge and quantization != "none":
        yield f"merge=True on a base with quantization={quantization!r} would round the update away; leave merge out"
    if tokens_per_batch is not None and (not isinstance(tokens_per_batch, int) or tokens_per_batch < 1):
        yield f"tokens_per_batch must be a whole number above 0, got {tokens_per_batch!r}"


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
        yield from _head_faults(base, recipe, header)
        yield from golden_faults(base, base, recipe)


def _embedding_faults(base: Path, text: Mapping[str, Any], header: Mapping[str, TensorEntry]) -> Iterator[str]:
    expected = (text.get("vocab_size"), text.get("hidden_size"))
    for key, entry in header.items():
        if key.endswith(_EMBEDDINGS) and None not in expected and entry.shape != expected:
            yield (
                f"{base}: {key} has shape {entry.shape}, config.json states {expected} (vocab_size, hidden_size); "
                "weights and configuration are not of one model"
            )


def _head_faults(base: Path, recipe: Recipe, header: Mapping[str, TensorEntry]) -> Iterator[str]:
    if recipe.head.pooling != "last_token":
        yield f"a head on {recipe.head.pooling} is kept beside an adapter, and none is given for {base}; give adapter="
        return
    heads = {key: entry for key, entry in header.items() if key.split(".")[0] in HEAD_NAMES}
    if not heads:
        yield (
            f"{base} has no trained classification head; give adapter= (a folder with head and recipe), or a "
            "checkpoint that was saved with its head"
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
