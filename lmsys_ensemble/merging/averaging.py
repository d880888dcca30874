"""The mean of several LoRA adapters, as one adapter.

The update of a module is ``scaling * B @ A``. Its weighted mean over adapters is exactly the update of the matrices put
side by side, ``[w_1 s_1 B_1 ... w_n s_n B_n]`` and ``[A_1; ...; A_n]``, whose rank is the sum of the ranks; a smaller
rank keeps the largest singular values (Eckart and Young, 1936). PEFT's ``add_weighted_adapter`` does not do this for
classifiers: it refuses adapters that share a trained head, takes scalings of rank-stabilised LoRA for plain ones, drops
layers that only later adapters have, and decomposes the dense update, of the size of the base's matrix.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from peft import LoraConfig
from peft.utils.other import get_pattern_key
from torch import Tensor

from lmsys_ensemble.errors import ModelError
from lmsys_ensemble.modeling.adapter_config import check_lora_patterns
from lmsys_ensemble.modeling.adapters import Adapter

_PREFIX = "base_model.model."
_KEY = re.compile(r"(?P<module>.+)\.lora_(?P<embedding>embedding_)?(?P<side>[AB])(\.weight)?")

_NOT_A_SUM = {
    "use_dora": "DoRA scales the sum of weights and update by its norm, so that the mean of updates is no update",
    "lora_bias": "its updates have biases",
    "target_parameters": "it changes parameters that are no layers of their own",
    "trainable_token_indices": "it trains single tokens of the embedding",
    "alora_invocation_tokens": "it is switched on by tokens",
    "use_qalora": "its matrices see pooled inputs",
    "use_bdlora": "its matrices are in blocks",
    "arrow_config": "it is a router",
}
"""Settings of PEFT whose updates cannot be averaged, and why."""

_KEEPS_THE_BASE = (True, False, "gaussian", "orthogonal", "eva")
"""Ways to start LoRA weights that leave the base's as they are."""


@dataclass(frozen=True)
class Update:
    """What a module's weights change by: ``up @ down``, the scaling included.

    Parameters
    ----------
    up : Tensor of shape (n_out, rank)
    down : Tensor of shape (rank, n_in)
    """

    up: Tensor
    down: Tensor

    @property
    def rank(self) -> int:
        """Rank of the update."""
        return len(self.down)


@dataclass(frozen=True)
class Averaged:
    """The mean of several adapters.

    Parameters
    ----------
    config : LoraConfig
        With a scaling of 1 everywhere.
    weights : dict of str to Tensor
        LoRA matrices and whole modules (the head), float32.
    lost : float
        Share of the mean update that a smaller rank lost (Frobenius norms over all modules); 0 where nothing was cut.
    """

    config: LoraConfig
    weights: dict[str, Tensor]
    lost: float

    @property
    def largest_rank(self) -> int:
        """Largest rank of a module."""
        return int(max([self.config.r, *self.config.rank_pattern.values()]))


def check_can_average(adapter: Adapter) -> None:
    """Raise `ModelError` if an adapter's updates are not products of two matrices, or its tensors are not finite."""
    config = adapter.config
    for name, why in _NOT_A_SUM.items():
        if getattr(config, name, None):
            raise ModelError(
                f"{adapter.folder} cannot be averaged with others: {name} is set, and {why}. Merge it into a model of "
                "its own (lmsys-ensemble merge), or blend probabilities"
            )
    if config.init_lora_weights not in _KEEPS_THE_BASE:
        raise ModelError(
            f"{adapter.folder} cannot be averaged with others: init_lora_weights={config.init_lora_weights!r} changes "
            "the base's weights, too. Convert it to plain LoRA first (save_pretrained of PEFT with "
            "path_initial_model_for_weight_conversion)"
        )
    if config.bias != "none":
        raise ModelError(f"{adapter.folder} cannot be averaged with others: it trains the base's biases (bias=)")
    not_finite = sorted(key for key, tensor in adapter.weights.items() if not torch.isfinite(tensor).all())
    if not_finite:
        raise ModelError(f"{adapter.folder} holds numbers that are not finite: {', '.join(not_finite[:10])}")


def average(adapters: Sequence[Adapter], weights: Sequence[float], rank: int | None = None) -> Averaged:
    """Return the weighted mean of adapters of one base model.

    Parameters
    ----------
    adapters : sequence of Adapter
        Ranks, scalings and modules may differ; a module that an adapter does not have counts as unchanged there.
    weights : sequence of float
        Sum to 1.
    rank : int, optional
        Largest rank of the result; by default the mean is exact.

    Raises
    ------
    ModelError
        If an adapter cannot be averaged, or the adapters' whole modules (heads) are of different shapes.
    """
    for adapter in adapters:
        check_can_average(adapter)
    check_whole_modules(adapters)
    split = [updates_of(adapter) for adapter in adapters]
    modules = list(dict.fromkeys(module for updates in split for module in updates))
    tensors: dict[str, Tensor] = {}
    ranks: dict[str, int] = {}
    cut, total = 0.0, 0.0
    for module in modules:
        parts = [(weight, updates[module]) for weight, updates in zip(weights, split, strict=True) if module in updates]
        update, lost, size = reduce_rank(mean_update(parts, module), rank)
        cut, total = cut + lost**2, total + size**2
        ranks[module.removeprefix(_PREFIX)] = update.rank
        down, up = _keys_of(module, adapters)
        tensors[down], tensors[up] = update.down.float().contiguous(), update.up.float().contiguous()
    for key in _whole_modules(adapters[0]):
        mean = sum(weight * adapter.weights[key].double() for weight, adapter in zip(weights, adapters, strict=True))
        tensors[key] = torch.as_tensor(mean).float()
    lost = math.sqrt(cut / total) if total else 0.0
    same = all(updates.keys() == split[0].keys() for updates in split)
    return Averaged(_config([adapter.config for adapter in adapters], ranks, same), tensors, lost)


