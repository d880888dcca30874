"""Rounding that looks at what layers are given: GPTQ (Frantar, Ashkboos, Hoefler and Alistarh, ICLR 2023).

Rounding to the nearest value keeps the error of the weights small; what counts is the error of a layer's output on the
inputs that it gets. GPTQ rounds one column of a weight after the other, and the columns that are still to come make up
for the error, by the second moments of the layer's inputs on calibration rows.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from lmsys_ensemble.compute.depth import only_layers
from lmsys_ensemble.data.battles import parse_battles
from lmsys_ensemble.data.tables import read_table
from lmsys_ensemble.encoding.tokens import Encoder
from lmsys_ensemble.errors import ConfigError, InputError, ModelError
from lmsys_ensemble.files import sha256_of
from lmsys_ensemble.merging.compression import Scheme, compress, fit_scales
from lmsys_ensemble.modeling.forward import has_plain_head

DAMPING = 0.01
"""Share of the mean second moment that is added to every one, as in the paper's code: inputs that never occur in the
calibration rows would leave the matrix without an inverse."""

COLUMNS_PER_BLOCK = 128
"""Columns after which the rest makes up for their errors in one product, as in the paper's code."""


MOST_ROWS = 256
"""Calibration rows that are used, drawn from all of them; the paper takes 128 sequences of 2,048 tokens."""


@dataclass(frozen=True)
class CalibrationRows:
    """Calibration rows: token ids of every row, and what ``recipe.json`` says of them."""

    ids: list[NDArray[np.int32]]
    provenance: dict[str, Any]


def read_calibration(files: Sequence[str | Path], quantization: str, encoder: Encoder) -> CalibrationRows | None:
    """Read battles for calibration, at most `MOST_ROWS` of all files; None if there is no file.

    Raises
    ------
    ConfigError
        If nothing is rounded.
    InputError
        If a file cannot be read, or there are no rows.
    """
    if not files:
        return None
    if quantization == "none":
        raise ConfigError("calibration rows are for quantization 'int8' or 'w4a16', got 'none'; leave them out")
    battles = [parse_battles(read_table(path)) for path in files]
    places = [(number, row) for number, each in enumerate(battles) for row in range(len(each))]
    if not places:
        raise InputError(f"no rows in {', '.join(map(str, files))}; calibration takes one or more")
    drawn = sorted(np.random.default_rng(0).permutation(len(places))[:MOST_ROWS])
    ids: list[NDArray[np.int32]] = []
    for number, each in enumerate(battles):
        rows = np.array([places[at][1] for at in drawn if places[at][0] == number], dtype=np.intp)
        ids.extend(encoder.encode(each.take(rows)).ids if len(rows) else ())
    hashes = [sha256_of(path) for path in files]
    return CalibrationRows(ids, {"rows": len(ids), "tokens": sum(map(len, ids)), "files_sha256": hashes})


