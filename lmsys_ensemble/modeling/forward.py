"""The forward pass: token ids in, float32 logits out."""

import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from lmsys_ensemble.compute.attention import Attention, SequenceAttention
from lmsys_ensemble.compute.decoder import PackedDecoder, can_pack
from lmsys_ensemble.compute.flex import FlexAttention
from lmsys_ensemble.compute.hardware import current_device, tokens_that_fit
from lmsys_ensemble.compute.packing import Packed, pack, to_device
from lmsys_ensemble.encoding.batches import pack_batches, plan_batches, restore_order
from lmsys_ensemble.encoding.prefixes import Family, find_families, keep_rows, unique_rows
from lmsys_ensemble.encoding.tokens import Encoded
from lmsys_ensemble.errors import ConfigError
from lmsys_ensemble.modeling.adapters import head_name
from lmsys_ensemble.modeling.pooling import pad_batch, plan_pooling, pool, pool_packed, pooled_size
from lmsys_ensemble.modeling.recipe import HeadRecipe, Pooling
from lmsys_ensemble.modeling.rescue import score_rows
from lmsys_ensemble.probabilities import Logits
from lmsys_ensemble.progress import NoProgress, Progress

logger = logging.getLogger(__name__)

AttentionKind: TypeAlias = Callable[[Packed, NDArray[np.intp]], Attention]
"""Makes the attention of a packed batch, given the tokens that are pooled."""


def prepare_head(model: Any, recipe: HeadRecipe, n_classes: int) -> None:
    """Give the model a head that takes what is pooled; a linear one on ``last_token`` is transformers' own.

    A decoder's head is float32 from here on, so that a trained one loses no digits when it is copied in.

    Raises
    ------
    ConfigError
        If the model pools in its own way (encoders) and something else is asked for.
    """
    if not has_plain_head(model):
        if recipe.pooling != "last_token" or recipe.hidden_size:
            asked = f"pooling {recipe.pooling!r}" if recipe.pooling != "last_token" else "a head with a hidden layer"
            raise ConfigError(
                f"{asked} needs a decoder with one linear head (Llama, Gemma, Qwen); {type(model).__name__} pools in "
                "its own way, leave pooling at 'last_token' and hidden_size out"
            )
        return
    model.score.float()
    size = pooled_size(recipe.pooling, model.config.get_text_config().hidden_size)
    head: nn.Module
    if recipe.hidden_size:
        head = nn.Sequential(nn.Linear(size, recipe.hidden_size), nn.GELU(), nn.Linear(recipe.hidden_size, n_classes))
    elif recipe.pooling == "response_spans":
        head = nn.Linear(size, n_classes)
    else:
        return
    setattr(model, head_name(model), head.to(device=model.device, dtype=torch.float32))


def has_plain_head(model: Any) -> bool:
    """Tell whether a model is a decoder with one linear head over the last hidden states (Llama, Gemma, Qwen...)."""
    return hasattr(model, "score") and not hasattr(model, "classifier")


