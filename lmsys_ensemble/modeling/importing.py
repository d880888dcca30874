"""Import of other people's checkpoints: pickled or raw LoRA and head weights become safetensors with a recipe.

This is the one place where a pickle is read, on the user's explicit command, with ``weights_only=True``: tensors and
plain containers, no code.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from safetensors.torch import load_file

from lmsys_ensemble.compute import hardware
from lmsys_ensemble.errors import ConfigError, IntegrityError, ModelError
from lmsys_ensemble.files import check_new_folder
from lmsys_ensemble.flags import spell
from lmsys_ensemble.modeling.adapter_config import CONFIG_FILE, check_ranks, read_lora_config
from lmsys_ensemble.modeling.adapters import WEIGHTS_FILE, account_for_keys, shapes_of
from lmsys_ensemble.modeling.assembly import assemble
from lmsys_ensemble.modeling.checkpoints import HEAD_NAMES
from lmsys_ensemble.modeling.golden import golden_battles, write_golden
from lmsys_ensemble.modeling.recipe import Recipe, write_recipe
from lmsys_ensemble.modeling.settings import ComputeSettings
from lmsys_ensemble.modeling.skeleton import adapter_skeleton
from lmsys_ensemble.modeling.tensorfiles import check_safetensors, describe_content, save_tensors
from lmsys_ensemble.modeling.tokenization import make_encoder

_PREFIX = "base_model.model."
_GOLDEN_TOKENS_PER_BATCH = 2048


@dataclass(frozen=True)
class LoraShape:
    """What a raw state dict does not say of its LoRA layers; `rank` is checked against the tensors."""

    alpha: float | None = None
    rank: int | None = None


def import_checkpoint(
    source: Path,
    output: Path,
    base: Path,
    recipe: Recipe,
    lora: LoraShape,
    *,
    golden: bool = True,
    device: str = "cpu",
) -> Recipe:
    """Convert a checkpoint to a folder that scorers load.

    Parameters
    ----------
    source : Path
        A PEFT folder (``adapter_model.safetensors`` or ``adapter_model.bin``), or a file: a state dict of LoRA and
        head weights saved by ``torch.save`` (``.pth``, ``.pt``, ``.bin``) or as safetensors.
    output : Path
        Folder to write; must be empty or not there, unless it is `source` itself.
    base : Path
        Local folder of the base model.
    recipe : Recipe
        How the model was trained; it is completed with the hash of the weights.
    lora : LoraShape
        For a bare state dict.
    golden : bool
        Whether to run the model once and keep its logits as golden rows.
    device : str
        Where it runs for that.

    Raises
    ------
    ModelError
        If keys are missing, unexpected, mis-shaped or not finite; lists them.
    IntegrityError
        If a file cannot be read.
    ConfigError
        If what a bare state dict does not say is not given, or contradicts it.
    """
    device = hardware.check_device(device)
    check_new_folder(output, overwrite=output == source)
    tensors, config = _read(source, lora)
    account_for_keys(adapter_skeleton(base, recipe, config), tensors, "the checkpoint")
    output.mkdir(parents=True, exist_ok=True)
    save_tensors(tensors, output / WEIGHTS_FILE)
    config.base_model_name_or_path = recipe.base_model.name
    config.inference_mode = True
    config.save_pretrained(str(output))
    complete = write_recipe(output, recipe, (WEIGHTS_FILE, CONFIG_FILE))
    if golden:
        forward = assemble(base, complete, ComputeSettings(device), adapter=output)
        rows = make_encoder(base, complete).encode(golden_battles())
        number_format = hardware.dtype_name(hardware.resolve_dtype("auto", device))
        write_golden(output, rows, forward.score(rows, _GOLDEN_TOKENS_PER_BATCH), number_format)
    return complete


def _read(source: Path, lora: LoraShape) -> tuple[dict[str, torch.Tensor], LoraConfig]:
    if source.is_dir():
        config = read_lora_config(source)
        files = [source / name for name in (WEIGHTS_FILE, "adapter_model.bin") if (source / name).is_file()]
        if not files:
            raise ModelError(f"{source} holds neither {WEIGHTS_FILE} nor adapter_model.bin")
        tensors = normalise_keys(_read_tensors(files[0]))
        check_ranks(config, shapes_of(tensors), source)
        return tensors, config
    if not source.is_file():
        raise ConfigError(f"there is no checkpoint {source}")
    tensors = normalise_keys(_read_tensors(source))
    return tensors, _infer_config(tensors, lora, source)


def _read_tensors(path: Path) -> Mapping[str, torch.Tensor]:
    if path.suffix == ".safetensors":
        check_safetensors(path)
        return load_file(path)
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle raises whatever its bytes happen to ask for
        raise IntegrityError(f"{path} cannot be read as tensors only: {_why_unreadable(path, error)}") from error
    for name in ("state_dict", "model_state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(name), dict):
            content = content[name]
    if not isinstance(content, dict) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise ModelError(f"{path} holds no state dict (a mapping of names to tensors)")
    return content


def _why_unreadable(path: Path, error: Exception) -> str:
    """Say what a file is instead of tensors; PyTorch's own text advises to switch the protection off."""
    wanted = re.search(r"GLOBAL ([\w.]+) was not an allowed global", str(error))
    if wanted:
        return (
            f"it asks for {wanted[1]}, which is code and is not run. Load it where you trust it, and save the tensors "
            "alone: torch.save(model.state_dict(), ...)"
        )
    if "TorchScript" in str(error):
        return "it is a TorchScript archive, which is code and is not run; save the tensors alone"
    kind = describe_content(path)
    if kind in ("a pickle", "a zip archive, as torch.save writes"):
        return f"it begins as {kind}, but is damaged, cut short, or holds something else; copy it again"
    return f"it is {kind}" if kind else "it is nothing that torch.save or safetensors write, or damaged; copy it again"


