"""Hidden states that enter the first trained layer, computed once and kept in a file.

The layers below it do not learn, so their output is the same in every epoch.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lmsys_ensemble.encoding.batches import plan_batches
from lmsys_ensemble.encoding.tokens import Encoded
from lmsys_ensemble.modeling.depth import only_layers
from lmsys_ensemble.modeling.pooling import pad_batch


class HiddenStates:
    """Hidden states of many sequences, one after the other in a memory-mapped bfloat16 file.

    Parameters
    ----------
    path : Path
        File to make; two bytes a value.
    lengths : ndarray of shape (n_rows,)
        Tokens of every row.
    hidden_size : int
        Values of every token.
    """

    def __init__(self, path: Path, lengths: NDArray[np.intp], hidden_size: int):
        self.starts = np.concatenate([[0], np.cumsum(lengths)])
        size = int(self.starts[-1]) * hidden_size
        self.values = torch.from_file(str(path), shared=True, size=size, dtype=torch.bfloat16).view(-1, hidden_size)

    def __setitem__(self, row: int, hidden: torch.Tensor) -> None:
        self.values[self.starts[row] : self.starts[row + 1]] = hidden

    def batch(self, rows: Sequence[int], device: torch.device) -> torch.Tensor:
        """Return right-padded hidden states of shape (n_rows, longest, hidden_size), float32."""
        parts = [self.values[self.starts[row] : self.starts[row + 1]] for row in rows]
        return torch.nn.utils.rnn.pad_sequence(parts, batch_first=True).to(device=device, dtype=torch.float32)


@torch.no_grad()
def compute_hidden_states(
    backbone: Any,
    first_layer: int,
    encoded: Encoded,
    path: Path,
    tokens_per_batch: int,
    on_batch: Callable[[int], object],
) -> HiddenStates:
    """Run the layers below `first_layer` on all rows and keep what leaves them."""
    lengths = encoded.lengths
    states = HiddenStates(path, lengths, backbone.config.hidden_size)
    with only_layers(backbone, 0, first_layer) as lower:
        for rows in plan_batches(lengths, tokens_per_batch):
            tokens, mask = pad_batch([encoded.ids[row] for row in rows], 0, backbone.device)
            entering = backbone.get_input_embeddings()(tokens).float()  # what is added up would overflow in float16
            hidden = lower(inputs_embeds=entering, attention_mask=mask, use_cache=False).last_hidden_state
            for position, row in enumerate(rows):
                states[int(row)] = hidden[position, : lengths[row]].to("cpu", torch.bfloat16)
            on_batch(int(lengths[rows].sum()))
    return states
