"""Language models: loading them with their output matrix, and what an adapter for one must bring."""

import copy
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from transformers import AutoModelForCausalLM

from lmsys_ensemble.errors import ModelError, collected
from lmsys_ensemble.modeling.adapters import account_for_shapes, inject_lora, read_adapter_header, shapes_of
from lmsys_ensemble.modeling.building import LOAD_LOCK
from lmsys_ensemble.modeling.checkpoints import HEAD_NAMES, check_base_folder
from lmsys_ensemble.modeling.loading import LoadSettings, load_config, load_pretrained
from lmsys_ensemble.modeling.tensorfiles import read_header

OUTPUT_NAMES = ("lm_head",)
"""Names of the output matrix; like classification heads it stays unquantised."""


def load_language_model(folder: Path, settings: LoadSettings) -> Any:
    """Load a causal language model in evaluation mode.

    Parameters
    ----------
    folder : Path
        Base model, as returned by `resolve_base`.
    settings : LoadSettings
        Device and number formats.

    Raises
    ------
    ModelError
        If weights are missing or do not fit, or the folder is that of a classifier.
    """

    def account(report: dict[str, Any], n_layers: int) -> None:
        _account_for_keys(folder, report)

    return load_pretrained(AutoModelForCausalLM, folder, settings, [*HEAD_NAMES, *OUTPUT_NAMES], account)


def _account_for_keys(folder: Path, report: Mapping[str, Any]) -> None:
    missing = sorted(report["missing_keys"])
    if missing:
        cure = f"; {_NO_OUTPUT}" if any(key.split(".")[0] in OUTPUT_NAMES for key in missing) else ""
        raise ModelError(f"{folder} lacks {len(missing)} weights: {', '.join(missing[:10])}{cure}")
    misfits = [str(entry) for entry in report.get("mismatched_keys") or []]
    if misfits:
        raise ModelError(f"{folder}: weights of another shape than the configuration says: {', '.join(misfits[:10])}")
    unexpected = report["unexpected_keys"]
    if heads := sorted(key for key in unexpected if key.split(".")[0] in HEAD_NAMES):
        raise ModelError(f"{folder}: {_CLASSIFIER}: {', '.join(heads)}")
    if strange := sorted(key for key in unexpected if "lora" in key.lower()):
        raise ModelError(f"{folder} holds LoRA weights that the model has no place for: {', '.join(strange[:10])}")


_NO_OUTPUT = (
    "it has no output matrix, and its embeddings are not tied to one (tie_word_embeddings): it is no language model"
)
_CLASSIFIER = "it is a classifier, with a head of its own, and no language model; use ClassifierScorer"


def empty_language_model(base: Path, settings: LoadSettings) -> Any:
    """Return a language model without weights, of which only ``config.json`` is read.

    Raises
    ------
    ModelError
        If transformers has no language model of this kind, or it cannot be built.
    """
    with LOAD_LOCK, torch.device("meta"):
        config = load_config(base, settings)
        try:
            return AutoModelForCausalLM.from_config(config)
        except Exception as error:  # a missing name is a KeyError, a size that does not fit an AssertionError, ...
            reason = " ".join(str(error).split())[:300]
            raise ModelError(
                f"{base}/config.json describes no causal language model that can be built: {reason}"
            ) from error


def language_base_faults(base: Path, settings: LoadSettings) -> Iterator[str]:
    """Yield what is wrong with a language model's folder, without reading its weights."""
    faults: list[str] = []
    with collected(faults):
        check_base_folder(base)
        model = empty_language_model(base, settings)
        header = {key: entry for path in base.glob("*.safetensors") for key, entry in read_header(path).items()}
        if any(key.split(".")[0] in HEAD_NAMES for key in header):
            raise ModelError(f"{base}: {_CLASSIFIER}")
        has_output = any(part in OUTPUT_NAMES for key in header for part in key.split("."))
        if not has_output and not model.config.get_text_config().tie_word_embeddings:
            raise ModelError(f"{base}: {_NO_OUTPUT}")
    yield from faults


def language_adapter_faults(adapter: Path, base: Path | None, settings: LoadSettings) -> Iterator[str]:
    """Yield what is wrong with an adapter's folder, and where the base is there, what does not fit it."""
    faults: list[str] = []
    with collected(faults):
        config, shapes = read_adapter_header(adapter)
        check_is_of_language_model(adapter, shapes)
        if base is not None:
            account_for_shapes(shapes_of(language_skeleton(base, settings, config)), shapes, adapter)
    yield from faults


def check_is_of_language_model(adapter: Path, tensors: Mapping[str, Any]) -> None:
    """Raise `ModelError` if an adapter brings a classification head."""
    heads = sorted(key for key in tensors if any(part in HEAD_NAMES for part in key.split(".")))
    if heads:
        raise ModelError(
            f"{adapter} is a classifier's adapter, with a head ({heads[0]}), and not a language model's; use "
            "ClassifierScorer, or give an adapter that was trained with task_type CAUSAL_LM"
        )


def language_skeleton(base: Path, settings: LoadSettings, config: LoraConfig) -> Mapping[str, torch.Tensor]:
    """Return a tensor without memory for every one that an adapter of `config` has for a language model.

    Raises
    ------
    ModelError
        If the model cannot be built, or the adapter does not fit it.
    """
    with LOAD_LOCK, torch.device("meta"):
        model = empty_language_model(base, settings)
        copied = copy.deepcopy(config)
        copied.init_lora_weights = False  # there is nothing to initialise; some ways would decompose the base's weights
        wrapped = inject_lora(model, copied, "CAUSAL_LM")
    tensors: Mapping[str, torch.Tensor] = get_peft_model_state_dict(wrapped, save_embedding_layers=False)
    return tensors
