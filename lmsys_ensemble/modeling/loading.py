"""Loading of base models and tokenizers: safetensors only, no remote code, one load at a time."""

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

from lmsys_ensemble.compute.hardware import dtype_name, resolve_dtype
from lmsys_ensemble.errors import ConfigError, MissingDependencyError, ModelError
from lmsys_ensemble.modeling.building import LOAD_LOCK, quiet_transformers
from lmsys_ensemble.modeling.checkpoints import HEAD_NAMES, check_base_config, check_base_folder
from lmsys_ensemble.modeling.prequantized import adapt_config, check_stored
from lmsys_ensemble.modeling.quantization import QUANTIZATIONS, forget_quantization, quantization_config
from lmsys_ensemble.modeling.recipe import Recipe
from lmsys_ensemble.modeling.settings import ComputeSettings
from lmsys_ensemble.modeling.transfer import can_follow, transfer

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadSettings:
    """How a base model is loaded.

    Parameters
    ----------
    n_classes : int
        Width of the head.
    device : str
        Where the weights go.
    dtype : torch.dtype
        Of the weights that are not quantised, and of the arithmetic.
    quantization : {"none", "nf4", "int8"}
        bitsandbytes' 4-bit NormalFloat or 8-bit integers; "none" leaves weights as they are stored, which may be
        quantised, too.
    attn_implementation : str
        As in transformers; ``auto`` leaves the choice to it.
    n_layers : int, optional
        Load only the first layers.
    soft_capping : bool
        False switches Gemma-2's soft-capping off.
    """

    n_classes: int
    device: str
    dtype: torch.dtype
    quantization: str = "none"
    attn_implementation: str = "auto"
    n_layers: int | None = None
    soft_capping: bool = True

    @classmethod
    def of(cls, settings: ComputeSettings, recipe: Recipe) -> Self:
        """Return how the base of a trained classifier is loaded."""
        return cls(
            n_classes=len(recipe.classes),
            device=settings.device,
            dtype=resolve_dtype(settings.dtype, settings.device),
            quantization=settings.quantization,
            attn_implementation=settings.attn_implementation,
            n_layers=recipe.head.layers,
            soft_capping=recipe.soft_capping,
        )


def load_tokenizer(folder: Path) -> Any:
    """Load the fast tokenizer of a model.

    Raises
    ------
    ModelError
        If there is none.
    """
    with LOAD_LOCK, quiet_transformers():
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        except Exception as error:  # the tokenizers library raises Exception itself; a damaged file anything
            if (folder / "config.json").is_file():
                _read_config(folder)  # which is looked at on the way, and may be what is wrong
            raise ModelError(f"{folder} holds no tokenizer that can be loaded: {error}") from error
    if not getattr(tokenizer, "is_fast", False):
        raise ModelError(f"the tokenizer of {folder} is no fast tokenizer (tokenizer.json)")
    return tokenizer


def load_config(folder: Path, settings: LoadSettings) -> Any:
    """Load a model's configuration with the changes that `settings` ask for."""
    check_base_config(folder)
    check_attention(settings.attn_implementation)
    config = _read_config(folder)
    config.num_labels = settings.n_classes
    text = config.get_text_config()  # Gemma 3 from 4B on keeps its text model's settings in a part of their own
    if settings.n_layers is not None:
        if settings.n_layers > text.num_hidden_layers:
            raise ConfigError(f"{folder} has {text.num_hidden_layers} layers, {settings.n_layers} are asked for")
        text.num_hidden_layers = settings.n_layers
        if getattr(text, "layer_types", None):
            text.layer_types = text.layer_types[: settings.n_layers]
    if not settings.soft_capping:
        text.attn_logit_softcapping = None
        text.final_logit_softcapping = None
    if settings.attn_implementation == "sdpa" and getattr(text, "attn_logit_softcapping", None):
        raise ConfigError(
            "attn_implementation='sdpa' ignores Gemma-2's soft-capping and would give other logits; use 'eager' or "
            "'flex_attention'"
        )
    return config


def _read_config(folder: Path) -> Any:
    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # its checks call what the file's entries have replaced, and raise anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ModelError(f"{folder}/config.json is none that transformers reads: {reason[:300]}") from error


def check_attention(attn_implementation: str) -> None:
    """Refuse attention that would be fetched from the Hub as code.

    Raises
    ------
    ConfigError
        If the name has a ``/`` in it.
    """
    if "/" in attn_implementation:
        raise ConfigError(
            f"attn_implementation={attn_implementation!r} names code on the Hub, which is never run; use 'auto', "
            "'eager', 'sdpa' or 'flex_attention'"
        )


