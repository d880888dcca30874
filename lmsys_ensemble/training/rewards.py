"""A reward model out of a base that stays as it is: one linear head on the state of a conversation's last token."""

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import nn

from lmsys_ensemble.bases.sources import resolve_base
from lmsys_ensemble.blending.links import Link
from lmsys_ensemble.compute.hardware import check_device, current_device, list_devices
from lmsys_ensemble.data.battles import Battles
from lmsys_ensemble.errors import ConfigError, InputError, ScoringError
from lmsys_ensemble.evaluation.regression import minimise
from lmsys_ensemble.files import check_new_folder, whole_folder
from lmsys_ensemble.modeling.building import quiet_transformers
from lmsys_ensemble.modeling.forward import ForwardPass, has_plain_head
from lmsys_ensemble.modeling.loading import LoadSettings, load_classifier
from lmsys_ensemble.modeling.rewards import Writing, make_reward_encoder, reward_recipe
from lmsys_ensemble.modeling.settings import ComputeSettings
from lmsys_ensemble.probabilities import Probabilities, check_labels, softmax
from lmsys_ensemble.schema import THREE_WAY

logger = logging.getLogger(__name__)

Array = NDArray[np.float64]

_TOKENIZER_FILES = ("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt", "*.model",
                    "*.jinja")  # fmt: skip


def train_reward_head(
    base: str,
    battles: Battles,
    labels: ArrayLike,
    folder: str | Path,
    *,
    revision: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    chat: bool | None = None,
    chat_options: Mapping[str, Any] | None = None,
    bos: bool | None = None,
    eos: bool | None = None,
    max_tokens: int = 2048,
    l2: float = 0.01,
) -> Link:
    """Fit a reward head on a frozen decoder and write a folder that `lmsys_ensemble.RewardScorer` loads.

    Every conversation is computed once; then the head is fitted to the differences of their last states, see
    `fit_reward_head`. The folder is what transformers' ``save_pretrained`` writes for a sequence classifier with one
    output, base included.

    Parameters
    ----------
    base : str
        Decoder (Llama, Gemma, Qwen): a local folder, a bundled model, or a name on the Hub.
    battles : Battles
        At least one.
    labels : array-like of shape (n_rows,) or (n_rows, 3)
        Class positions, or one-hot or soft labels.
    folder : str or Path
        A new folder.
    revision, device, dtype, chat, chat_options, bos, eos, max_tokens : optional
        As for `lmsys_ensemble.RewardScorer`, which must be given the same.
    l2 : float
        Strength of the penalty, see `fit_reward_head`.

    Returns
    -------
    Link
        Davidson's, of scale 1: its `tie` is what the scorer is to be given.

    Raises
    ------
    ConfigError
        If the base has no linear head to put this one in the place of (encoders), or settings do not fit it.
    InputError
        If the folder is not new, or labels do not fit.
    ScoringError
        If a battle cannot be computed.
    """
    targets = check_labels(labels, n_classes=THREE_WAY.n_classes, n_rows=len(battles))
    check_new_folder(folder, "folder")
    settings = ComputeSettings(device=check_device(list_devices()[0] if device == "auto" else device), dtype=dtype)
    source = resolve_base(base, revision)
    encoder = make_reward_encoder(source, Writing(chat, chat_options or {}, bos, eos, max_tokens))
    encoded = encoder.encode(battles)
    with current_device(settings.device):
        model = load_classifier(source, LoadSettings.of(settings, reward_recipe(base)), head_follows=True)
        if not has_plain_head(model):
            raise ConfigError(
                f"a reward head is put on a decoder with one linear head (Llama, Gemma, Qwen); {base} is a "
                f"{type(model).__name__}"
            )
        model.score = nn.Identity()
        pad_token_id = model.config.get_text_config().pad_token_id
        forward = ForwardPass(model, "last_token", pad_token_id)
        forward.n_classes = model.config.get_text_config().hidden_size
        states = forward.score(encoded).astype(np.float64)
        faulty = np.flatnonzero(~np.isfinite(states).all(axis=1))
        if len(faulty):
            raise ScoringError(
                f"{len(faulty)} of {len(states)} conversations could not be computed, first that of battle "
                f"{battles.ids[faulty[0] // 2]}; leave it out, or lower max_tokens"
            )
        weight, tie = fit_reward_head(states[::2] - states[1::2], targets, l2)
        _save(model, weight, source, Path(folder))
    logger.info("fitted a reward head on %d battles: %s", len(battles), folder)
    return Link("davidson", 1.0, tie)