class ForwardPass:
    """Runs a classification model on token ids.

    Decoders run packed: without padding, key-value cache and language-model head; beginnings that rows share are
    computed once, and the last layer only for the tokens that are pooled. The head works in float32. Models with
    another kind of head (encoders), and decoders of unknown build, run padded as transformers has them.

    Parameters
    ----------
    model : PreTrainedModel
        In evaluation mode, on its device.
    pooling : {"last_token", "response_spans"}
        What the head is given.
    pad_token_id : int or None
        Token that ``last_token`` pooling takes for padding.
    attention : callable, optional
        Makes the attention of a packed batch; by default what suits the device, see `attention_kind`.
    packed : bool
        False runs every model padded, as transformers has it.
    """

    def __init__(
        self,
        model: Any,
        pooling: Pooling = "last_token",
        pad_token_id: int | None = None,
        *,
        attention: AttentionKind | None = None,
        packed: bool = True,
    ):
        self.model = model
        self.pooling = pooling
        self.pad_token_id = pad_token_id
        self.device: torch.device = model.device
        self.n_classes: int = model.config.num_labels
        self.limit: int | None = None
        self.attention = attention or attention_kind(self.device)
        self.plain = has_plain_head(model)
        packed = packed and self.plain and can_pack(model.base_model)
        self.decoder = PackedDecoder(model.base_model) if packed else None
        self.tokens_per_batch = tokens_that_fit(
            model.config.get_text_config(),
            model.dtype,
            str(self.device),
            packed=packed,
            int8=bool(getattr(model, "is_loaded_in_8bit", False)),
        )
        if self.plain:
            model.score.float()
        logger.info("%s runs %s", type(model).__name__, self.layout)

    @property
    def layout(self) -> str:
        """How rows are laid out: ``packed``, with the kind of attention, or ``padded``."""
        if self.decoder is None:
            return "padded"
        return f"packed, {getattr(self.attention, '__name__', self.attention)}"

    @property
    def can_upcast(self) -> bool:
        """Whether the weights are in half precision and the layers can be run in float32 instead."""
        return self.decoder is not None and self.model.base_model.embed_tokens.weight.dtype != torch.float32

    def score(self, encoded: Encoded, tokens_per_batch: int | None = None, progress: Progress | None = None) -> Logits:
        """Return logits of shape (n_rows, n_classes) for all rows, in their order.

        Rows that are the same are computed once. A batch that does not fit into memory is halved; a row that does
        not fit on its own gets NaN, and so does a row whose logits are not finite even in float32.

        Parameters
        ----------
        encoded : Encoded
            At least one row.
        tokens_per_batch : int, optional
            Token budget of a batch, padding included where there is any; by default from the device's free memory.
        progress : Progress, optional
            Told of every finished batch, of retries and of rows without logits.
        """
        progress = progress or NoProgress()
        tokens_per_batch = tokens_per_batch or self.tokens_per_batch
        first, kinds = unique_rows(encoded.ids, encoded.fields)
        copies = np.bincount(kinds, minlength=len(first))
        ids, fields = [encoded.ids[row] for row in first], [encoded.fields[row] for row in first]
        lengths = np.array([len(row) for row in ids], dtype=np.intp)
        failed: dict[int, str] = {}
        batches, parts = [], []
        for planned, families in self._plan(ids, fields, lengths, tokens_per_batch):
            for rows in self._within_limit(planned, lengths):
                shared = None if families is None else keep_rows(families, rows.tolist())
                given = [ids[row] for row in rows], [fields[row] for row in rows]
                logits, faults = score_rows(self, *given, progress, shared)
                parts.append(logits)
                batches.append(rows)
                failed.update({int(rows[position]): why for position, why in faults.items()})
                progress.advance(int(copies[rows].sum()), int((copies[rows] * lengths[rows]).sum()))
        for row, kind in enumerate(kinds):
            if int(kind) in failed:
                progress.row_failed(row, failed[int(kind)])
        result: Logits = restore_order(parts, batches, len(first))[kinds]
        return result

    def _plan(
        self,
        ids: Sequence[NDArray[np.int32]],
        fields: Sequence[NDArray[np.int8]],
        lengths: NDArray[np.intp],
        tokens_per_batch: int,
    ) -> Iterator[tuple[NDArray[np.intp], list[Family] | None]]:
        """Yield the rows of every batch, and where it is packed their families in the order of the texts."""
        if self.decoder is None:
            yield from ((rows, None) for rows in plan_batches(lengths, tokens_per_batch))
            return
        families = find_families(ids, fields, tokens_per_batch)
        for batch in pack_batches([family.cost(lengths) for family in families], tokens_per_batch):
            rows = np.concatenate([families[position].rows for position in batch])
            yield rows, [families[position] for position in np.sort(batch)]

    def _within_limit(self, rows: NDArray[np.intp], lengths: NDArray[np.intp]) -> list[NDArray[np.intp]]:
        """Cut a planned batch into smaller ones, if memory has run out before at its size."""
        if self.limit is None or lengths[rows].sum() <= self.limit:
            return [rows]
        return [rows[part] for part in pack_batches(lengths[rows], self.limit)]

    @torch.inference_mode()
    def __call__(
        self,
        ids: Sequence[NDArray[np.int32]],
        fields: Sequence[NDArray[np.int8]],
        families: Sequence[Family] | None = None,
        *,
        upcast: bool = False,
        attention: AttentionKind | None = None,
    ) -> Logits:
        """Return logits of shape (n_rows, n_classes) for one batch.

        Parameters
        ----------
        ids, fields : sequence of ndarray
            Token ids and field codes of every row, as `lmsys_ensemble.encoding.tokens.Encoded` holds them.
        families : sequence of Family, optional
            Beginnings that the rows share, where they are known; otherwise they are found. Packed layout only.
        upcast : bool
            Whether to compute in float32 although the weights are in half precision; packed layout only.
        attention : callable, optional
            Makes the attention of this batch, where it shall be another one; packed layout only.
        """
        with current_device(self.device):
            if self.decoder is not None:
                if families is None:
                    families = find_families(ids, fields, sys.maxsize)
                logits = self._packed(self.decoder, ids, fields, families, upcast, attention or self.attention)
            else:
                logits = self._padded(ids, fields)
            result: Logits = logits.float().cpu().numpy()
        return result

    def _padded(self, ids: Sequence[NDArray[np.int32]], fields: Sequence[NDArray[np.int8]]) -> torch.Tensor:
        tokens, mask = pad_batch(ids, self.pad_token_id or 0, self.device)
        if not self.plain:
            logits: torch.Tensor = self.model(input_ids=tokens, attention_mask=mask).logits
            return logits
        hidden = self.model.base_model(input_ids=tokens, attention_mask=mask, use_cache=False).last_hidden_state
        pooled: torch.Tensor = self.model.score(pool(hidden, ids, fields, self.pooling, self.pad_token_id))
        return pooled

    def _packed(
        self,
        decoder: PackedDecoder,
        ids: Sequence[NDArray[np.int32]],
        fields: Sequence[NDArray[np.int8]],
        families: Sequence[Family],
        upcast: bool,
        attention: AttentionKind,
    ) -> torch.Tensor:
        packed = pack(ids, families, self.device)
        plan = plan_pooling(packed, ids, fields, self.pooling, self.pad_token_id)
        wanted = to_device(plan.wanted, self.device)
        hidden = decoder(packed, attention(packed, plan.wanted), wanted, upcast=upcast)
        logits: torch.Tensor = self.model.score(pool_packed(hidden, plan))
        return logits


def attention_kind(device: torch.device) -> type[SequenceAttention] | type[FlexAttention]:
    """Return the kind of attention that suits a device: one kernel for the batch where the GPU can, else by sequence.

    FlexAttention needs compute capability 8.0 and a compiler for its kernels (Triton).
    """
    if device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0) and find_spec("triton"):
        return FlexAttention
    return SequenceAttention
