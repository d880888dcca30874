"""The forward pass: token ids in, float32 logits out."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from lmsys_ensemble.modeling.adapters import head_name
from lmsys_ensemble.modeling.pooling import (
    FILL_FIELD,
    SPAN_FEATURES,
    last_token_positions,
    pad_batch,
    pool_last_token,
    pool_response_spans,
)
from lmsys_ensemble.modeling.recipe import Pooling
from lmsys_ensemble.probabilities import Logits


def prepare_head(model: Any, pooling: Pooling, n_classes: int) -> None:
    """Replace the head by one that takes what `pooling` gives; ``last_token`` keeps transformers' own."""
    if pooling == "response_spans":
        hidden_size = model.config.hidden_size
        head = nn.Linear(SPAN_FEATURES * hidden_size, n_classes)
        setattr(model, head_name(model), head.to(device=model.device, dtype=torch.float32))


def has_plain_head(model: Any) -> bool:
    """Tell whether a model is a decoder with one linear head over the last hidden states (Llama, Gemma, Qwen...)."""
    return hasattr(model, "score") and not hasattr(model, "classifier")


class ForwardPass:
    """Runs a classification model on token ids.

    Decoders run without key-value cache and language-model head, and only pooled positions reach the classification
    head, which works in float32. Models with another kind of head (encoders) run as transformers has them.

    Parameters
    ----------
    model : PreTrainedModel
        In evaluation mode, on its device.
    pooling : {"last_token", "response_spans"}
        What the head is given.
    pad_token_id : int or None
        Token that ``last_token`` pooling takes for padding.
    """

    def __init__(self, model: Any, pooling: Pooling = "last_token", pad_token_id: int | None = None):
        self.model = model
        self.pooling = pooling
        self.pad_token_id = pad_token_id
        self.device = model.device
        self.plain = has_plain_head(model)
        if self.plain:
            model.score.float()

    @torch.inference_mode()
    def __call__(self, ids: Sequence[NDArray[np.int32]], fields: Sequence[NDArray[np.int8]]) -> Logits:
        """Return logits of shape (n_rows, n_classes) for one batch.

        Parameters
        ----------
        ids, fields : sequence of ndarray
            Token ids and field codes of every row, as `lmsys_ensemble.encoding.tokens.Encoded` holds them.
        """
        fill = self.pad_token_id or 0
        tokens, mask = pad_batch(ids, fill, self.device)
        if not self.plain:
            logits = self.model(input_ids=tokens, attention_mask=mask).logits
        else:
            hidden = self.model.base_model(input_ids=tokens, attention_mask=mask, use_cache=False).last_hidden_state
            if self.pooling == "response_spans":
                pooled = pool_response_spans(hidden, pad_batch(fields, FILL_FIELD, self.device)[0])
            else:
                positions = torch.from_numpy(last_token_positions(ids, self.pad_token_id)).to(self.device)
                pooled = pool_last_token(hidden, positions)
            logits = self.model.score(pooled.float())
        result: Logits = logits.float().cpu().numpy()
        return result
