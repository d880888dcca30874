"""Classification heads that lie in a model's own folder, beside its other weights."""

from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from lmsys_ensemble.errors import ConfigError
from lmsys_ensemble.modeling.adapters import account_for_keys, head_name
from lmsys_ensemble.modeling.checkpoints import HEAD_NAMES
from lmsys_ensemble.modeling.forward import has_plain_head
from lmsys_ensemble.modeling.recipe import Pooling


def read_head(folder: Path) -> dict[str, Tensor]:
    """Return the tensors of a model's head by their whole names, in the number format that they are stored in."""
    tensors = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            names = [key for key in list(file.keys()) if is_head_key(key)]
            tensors.update({key: file.get_tensor(key) for key in names})
    return tensors


def is_head_key(key: str) -> bool:
    """Tell whether a tensor of a model without an adapter belongs to its head."""
    return key.split(".")[0] in HEAD_NAMES


def missing_head(folder: Path, pooling: Pooling) -> str:
    """Say that a folder holds no head of a kind, and the cure."""
    if pooling != "last_token":
        return f"a head on {pooling} is kept beside an adapter, and none is given for {folder}; give adapter="
    return (
        f"{folder} has no trained classification head; give adapter= (a folder with head and recipe), or a "
        "checkpoint that was saved with its head"
    )


@torch.no_grad()
def restore_head(model: Any, folder: Path, pooling: Pooling) -> None:
    """Copy a decoder's head from its folder, with all digits: the rest of the model may be in half precision.

    Parameters
    ----------
    model : PreTrainedModel
        With a head that `lmsys_ensemble.modeling.forward.prepare_head` made.
    folder : Path
        The model's.
    pooling : {"last_token", "response_spans"}
        What the head is given.

    Raises
    ------
    ConfigError
        If there is no head in the folder.
    ModelError
        If it has other tensors or shapes than `pooling` asks for, or numbers that are not finite; lists them.
    """
    if not has_plain_head(model):
        return
    name = head_name(model)
    expected = {f"{name}.{key}": tensor for key, tensor in getattr(model, name).state_dict().items()}
    found = read_head(folder)
    if not found:
        raise ConfigError(missing_head(folder, pooling))
    account_for_keys(expected, found, folder, f"tensors of a head on {pooling}")
    for key, tensor in expected.items():
        tensor.copy_(found[key])
