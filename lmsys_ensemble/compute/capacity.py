"""What a model costs by its shape alone: operations for rows of given lengths, and memory of its weights.

Imports neither torch nor transformers, and reads nothing but ``config.json``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmsys_ensemble.files import read_mapping

BYTES_PER_WEIGHT = {"float32": 4.0, "float16": 2.0, "bfloat16": 2.0, "int8": 1.0, "nf4": 0.53}
"""Memory of a weight; 4-bit weights bring a scale of 16 bits for every 64."""

PADDED = 1.5
"""Largest size of a blockwise attention kernel for a token of the batch."""


@dataclass(frozen=True)
class Shape:
    """Sizes of a decoder or encoder.

    Parameters
    ----------
    hidden_size, intermediate_size, head_size, vocab_size : int
        Widths.
    n_heads, n_key_heads : int
        Attention heads, and those of keys and values.
    windows : tuple
        For every layer how many tokens one sees at most; None for all.
    """

    hidden_size: int
    intermediate_size: int
    head_size: int
    vocab_size: int
    n_heads: int
    n_key_heads: int
    windows: tuple[int | None, ...]

    @property
    def weights_per_layer(self) -> int:
        """Weights of a layer's linear maps."""
        heads = self.head_size * (2 * self.n_heads + 2 * self.n_key_heads)
        return self.hidden_size * (heads + 3 * self.intermediate_size)

    def flops(self, lengths: NDArray[np.intp]) -> NDArray[np.float64]:
        """Return the operations of a forward pass over rows of `lengths` tokens, of shape (n_rows,).

        Two for every weight and token; and for every query and key that it sees two by head size for the score and
        two for the mean.
        """
        tokens = lengths.astype(np.float64)
        total = 2.0 * self.weights_per_layer * len(self.windows) * tokens
        for window in self.windows:
            full = np.minimum(tokens, window or np.inf)
            pairs = full * (full + 1) / 2 + (tokens - full) * full
            total += 4.0 * self.n_heads * self.head_size * pairs
        result: NDArray[np.float64] = total
        return result

    def activation_bytes(self, itemsize: int, *, int8: bool = False) -> int:
        """Return the most memory that a packed forward pass takes for a token, in bytes; without constant parts.

        The greatest of three moments of a layer: its attention with queries, keys, values and their turned and padded
        copies; its feed-forward part, where two products of the intermediate size are there at once; its last norm,
        which computes in float32. The residual is there twice, before and after the attention.

        Parameters
        ----------
        itemsize : int
            Bytes of a value of the arithmetic.
        int8 : bool
            Whether the weights are bitsandbytes' 8-bit integers, whose products are 32-bit integers at first.
        """
        queries, keys = self.n_heads * self.head_size, self.n_key_heads * self.head_size
        attention = itemsize * (2 * self.hidden_size + 2 * queries + 3 * keys)
        attention += int(PADDED * itemsize * (2 * queries + 2 * keys))
        feed_forward = itemsize * (3 * self.hidden_size + 2 * self.intermediate_size)
        if int8:
            feed_forward += self.hidden_size + 4 * self.intermediate_size
        norm = (3 * itemsize + 3 * 4) * self.hidden_size
        positions = 2 * itemsize * self.head_size + 6 * 8
        return max(attention, feed_forward, norm) + positions

    def weight_bytes(self, number_format: str) -> int:
        """Return the memory of the weights; embeddings stay in half precision (or float32) when layers are packed."""
        layers = self.weights_per_layer * len(self.windows)
        embedding = self.hidden_size * self.vocab_size
        whole = BYTES_PER_WEIGHT[number_format]
        return int(layers * whole + embedding * max(whole, 2.0))


def read_shape(folder: Path, n_layers: int | None = None) -> Shape | None:
    """Read a model's sizes, or the first `n_layers` of it; None where ``config.json`` does not state them."""
    if not (folder / "config.json").is_file():
        return None
    return shape_of(read_mapping(folder / "config.json"), n_layers)


def shape_of(config: Mapping[str, Any], n_layers: int | None = None) -> Shape | None:
    """Return the sizes that a model's configuration states, or of its first `n_layers`; None where it does not."""
    config = config.get("text_config", config)
    try:
        hidden, heads = config["hidden_size"], config["num_attention_heads"]
        layers = n_layers or config["num_hidden_layers"]
        window = config.get("sliding_window")
        kinds = config.get("layer_types") or ["full_attention"] * config["num_hidden_layers"]
        return Shape(
            hidden_size=hidden,
            intermediate_size=config["intermediate_size"],
            head_size=config.get("head_dim") or hidden // heads,
            vocab_size=config["vocab_size"],
            n_heads=heads,
            n_key_heads=config.get("num_key_value_heads") or heads,
            windows=tuple(window if kind == "sliding_attention" else None for kind in kinds[:layers]),
        )
    except KeyError:
        return None
