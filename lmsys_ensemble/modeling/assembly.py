"""Putting a classifier together: base model, head, adapter, golden check."""

import logging
from pathlib import Path
from typing import Any

from lmsys_ensemble.compute.attention import SequenceAttention
from lmsys_ensemble.compute.hardware import dtype_name, is_slow
from lmsys_ensemble.modeling.adapters import Adapter, attach_adapter, read_adapter
from lmsys_ensemble.modeling.forward import ForwardPass, prepare_head
from lmsys_ensemble.modeling.golden import check_golden, check_golden_fits, golden_inputs, read_golden
from lmsys_ensemble.modeling.heads import restore_head
from lmsys_ensemble.modeling.loading import LoadSettings, load_classifier
from lmsys_ensemble.modeling.prequantized import stored_quantization
from lmsys_ensemble.modeling.quantization import has_room_unpacked, unpack_weights
from lmsys_ensemble.modeling.recipe import Recipe
from lmsys_ensemble.modeling.settings import ComputeSettings

logger = logging.getLogger(__name__)


def _other_modules(adapter: Adapter | None) -> list[str]:
    saved = adapter.config.modules_to_save if adapter else None
    return [saved] if isinstance(saved, str) else list(saved or [])


def assemble(
    base: Path,
    recipe: Recipe,
    settings: ComputeSettings,
    *,
    adapter: Path | None,
    golden_folder: Path | None = None,
    other_base: bool = False,
) -> ForwardPass:
    """Load a classifier as its recipe says and make sure that it is the one that was trained.

    Parameters
    ----------
    base : Path
        Folder of the base model.
    recipe : Recipe
        How it was trained.
    settings : ComputeSettings
        Where and in which number formats it computes; the device is one that is there.
    adapter : Path, optional
        PEFT folder; without one the base must hold a trained head.
    golden_folder : Path, optional
        Folder whose ``golden.json`` must come out, if it has one.
    other_base : bool
        Whether the base is known to be rounded otherwise than the one it was trained on: golden rows may differ by as
        much as that does, and the difference is logged as a warning.

    Raises
    ------
    ModelError
        If weights are missing or do not fit, or the golden rows come out otherwise.
    ConfigError
        If the recipe's pooling is not possible with this model, or needs an adapter.
    """
    read = read_adapter(adapter) if adapter else None
    load = LoadSettings.of(settings, recipe)
    if is_slow(load.dtype, load.device):
        logger.warning("this CPU has no instructions for %s: float32 is faster", dtype_name(load.dtype))
    own_head = recipe.head.pooling != "last_token" or recipe.head.hidden_size is not None
    model = load_classifier(base, load, head_follows=read is not None or own_head, also_follow=_other_modules(read))
    form = unpack_where_asked(model, base, settings, load)
    prepare_head(model, recipe.head, len(recipe.classes))
    if read is not None:
        model = attach_adapter(model, read, settings.merge)
    else:
        restore_head(model, base, recipe.head.pooling)
    pad_token_id = recipe.special_tokens.pad_token_id
    if pad_token_id is None:
        pad_token_id = model.config.get_text_config().pad_token_id
    forward = ForwardPass(model, recipe.head.pooling, pad_token_id, packed=settings.attn_implementation == "auto")
    golden = read_golden(golden_folder) if golden_folder and golden_folder.is_dir() else None
    if golden is not None:
        n_tokens = model.get_input_embeddings().weight.shape[0]
        check_golden_fits(golden, len(recipe.classes), n_tokens, golden_folder or base)
        number_format = form if form != "none" else dtype_name(load.dtype)
        logits = forward(*golden_inputs(golden), attention=SequenceAttention)  # no kernel is compiled for a few rows
        difference = check_golden(golden, logits, number_format, golden_folder or base, other_base=other_base)
        if other_base:
            logger.warning(
                "%s: the probabilities of the golden rows differ by up to %.4f from those on the base that it was "
                "trained on; %s is another one",
                golden_folder, difference, base,
            )  # fmt: skip
        logger.info("golden rows of %s reproduced within %.1e", golden_folder, difference)
    return forward


def unpack_where_asked(model: Any, base: Path, settings: ComputeSettings, load: LoadSettings) -> str:
    """Unpack 4-bit weights once, if that is asked for or there is room; return how the weights were loaded.

    In the words of ``quantization``: ``none``, ``nf4`` or ``int8``.
    """
    stored = stored_quantization(base)
    form = settings.quantization if stored is None else stored.counts_as
    asked = settings.unpack
    if form == "nf4" and (has_room_unpacked(model, load.dtype, load.device) if asked is None else asked):
        unpack_weights(model, load.dtype)
    return form