def fit_reward_head(differences: Array, labels: Probabilities, l2: float) -> tuple[Array, float]:
    """Fit a linear reward and Davidson's tie by penalised maximum likelihood; a convex problem.

    It minimises the mean cross-entropy of ``softmax(d / 2, -d / 2, tie)`` with ``d = differences @ weight``, plus `l2`
    times the squared norm of the weights on inputs of standard size. Inputs are not centred, for swapping the
    responses must change their sign and nothing else; so a reward needs no bias.

    Parameters
    ----------
    differences : ndarray of shape (n_rows, n_features)
        State behind response A less that behind response B.
    labels : ndarray of shape (n_rows, 3)
        One-hot or soft.
    l2 : float
        Strength of the penalty, above 0.

    Returns
    -------
    weight : ndarray of shape (n_features,)
        For inputs as they are.
    tie : float
        Davidson's, see `lmsys_ensemble.blending.links`.

    Raises
    ------
    InputError
        If there are no rows, or `l2` is not above 0.
    """
    if not len(differences) or not 0 < l2 < np.inf:
        raise InputError(f"a reward head needs at least one row and l2 above 0, got {len(differences)} and {l2!r}")
    size = np.sqrt(np.square(differences).mean(axis=0)) + 1e-6
    inputs = differences / size
    n_rows, n_features = inputs.shape
    wins = (labels[:, 0] - labels[:, 1]) / 2

    def objective(parameters: Array, with_derivatives: bool) -> tuple[float, Array, Array]:
        half, weight = inputs @ parameters[:-1] / 2, parameters[:-1]
        logits = np.column_stack([half, -half, np.full(n_rows, parameters[-1])])
        top = logits.max(axis=1)
        sums = top + np.log(np.exp(logits - top[:, None]).sum(axis=1))
        value = float((sums - (labels * logits).sum(axis=1)).mean()) + l2 * float(weight @ weight)
        if not with_derivatives:
            return value, parameters, parameters
        predicted = softmax(logits)
        lead, tied = (predicted[:, 0] - predicted[:, 1]) / 2, predicted[:, 2]
        gradient = np.append(inputs.T @ (lead - wins) / n_rows + 2 * l2 * weight, (tied - labels[:, 2]).mean())
        hessian = np.empty((n_features + 1, n_features + 1))
        curved = inputs * ((1 - tied) / 4 - lead**2)[:, None]
        hessian[:-1, :-1] = inputs.T @ curved / n_rows + 2 * l2 * np.eye(n_features)
        hessian[-1, :-1] = hessian[:-1, -1] = -inputs.T @ (tied * lead) / n_rows
        hessian[-1, -1] = (tied * (1 - tied)).mean()
        return value, gradient, hessian

    found = minimise(objective, np.zeros(n_features + 1))
    return np.asarray(found[:-1] / size), float(found[-1])


@torch.no_grad()
def _save(model: Any, weight: Array, source: Path, folder: Path) -> None:
    head = nn.Linear(len(weight), 1, bias=False, device=model.device, dtype=torch.float32)
    head.weight.copy_(torch.from_numpy(weight)[None])
    model.score = head
    with whole_folder(folder) as unfinished, quiet_transformers():
        model.save_pretrained(unfinished)
        for path in {path for pattern in _TOKENIZER_FILES for path in source.glob(pattern)}:
            shutil.copyfile(path, unfinished / path.name)
