"""Copying a loaded model to its GPU, several weights at a time and beside the loads of other GPUs."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

from lmsys_ensemble.compute.hardware import current_device

THREADS = 4
"""Threads that copy at a time: a weight is read from the disk as it is copied, and one does not keep a disk busy."""


def can_follow(config: Any, dtype: torch.dtype, device: str, quantization: str) -> bool:
    """Tell whether weights may be copied to the device after loading.

    Not where loading changes them on the way (another number format, quantisation): that would need the host's memory
    for the whole model.
    """
    return device != "cpu" and quantization == "none" and getattr(config, "dtype", None) == dtype


def transfer(model: Any, device: str) -> None:
    """Copy a model that lies in the host's memory, or is mapped from its file, to a device.

    Nothing of the process is changed meanwhile, unlike in ``from_pretrained``: other threads may load and score.
    """
    tensors = [*model.parameters(), *model.buffers()]
    with ThreadPoolExecutor(THREADS, "transfers") as pool:
        copies = pool.map(lambda tensor: _copied(tensor.data, device), tensors)
        by_tensor = {id(tensor): copied for tensor, copied in zip(tensors, copies, strict=True)}
    model._apply(lambda tensor: by_tensor[id(tensor)])


def _copied(tensor: torch.Tensor, device: str) -> torch.Tensor:
    with current_device(device):
        return tensor.to(device)
