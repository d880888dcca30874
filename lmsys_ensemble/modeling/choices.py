"""Putting a choice scorer together: language model, adapter, label head, contextual calibration."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lmsys_ensemble.compute.hardware import dtype_name, is_slow, resolve_dtype
from lmsys_ensemble.data.battles import Battles, Turns
from lmsys_ensemble.encoding.choices import ChoiceEncoder
from lmsys_ensemble.modeling.adapters import attach_adapter, read_adapter
from lmsys_ensemble.modeling.assembly import unpack_where_asked
from lmsys_ensemble.modeling.forward import ForwardPass
from lmsys_ensemble.modeling.label_head import LabelModel, make_label_head
from lmsys_ensemble.modeling.language import check_is_of_language_model, load_language_model
from lmsys_ensemble.modeling.loading import LoadSettings
from lmsys_ensemble.modeling.settings import ComputeSettings
from lmsys_ensemble.probabilities import log_softmax
from lmsys_ensemble.progress import NoProgress, Progress

logger = logging.getLogger(__name__)

CONTENT_FREE = ("N/A", "[MASK]", "")
"""Texts without content, for prompt and responses alike (Zhao et al., Calibrate Before Use, 2021)."""


def load_settings(settings: ComputeSettings, *, soft_capping: bool = True) -> LoadSettings:
    """Return how a language model is loaded; its number of classes has no meaning."""
    return LoadSettings(
        n_classes=2,
        device=settings.device,
        dtype=resolve_dtype(settings.dtype, settings.device),
        quantization=settings.quantization,
        attn_implementation=settings.attn_implementation,
        soft_capping=soft_capping,
    )


def assemble_choices(
    base: Path,
    settings: ComputeSettings,
    label_ids: Sequence[int],
    *,
    adapter: Path | None = None,
    soft_capping: bool = True,
) -> ForwardPass:
    """Load a language model whose output is the logits of a few tokens at the end of every sequence.

    Parameters
    ----------
    base : Path
        Folder of the base model.
    settings : ComputeSettings
        Where and in which number formats it computes; the device is one that is there.
    label_ids : sequence of int
        The tokens; they are the columns of the logits.
    adapter : Path, optional
        PEFT folder of a language model's adapter.
    soft_capping : bool
        False switches Gemma-2's soft-capping off.

    Raises
    ------
    ModelError
        If weights are missing or do not fit.
    """
    load = load_settings(settings, soft_capping=soft_capping)
    if is_slow(load.dtype, load.device):
        logger.warning("this CPU has no instructions for %s: float32 is faster", dtype_name(load.dtype))
    read = read_adapter(adapter) if adapter else None
    if read is not None:
        check_is_of_language_model(read.folder, read.weights)
    model = load_language_model(base, load)
    unpack_where_asked(model, base, settings, load)
    if read is not None:
        model = attach_adapter(model, read, settings.merge, "CAUSAL_LM")
    head = make_label_head(model, label_ids, base)
    return ForwardPass(LabelModel(model, head).eval(), packed=settings.attn_implementation == "auto")


def content_free_battles() -> Battles:
    """Return battles that say nothing, one for each of `CONTENT_FREE`."""
    texts: list[Turns] = [(text,) for text in CONTENT_FREE]
    return Battles(pd.RangeIndex(len(texts)), texts, texts, texts)


def score_questions(
    forward: ForwardPass,
    encoder: ChoiceEncoder,
    battles: Battles,
    tokens_per_batch: int | None = None,
    progress: Progress | None = None,
) -> NDArray[np.float64]:
    """Return what `log_answers` does, for battles."""
    logits = forward.score(encoder.encode(battles), tokens_per_batch, progress or NoProgress())
    return log_answers(logits, encoder.columns)


def log_answers(logits: NDArray[np.float32], columns: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return the logarithms of the answers' probabilities, renormalised over the labels of their question.

    Parameters
    ----------
    logits : ndarray of shape (n_rows * n_questions, n_labels)
        Of all label tokens, the questions of a row one behind the other.
    columns : ndarray of shape (n_questions, n_classes)
        Where the tokens of a question's classes lie.

    Returns
    -------
    ndarray of shape (n_rows, n_questions, n_classes)
    """
    by_row = logits.reshape(-1, len(columns), logits.shape[-1])
    taken = np.take_along_axis(by_row, np.broadcast_to(columns, (len(by_row), *columns.shape)), axis=2)
    return log_softmax(taken)


def content_free_prior(forward: ForwardPass, encoder: ChoiceEncoder) -> NDArray[np.float64]:
    """Return the logarithm of what a model answers without content, of shape (n_questions, n_classes).

    The mean of the probabilities over `CONTENT_FREE`, as in Zhao et al. (2021).
    """
    answers = np.exp(score_questions(forward, encoder, content_free_battles()))
    result: NDArray[np.float64] = np.log(answers.mean(axis=0))
    return result
