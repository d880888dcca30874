"""What is trained: a base model with LoRA layers and a head, and its forward pass with gradients."""

import re
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from peft import LoraConfig
from torch import Tensor, nn

from lmsys_ensemble.compute import hardware
from lmsys_ensemble.compute.attention import SequenceAttention
from lmsys_ensemble.compute.decoder import PackedDecoder, can_pack
from lmsys_ensemble.compute.depth import only_layers
from lmsys_ensemble.compute.packing import pack, to_device
from lmsys_ensemble.encoding.prefixes import Family
from lmsys_ensemble.errors import ConfigError
from lmsys_ensemble.modeling.adapters import head_name, inject_lora
from lmsys_ensemble.modeling.forward import has_plain_head, prepare_head
from lmsys_ensemble.modeling.loading import LoadSettings, load_classifier
from lmsys_ensemble.modeling.pooling import pad_batch, plan_pooling, pool, pool_packed
from lmsys_ensemble.modeling.recipe import Recipe
from lmsys_ensemble.modeling.skeleton import empty_classifier
from lmsys_ensemble.settings import suggest
from lmsys_ensemble.training.settings import LoraSettings, TrainSettings

_LAYER = re.compile(r"(?:^|\.)(layers?)\.(\d+)(?:\.|$)")


class Trainee(nn.Module):
    """A classifier that learns: PEFT's model, called with token ids, giving logits and what they were made of.

    Parameters
    ----------
    wrapped : PeftModel
        As `lmsys_ensemble.modeling.adapters.inject_lora` returns it.
    recipe : Recipe
        Pooling and padding.
    settings : TrainSettings
        First trained layer, number format, layout, checkpointing.
    """

    def __init__(self, wrapped: Any, recipe: Recipe, settings: TrainSettings):
        super().__init__()
        self.wrapped = wrapped
        self.recipe = recipe
        self.first_layer = settings.lora.first_layer
        self.checkpointing = settings.gradient_checkpointing
        choose_what_learns(wrapped, self.first_layer)
        model = wrapped.get_base_model()
        self.plain = has_plain_head(model)
        number_format = arithmetic(settings.autocast, str(model.device))
        self.autocast = number_format if number_format != torch.float32 else None
        packable = self.plain and can_pack(model.base_model)
        if settings.batches.layout == "packed" and not packable:
            raise ConfigError(
                f"batches.layout is 'packed', but {type(model).__name__} runs padded only; leave it at 'auto'"
            )
        # On a CPU packed is 1.4 times as fast as padded on rows of 45 to 844 tokens and as fast on rows of one length,
        # with the same gradients (`benchmarks/training.py`). On GPUs neither has been timed: as transformers has it.
        wants = settings.batches.layout == "packed" or (settings.batches.layout == "auto" and _is_cpu(model))
        self.packed = packable and wants
        if self.checkpointing and not self.packed:
            # transformers 5.23 renamed it; both need no gradients of what enters (use_reentrant=False).
            enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
            enable({"use_reentrant": False})

    @property
    def model(self) -> Any:
        """The classifier inside PEFT's model."""
        return self.wrapped.get_base_model()

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        device: torch.device = self.model.device
        return device

    def can_start_late(self) -> bool:
        """Tell whether hidden states that enter the first trained layer can take the place of tokens."""
        return self.plain and self.first_layer > 0 and hasattr(self.model.base_model, "layers")

    def forward(
        self,
        ids: Sequence[NDArray[np.int32]],
        fields: Sequence[NDArray[np.int8]],
        entering: Sequence[Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return logits of shape (n_rows, n_classes) and what the head was given, both float32.

        Parameters
        ----------
        ids, fields : sequence of ndarray
            Token ids and field codes of every row.
        entering : sequence of Tensor of shape (n_tokens, hidden_size), optional
            For every row, what enters the first trained layer.
        """
        kind, half = self.device.type, self.autocast is not None
        with torch.autocast(kind, dtype=self.autocast, enabled=half):
            if not self.plain:
                tokens, mask = pad_batch(ids, self.recipe.special_tokens.pad_token_id or 0, self.device)
                logits = self.model(input_ids=tokens, attention_mask=mask).logits.float()
                return logits, logits
            backbone = self.model.base_model
            with only_layers(backbone, self.first_layer) if entering is not None else nullcontext():
                run = self._packed if self.packed else self._padded
                pooled = run(backbone, ids, fields, entering)
        with torch.autocast(kind, enabled=False):
            return self.model.score(pooled), pooled

    def _padded(
        self,
        backbone: Any,
        ids: Sequence[NDArray[np.int32]],
        fields: Sequence[NDArray[np.int8]],
        entering: Sequence[Tensor] | None,
    ) -> Tensor:
        tokens, mask = pad_batch(ids, 0, self.device)
        if entering is None:  # what is added up from layer to layer is float32: in float16 it would overflow
            states = backbone.get_input_embeddings()(tokens).float()
        else:
            states = nn.utils.rnn.pad_sequence(list(entering), batch_first=True).to(self.device, torch.float32)
        hidden = backbone(inputs_embeds=states, attention_mask=mask, use_cache=False).last_hidden_state
        with torch.autocast(self.device.type, enabled=False):
            return pool(hidden, ids, fields, self.recipe.head.pooling, self.recipe.special_tokens.pad_token_id)

    def _packed(
        self,
        backbone: Any,
        ids: Sequence[NDArray[np.int32]],
        fields: Sequence[NDArray[np.int8]],
        entering: Sequence[Tensor] | None,
    ) -> Tensor:
        packed = pack(ids, [Family((row,), 0) for row in range(len(ids))], self.device)
        plan = plan_pooling(packed, ids, fields, self.recipe.head.pooling, self.recipe.special_tokens.pad_token_id)
        if entering is None:
            states = backbone.get_input_embeddings()(packed.tokens).float()
        else:
            with torch.autocast(self.device.type, enabled=False):  # it would look for a format of bfloat16 and float16
                states = torch.cat(list(entering)).to(self.device, torch.float32)
        attention = SequenceAttention(packed, plan.wanted)
        wanted = to_device(plan.wanted, self.device)
        decoder = PackedDecoder(backbone)
        checkpointing = self.checkpointing and torch.is_grad_enabled()
        hidden = decoder(packed, attention, wanted, entering=states, checkpointing=checkpointing)
        with torch.autocast(self.device.type, enabled=False):
            return pool_packed(hidden, plan)

    def learning(self) -> dict[str, nn.Parameter]:
        """Return the trained parameters by their names in PEFT's model."""
        return {name: tensor for name, tensor in self.wrapped.named_parameters() if tensor.requires_grad}


def _is_cpu(model: Any) -> bool:
    return bool(model.device.type == "cpu")


def arithmetic(autocast: str, device: str) -> torch.dtype:
    """Return the number format of the arithmetic in training.

    ``auto`` is bfloat16 where the device computes in it; float16 on GPUs below compute capability 8.0, which only
    emulate bfloat16; float32 on other CPUs.
    """
    if autocast != "auto":
        return hardware.DTYPES[autocast]
    if device.startswith("cuda"):
        return hardware.resolve_dtype("auto", device)
    return torch.bfloat16 if torch.cpu._is_amx_tile_supported() else torch.float32


def lora_config(settings: LoraSettings, model: Any) -> LoraConfig:
    """Return PEFT's configuration for a model, of which only the names of its modules matter.

    What a pretrained encoder brings between its layers and its head (a pooler, a dense layer) is trained and saved with
    the head: where the checkpoint does not hold it, it starts at random.
    """
    names = [name for name, _ in model.named_modules()]
    pattern = next((found[1] for name in names if (found := _LAYER.search(name))), None)
    depth = 1 + max((int(found[2]) for name in names if (found := _LAYER.search(name))), default=0)
    chosen = settings.layers_to_transform
    if chosen is None and (settings.first_layer or pattern == "layers"):
        chosen = list(range(settings.first_layer, depth))
    return LoraConfig(
        r=settings.r,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=settings.target_modules,
        layers_to_transform=chosen,
        layers_pattern=pattern if chosen is not None else None,
        use_rslora=settings.rslora,
        use_dora=settings.dora,
        modules_to_save=between_layers_and_head(model),
    )


def between_layers_and_head(model: Any) -> list[str]:
    """Return the names of a classifier's own modules beside its layers and its head, if they hold weights."""
    outer = {model.base_model_prefix, head_name(model)}
    return [name for name, part in model.named_children() if name not in outer and any(True for _ in part.parameters())]


def check_layers(settings: LoraSettings, depth: int | None) -> None:
    """Raise `ConfigError` if LoRA is asked for on layers that do not run."""
    if depth is None:
        return
    if settings.first_layer >= depth:
        raise ConfigError(f"lora.first_layer is {settings.first_layer}, but only {depth} layers run; it must be less")
    beyond = [layer for layer in settings.layers_to_transform or () if layer >= depth]
    if beyond:
        raise ConfigError(
            f"lora.layers_to_transform names {', '.join(map(str, beyond))}, but only {depth} layers run (from 0)"
        )


def check_targets(base: Path, recipe: Recipe, settings: LoraSettings) -> None:
    """Look for LoRA's modules in a model without weights.

    Raises
    ------
    ConfigError
        If a name is that of no module; lists those there are.
    """
    model = empty_classifier(base, recipe)
    linear = {name for name, part in model.base_model.named_modules() if isinstance(part, nn.Linear)}
    known = sorted({name.rpartition(".")[2] for name in linear})
    for target in settings.target_modules:
        if not any(name == target or name.endswith(f".{target}") for name in linear):
            raise ConfigError(
                f"lora.target_modules: {type(model).__name__} has no linear layer called {target!r}"
                f"{suggest(target, known)}; its layers are {', '.join(known)}"
            )


def build_model(settings: TrainSettings, recipe: Recipe, base: Path, device: str) -> Any:
    """Load a base model and put LoRA layers and a new head into it; returns PEFT's model."""
    dtype = torch.float32 if device == "cpu" else arithmetic(settings.autocast, device)
    load = LoadSettings(
        len(recipe.classes), device, dtype, quantization=settings.quantization, n_layers=recipe.head.layers
    )
    config = lora_config(settings.lora, empty_classifier(base, recipe))
    torch.manual_seed(settings.seed)  # before loading, which draws what the checkpoint does not hold
    model = load_classifier(base, load, head_follows=True, also_follow=config.modules_to_save or ())
    torch.manual_seed(settings.seed)
    prepare_head(model, recipe.head, len(recipe.classes))
    last = last_linear(getattr(model, head_name(model)))
    nn.init.normal_(last.weight, std=0.01)
    return inject_lora(model, config)


def last_linear(head: nn.Module) -> Any:
    """Return the layer of a head that gives the logits."""
    linear = [part for part in head.modules() if isinstance(part, nn.Linear)]
    if not linear:
        raise ConfigError(f"{type(head).__name__} is a head without a linear layer; it cannot be trained here")
    return linear[-1]


def trained_head(model: Any) -> Any:
    """Return PEFT's trainable copy of a classifier's head."""
    return getattr(model, head_name(model)).modules_to_save["default"]


def choose_what_learns(wrapped: Any, first_layer: int) -> None:
    """Freeze everything below the first trained layer, and make trained parameters float32."""
    for name, parameter in wrapped.named_parameters():
        found = _LAYER.search(name)
        if found and int(found[2]) < first_layer:
            parameter.requires_grad_(False)
        if parameter.requires_grad:  # PEFT makes LoRA weights in the base's format; bfloat16 would swallow small steps
            parameter.data = parameter.data.float()