def load_classifier(
    folder: Path, settings: LoadSettings, *, head_follows: bool, also_follow: Collection[str] = ()
) -> Any:
    """Load a sequence-classification model in evaluation mode.

    Parameters
    ----------
    folder : Path
        Base model, as returned by `resolve_base`.
    settings : LoadSettings
        Device, number formats, depth.
    head_follows : bool
        Whether an adapter brings the head. If not, the checkpoint must hold one.
    also_follow : collection of str
        Other modules that the adapter brings (``pooler`` of DeBERTa, which has none before it is a classifier).

    Raises
    ------
    ModelError
        If weights are missing or do not fit, listing them.
    """
    following = {*HEAD_NAMES, *also_follow} if head_follows else set()

    def account(report: dict[str, Any], n_layers: int) -> None:
        _account_for_keys(folder, report, n_layers, head_follows, following)

    return load_pretrained(AutoModelForSequenceClassification, folder, settings, HEAD_NAMES, account)


def load_pretrained(
    kind: Any,
    folder: Path,
    settings: LoadSettings,
    unquantized: Sequence[str],
    account: Callable[[dict[str, Any], int], None],
) -> Any:
    """Load a model of one of transformers' auto classes in evaluation mode.

    Parameters
    ----------
    kind : type
        ``AutoModelForSequenceClassification`` or ``AutoModelForCausalLM``.
    folder, settings
        As for `load_classifier`.
    unquantized : sequence of str
        Modules that stay as they are where linear layers are quantised.
    account : callable
        Given transformers' report of keys and the number of layers; raises where a weight is missing or strange.
    """
    if settings.quantization not in QUANTIZATIONS:
        raise ConfigError(f"unknown quantization {settings.quantization!r}; known: {', '.join(QUANTIZATIONS)}")
    check_base_folder(folder)
    stored = check_stored(folder, settings.quantization)
    options: dict[str, Any] = {}
    if settings.attn_implementation != "auto":
        options["attn_implementation"] = settings.attn_implementation
    if settings.quantization != "none" and stored is None:
        options["quantization_config"] = quantization_config(settings.quantization, settings.dtype, list(unquantized))
    with LOAD_LOCK, quiet_transformers():
        config = load_config(folder, settings)
        if stored is not None:
            adapt_config(config, stored, dtype_name(settings.dtype), unquantized)
        form = settings.quantization if stored is None else stored.method
        later = can_follow(config.get_text_config(), settings.dtype, settings.device, form)
        try:
            model, report = kind.from_pretrained(
                folder,
                config=config,
                dtype=settings.dtype,
                device_map={"": "cpu" if later else settings.device},
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=False,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
                **options,
            )
        except (ValueError, ImportError) as error:
            if stored is not None and isinstance(error, ImportError):
                raise MissingDependencyError(
                    f"{folder} is stored as {stored}: {' '.join(str(error).split())}"
                ) from error
            if settings.attn_implementation == "auto":
                raise
            raise ConfigError(
                f"{folder} cannot be loaded with attn_implementation={settings.attn_implementation!r}: "
                f"{str(error).splitlines()[0]} Leave it at 'auto'"
            ) from error
    n_layers = config.get_text_config().num_hidden_layers
    account(report, n_layers)
    if later:
        transfer(model, settings.device)
    if stored is not None and stored.weights == "none":
        forget_quantization(model)
    model.eval()
    model.requires_grad_(False)
    logger.info(
        "loaded %s: %s, %d layers, %s, quantization %s, attention %s, on %s",
        folder.name,
        type(model).__name__,
        n_layers,
        settings.dtype,
        stored or settings.quantization,
        model.config._attn_implementation,
        settings.device,
    )
    return model


def _is_head(key: str) -> bool:
    return any(part in HEAD_NAMES for part in key.split("."))


def _account_for_keys(
    folder: Path, report: dict[str, Any], n_layers: int, head_follows: bool, following: Collection[str]
) -> None:
    missing = sorted(key for key in report["missing_keys"] if not any(part in following for part in key.split(".")))
    if missing:
        cure = (
            "; it has no trained classification head: give adapter= (a folder with head and recipe), or a checkpoint "
            "that was saved with its head"
            if all(_is_head(key) for key in missing)
            else ""
        )
        raise ModelError(f"{folder} lacks {len(missing)} weights: {', '.join(missing[:10])}{cure}")
    misfits = [str(entry) for entry in report.get("mismatched_keys") or [] if not (head_follows and _is_head(entry[0]))]
    if misfits:
        raise ModelError(f"{folder}: weights of another shape than the configuration says: {', '.join(misfits[:10])}")
    strange = sorted(
        key for key in report["unexpected_keys"] if not head_follows and (_is_head(key) or "lora" in key.lower())
    )
    if strange:
        raise ModelError(
            f"{folder} holds head or LoRA weights that the model has no place for: {', '.join(strange[:10])}"
        )
    logger.debug("%s: %d weights beyond layer %d or of other heads", folder, len(report["unexpected_keys"]), n_layers)