def updates_of(adapter: Adapter) -> dict[str, Update]:
    """Return an adapter's updates by module, with their scalings in them, in double precision.

    Raises
    ------
    ModelError
        If a matrix has no counterpart, or another rank than the configuration says.
    """
    matrices: dict[str, dict[str, Tensor]] = {}
    for key, tensor in adapter.weights.items():
        if found := _KEY.fullmatch(key):
            matrices.setdefault(found["module"], {})[found["side"]] = tensor.double()
    names = [module.removeprefix(_PREFIX) for module in matrices]
    check_lora_patterns(adapter.config, names, adapter.folder)
    result = {}
    for (module, sides), name in zip(matrices.items(), names, strict=True):
        if sides.keys() != {"A", "B"} or any(side.ndim != 2 for side in sides.values()):
            raise ModelError(f"{adapter.folder}: {name} lacks one of its two matrices, or is no linear layer")
        down, up = sides["A"], sides["B"]
        rank = _by_pattern(adapter.config.rank_pattern, name, adapter.config.r)
        if not len(down) == up.shape[1] == rank:
            raise ModelError(
                f"{adapter.folder}: the matrices of {name} have ranks {len(down)} and {up.shape[1]}, "
                f"adapter_config.json says {rank}"
            )
        alpha = _by_pattern(adapter.config.alpha_pattern, name, adapter.config.lora_alpha)
        result[module] = Update(up * (alpha / (math.sqrt(rank) if adapter.config.use_rslora else rank)), down)
    return result


def mean_update(parts: Sequence[tuple[float, Update]], module: str) -> Update:
    """Return the exact weighted sum of a module's updates; its rank is the sum of theirs.

    Raises
    ------
    ModelError
        If they are of different shapes.
    """
    shapes = {(len(update.up), update.down.shape[1]) for _, update in parts}
    if len(shapes) > 1:
        raise ModelError(f"the adapters' updates of {module.removeprefix(_PREFIX)} have shapes {sorted(shapes)}")
    return Update(
        torch.cat([weight * update.up for weight, update in parts], dim=1),
        torch.cat([update.down for _, update in parts]),
    )


def reduce_rank(update: Update, rank: int | None) -> tuple[Update, float, float]:
    """Return the best update of at most `rank`, the Frobenius norm of what is lost, and that of the whole.

    The product is never formed: with ``up = Q R`` and ``down.T = P S``, its singular values are those of ``R @ S.T``,
    of the size of the rank.
    """
    left, core_left = torch.linalg.qr(update.up)
    right, core_right = torch.linalg.qr(update.down.T)
    vectors, values, others = torch.linalg.svd(core_left @ core_right.T, full_matrices=False)
    size = float(values.norm())
    if rank is None or update.rank <= rank:
        return update, 0.0, size
    kept = values[:rank].sqrt()  # shared by both matrices, so that neither is far larger than the other
    return (
        Update(left @ (vectors[:, :rank] * kept), (kept[:, None] * others[:rank]) @ right.T),
        float(values[rank:].norm()),
        size,
    )


def check_whole_modules(adapters: Sequence[Adapter]) -> None:
    """Raise `ModelError` if the modules that adapters bring whole (heads) differ in name or shape."""
    first = _whole_modules(adapters[0])
    for adapter in adapters[1:]:
        other = _whole_modules(adapter)
        differing = sorted(key for key in first.keys() | other.keys() if first.get(key) != other.get(key))
        if differing:
            said = [
                f"{key.removeprefix(_PREFIX)} is {first.get(key, 'absent')} and {other.get(key, 'absent')}"
                for key in differing[:5]
            ]
            raise ModelError(
                f"{adapters[0].folder} and {adapter.folder} have heads of different shapes: {'; '.join(said)}"
            )


def _whole_modules(adapter: Adapter) -> dict[str, tuple[int, ...]]:
    return {key: tuple(tensor.shape) for key, tensor in adapter.weights.items() if not _KEY.fullmatch(key)}


def _keys_of(module: str, adapters: Sequence[Adapter]) -> tuple[str, str]:
    """Return the names of a module's matrices, A and B, as PEFT calls them."""
    linear = f"{module}.lora_A.weight"
    if any(linear in adapter.weights for adapter in adapters):
        return linear, f"{module}.lora_B.weight"
    return f"{module}.lora_embedding_A", f"{module}.lora_embedding_B"


def _by_pattern(pattern: Mapping[str, float] | None, name: str, default: float) -> float:
    values = pattern or {}
    return values.get(get_pattern_key(list(values), name), default)


def _config(configs: Sequence[LoraConfig], ranks: Mapping[str, int], same_modules: bool) -> LoraConfig:
    """Return a configuration of ranks by module, with alpha equal to the rank."""
    first = configs[0]
    rank = max(ranks.values())
    other_ranks = {name: other for name, other in ranks.items() if other != rank}
    where = {"target_modules": sorted(ranks)}
    if same_modules:
        names = ("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern")
        where = {name: getattr(first, name) for name in names}
    return LoraConfig(
        r=rank,
        lora_alpha=rank,
        rank_pattern=other_ranks,
        alpha_pattern=dict(other_ranks),
        fan_in_fan_out=first.fan_in_fan_out,
        modules_to_save=sorted({name for config in configs for name in config.modules_to_save or []}),
        task_type="SEQ_CLS",
        inference_mode=True,
        **where,
    )
