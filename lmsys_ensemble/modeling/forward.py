"""The forward pass: token ids in, float32 logits out."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from lmsys_ensemble.encoding.batches import plan_batches, restore_order
from lmsys_ensemble.encoding.tokens import Encoded
from lmsys_ensemble.errors import ConfigError
from lmsys_ensemble.modeling.adapters import head_name
from lmsys_ensemble.modeling.pooling import (
    pad_batch,
    pool,
    pooled_size,
)
from lmsys_ensemble.modeling.recipe import Pooling
from lmsys_ensemble.probabilities import Logits


def prepare_head(model: Any, pooling: Pooling, n_classes: int) -> None:
    """Give the model a head that takes what `pooling` gives; ``last_token`` keeps transformers' own.

    A decoder's head is float32 from here on, so that a trained one loses no digits when it is copied in.

    Raises
    ------
    ConfigError
        If the model pools in its own way (encoders) and something else is asked for.
    """
    if not has_plain_head(model):
        if pooling != "last_token":
            raise ConfigError(
                f"pooling {pooling!r} needs a decoder with one linear head (Llama, Gemma, Qwen); "
                f"{type(model).__name__} pools in its own way, leave it at 'last_token'"
            )
        return
    model.score.float()
    if pooling == "response_spans":
        head = nn.Linear(pooled_size(pooling, model.config.get_text_config().hidden_size), n_classes)
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

    def score(
        self, encoded: Encoded, tokens_per_batch: int, on_batch: Callable[[int, int], None] | None = None
    ) -> Logits:
        """Return logits of shape (n_rows, n_classes) for all rows, in their order.

        Parameters
        ----------
        encoded : Encoded
            At least one row.
        tokens_per_batch : int
            Token budget of a batch, padding included.
        on_batch : callable, optional
            Told the rows and tokens of every finished batch.
        """
        lengths = encoded.lengths
        batches = plan_batches(lengths, tokens_per_batch)
        parts = []
        for rows in batches:
            parts.append(self([encoded.ids[row] for row in rows], [encoded.fields[row] for row in rows]))
            if on_batch is not None:
                on_batch(len(rows), int(lengths[rows].sum()))
        return restore_order(parts, batches, len(encoded))

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
            logits = self.model.score(pool(hidden, ids, fields, self.pooling, self.pad_token_id))
        result: Logits = logits.float().cpu().numpy()
        return result