@torch.no_grad()
def round_compensated(weight: Tensor, moments: Tensor, scheme: Scheme, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Round a weight so that its layer's output changes little.

    Columns come in descending order of their inputs' second moments: the first ones have most others left that make up
    for their errors. Scales are those of `fit_scales`, with columns counted by their second moments, and fixed before
    anything is rounded: a column keeps its group, and the format needs no order of columns.

    Parameters
    ----------
    weight : Tensor of shape (n_out, n_in), float32
        What is rounded.
    moments : Tensor of shape (n_in, n_in), float32
        Sum over calibration tokens of the products of every two inputs.
    scheme : Scheme
        Bits and groups.
    dtype : torch.dtype
        Number format that scales are stored in.

    Returns
    -------
    rounded : Tensor of shape (n_out, n_in), float32
        Multiples of the scales.
    scales : Tensor of shape (n_out, n_groups), float32
        Numbers of `dtype`.
    """
    n_columns = weight.shape[1]
    scales = fit_scales(weight, scheme, moments.diagonal()).to(dtype).float()
    lowest, highest = -(2 ** (scheme.bits - 1)), 2 ** (scheme.bits - 1) - 1
    order = torch.argsort(moments.diagonal(), descending=True, stable=True)
    left = weight[:, order]
    by_column = scales.repeat_interleave(n_columns // scales.shape[1], dim=1)[:, order]
    factor = _inverse_factor(moments[order][:, order])
    rounded = torch.empty_like(left)
    for start in range(0, n_columns, COLUMNS_PER_BLOCK):
        stop = min(start + COLUMNS_PER_BLOCK, n_columns)
        errors = torch.empty_like(left[:, start:stop])
        for column in range(start, stop):
            scale = by_column[:, column]
            rounded[:, column] = (left[:, column] / scale).round_().clamp_(lowest, highest).mul_(scale)
            error = (left[:, column] - rounded[:, column]) / factor[column, column]
            left[:, column:stop].addr_(error, factor[column, column:stop], alpha=-1)
            errors[:, column - start] = error
        left[:, stop:].addmm_(errors, factor[start:stop, stop:], alpha=-1)
    result = torch.empty_like(rounded)
    result[:, order] = rounded
    return result, scales


def _inverse_factor(moments: Tensor) -> Tensor:
    """Return the upper Cholesky factor of the inverse of damped moments; damped more where rounding leaves none."""
    damping = DAMPING * (float(moments.diagonal().mean()) or 1.0)
    while True:
        lower, failed = torch.linalg.cholesky_ex(moments + damping * torch.eye(len(moments)))
        if not failed:
            upper, failed = torch.linalg.cholesky_ex(torch.cholesky_inverse(lower), upper=True)
            if not failed:
                return torch.as_tensor(upper)
        damping *= 10


@torch.no_grad()
def round_layers(
    model: Any,
    ids: Sequence[NDArray[np.int32]],
    layers: Sequence[tuple[str, nn.Linear]],
    scheme: Scheme,
    dtype: torch.dtype,
    say: Callable[[str], object] = lambda text: None,
) -> dict[str, dict[str, Tensor]]:
    """Round a decoder's layers one after the other, each on what the rounded ones below it give.

    Memory holds the hidden states of the calibration rows and the moments of one decoder layer's inputs; weights are
    freed as they are rounded.

    Parameters
    ----------
    model : PreTrainedModel
        Decoder with PEFT's layers in it; it cannot be used afterwards.
    ids : sequence of ndarray
        Token ids of the calibration rows.
    layers : sequence of (str, nn.Linear)
        The linear layers that are rounded, see `lmsys_ensemble.merging.weights.rounded_layers`.
    scheme : Scheme
        Bits and groups.
    dtype : torch.dtype
        Number format of what is not rounded.
    say : callable
        Told in words how far it is.

    Returns
    -------
    dict
        What is stored of every layer, by its name.

    Raises
    ------
    ConfigError
        If the model is no decoder whose layers are known.
    ModelError
        If hidden states are not finite.
    """
    backbone = model.base_model
    if not has_plain_head(model) or not hasattr(backbone, "layers"):
        raise ConfigError(
            f"calibration runs decoders layer by layer, and {type(model).__name__} is none; leave --calibration out"
        )
    embed = backbone.get_input_embeddings()
    states = [embed(torch.from_numpy(row.astype(np.int64))[None]).to(dtype) for row in ids]
    stored: dict[str, dict[str, Tensor]] = {}
    depth = len(backbone.layers)
    for number in range(depth):
        inside = set(backbone.layers[number].modules())
        own = [(name, layer) for name, layer in layers if layer in inside]
        with only_layers(backbone, number, number + 1) as run:
            moments = _moments(run, states, [layer for _, layer in own])
            for part in inside:
                if isinstance(part, LoraLayer):
                    part.get_base_layer().weight.data = part.get_base_layer().weight.data.float()
                    part.merge()
            for (name, layer), products in zip(own, moments, strict=True):
                rounded, scales = round_compensated(layer.weight.data.float(), products, scheme, dtype)
                stored[name] = dict(compress(name, rounded, scheme, dtype, scales))
                layer.weight.data = rounded.to(dtype)
            if number + 1 < depth:
                states = [run(inputs_embeds=row, use_cache=False).last_hidden_state for row in states]
        for _, layer in own:
            layer.weight.data = torch.empty(0)
        say(f"rounded layer {number + 1} of {depth} on {len(ids)} calibration rows")
    return stored


def _moments(run: Any, states: Sequence[Tensor], layers: Sequence[nn.Linear]) -> list[Tensor]:
    """Return of every linear layer the sum over tokens of the products of every two inputs."""
    moments = {layer: torch.zeros(layer.in_features, layer.in_features) for layer in layers}

    def add(layer: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        inputs = arguments[0].flatten(0, -2).float()
        moments[layer].addmm_(inputs.T, inputs)  # type: ignore[index]

    hooks = [layer.register_forward_pre_hook(add) for layer in layers]
    try:
        for row in states:  # one row at a time: nothing is padded
            run(inputs_embeds=row, use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    if not all(torch.isfinite(products).all() for products in moments.values()):
        raise ModelError("layers' inputs are not finite on the calibration rows; give --dtype float32, or other rows")
    return [moments[layer] for layer in layers]