def normalise_keys(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename LoRA and head tensors to the names that PEFT saves.

    Takes what ``named_parameters`` of a PEFT model gives (``...lora_A.default.weight``,
    ``...score.modules_to_save.default.weight``), with or without the prefixes of PEFT and of data-parallel wrappers.
    The untrained copy of the head that PEFT keeps (``original_module``) is dropped.
    """
    renamed: dict[str, torch.Tensor] = {}
    for key, tensor in tensors.items():
        if ".original_module." in key:
            continue
        name = key.removeprefix("module.").removeprefix(_PREFIX)
        name = name.replace(".modules_to_save.default.", ".").replace(".modules_to_save.", ".")
        name = re.sub(r"\.(lora_[AB])\.default\.", r".\1.", name)
        if name.startswith("layers."):
            name = f"model.{name}"
        if _PREFIX + name in renamed:
            raise ModelError(f"two tensors of the checkpoint are called {name} once prefixes are dropped")
        renamed[_PREFIX + name] = tensor.contiguous().clone()
    return renamed


def _infer_config(tensors: Mapping[str, torch.Tensor], lora: LoraShape, source: Path) -> LoraConfig:
    """Read rank, target modules and layers off the tensors of a bare state dict."""
    ranks = {tensor.shape[0] for key, tensor in tensors.items() if ".lora_A." in key}
    targets = sorted({key.split(".lora_A.")[0].split(".")[-1] for key in tensors if ".lora_A." in key})
    heads = sorted({part for key in tensors for part in key.split(".") if part in HEAD_NAMES})
    if len(ranks) != 1:
        raise ModelError(f"{source} holds LoRA matrices of ranks {sorted(ranks)}; expected one rank")
    if not heads:
        raise ModelError(f"{source} holds no classification head ({' or '.join(HEAD_NAMES)}); it was not saved")
    rank = ranks.pop()
    if lora.rank is not None and lora.rank != rank:
        raise ConfigError(f"{source} has LoRA rank {rank}, not {lora.rank}")
    if lora.alpha is None:
        raise ConfigError(
            f"{source} does not say its lora_alpha; give the value it was trained with, {spell('lora_alpha=')}"
        )
    if not (math.isfinite(lora.alpha) and lora.alpha > 0):
        raise ConfigError(f"lora_alpha must be a number above 0, got {lora.alpha}")
    layers = sorted({int(match[1]) for key in tensors if (match := re.search(r"\.layers\.(\d+)\..*lora_A", key))})
    return LoraConfig(
        r=rank,
        lora_alpha=int(lora.alpha) if float(lora.alpha).is_integer() else lora.alpha,
        target_modules=targets,
        layers_to_transform=layers,
        layers_pattern="layers",
        modules_to_save=heads,
        task_type="SEQ_CLS",
    )
