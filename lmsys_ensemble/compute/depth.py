"""Running a part of a decoder's layers."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


@contextmanager
def only_layers(backbone: Any, start: int, stop: int | None = None) -> Iterator[Any]:
    """Let `backbone` run layers ``start`` to ``stop`` only.

    With ``start`` above 0 it takes the hidden states that enter that layer as ``inputs_embeds``; with ``stop`` below
    the number of layers it returns the hidden states that leave the last one, without the final norm.

    Parameters
    ----------
    backbone : PreTrainedModel
        Decoder with ``layers``, ``norm`` and ``config`` (Llama, Gemma, Qwen); put back as it was at the end.
    start, stop : int
        Layers, as in a slice.
    """
    layers, norm, config = backbone.layers, backbone.norm, backbone.config
    end = len(layers) if stop is None else stop
    part = copy.copy(config)
    part.num_hidden_layers = end - start
    if getattr(config, "layer_types", None):
        part.layer_types = list(config.layer_types[start:end])
    backbone.layers, backbone.config = nn.ModuleList(layers[start:end]), part
    if end < len(layers):
        backbone.norm = nn.Identity()
    try:
        yield backbone
    finally:
        backbone.layers, backbone.norm, backbone.config = layers, norm, config
