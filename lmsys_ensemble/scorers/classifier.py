"""Scorers that run a sequence-classification model, with or without a LoRA adapter."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from lmsys_ensemble.compute.capacity import BYTES_PER_WEIGHT, read_shape
from lmsys_ensemble.data.battles import Battles
from lmsys_ensemble.encoding.tokens import Encoded, Encoder
from lmsys_ensemble.modeling.recipe import Recipe
from lmsys_ensemble.modeling.settings import ComputeSettings
from lmsys_ensemble.schema import THREE_WAY, Task
from lmsys_ensemble.scorers import identity
from lmsys_ensemble.scorers.base import Costs
from lmsys_ensemble.scorers.model import ModelScorer
from lmsys_ensemble.scorers.recipes import followed_recipe, trained_recipe

if TYPE_CHECKING:
    from lmsys_ensemble.modeling.forward import ForwardPass


class ClassifierScorer(ModelScorer):
    """Any ``AutoModelForSequenceClassification``: DeBERTa, ModernBERT, Qwen, and every other.

    What a model was trained with (template, length, truncation, control tokens, label order, pooling) is taken from
    the ``recipe.json`` beside its adapter; settings that contradict it are refused. Without a recipe, the settings
    given here hold, and the class's defaults for the rest.

    Parameters
    ----------
    model : str
        Base model: a local folder, a bundled model (``bundled:gemma-3-270m``), or a name on the Hub.
    adapter : str, optional
        PEFT folder with LoRA weights and head. Without one, `model` must hold a trained head.
    revision : str, optional
        Commit of a model on the Hub; needed there unless the recipe states it.
    name : str, optional
        What errors and tables call it; by default the adapter's or the model's folder.
    device : str
        ``cuda:0``, ``cuda:1``, ``cpu``, or ``auto``: the runtime decides.
    quantization : {"none", "nf4", "int8"}
        bitsandbytes' 4-bit NormalFloat or 8-bit integers; the head stays unquantised. Models that are stored quantised
        (bitsandbytes, compressed-tensors, GPTQ, AWQ) are loaded as they are: leave it out.
    dtype : {"auto", "float32", "bfloat16", "float16"}
        ``auto``: float32 on a CPU; on a GPU bfloat16 from compute capability 8.0 on, else float16.
    attn_implementation : str
        ``auto``: decoders run packed, without padding, with the attention that suits the device. Anything else runs
        transformers' own forward pass, padded, with that attention (``sdpa``, ``eager``, ``flex_attention``...).
    soft_capping : bool, optional
        False switches Gemma-2's soft-capping off, for a model that was trained without.
    merge : bool, optional
        Whether LoRA weights are merged into the base; by default where that is exact enough.
    unpack : bool, optional
        Whether 4-bit weights are unpacked once, after loading, instead of in every forward pass; by default where
        the GPU has room for it.
    template, max_tokens, truncation, bos, eos, pad_token_id : optional
        Prompt template, longest sequence, truncation policy, whether a sequence begins and ends with a control token,
        and the id that pads: what ``recipe.json`` would state.
    tokens_per_batch : int, optional
        Token budget of a batch, padding included; by default from the device's free memory.
    other_base : {"refuse", "measure"}
        What becomes of a base that has the right shape, but not the dequantised weights that the adapter was trained
        on (the original of a bundled model from the Hub, say): "measure" takes it if its golden rows come out nearly
        the same, and logs by how much they differ.
    """

    neutral_settings: ClassVar[tuple[str, ...]] = (*ModelScorer.neutral_settings, "other_base")

    default_template: ClassVar[str] = "turns"
    default_max_tokens: ClassVar[int] = 2048
    model_types: ClassVar[tuple[str, ...]] = ()
    """Values of ``model_type`` in a model's configuration that the class takes; none: all."""

    def __init__(
        self,
        model: str,
        *,
        adapter: str | None = None,
        revision: str | None = None,
        name: str | None = None,
        device: str = "auto",
        quantization: str = "none",
        dtype: str = "auto",
        attn_implementation: str = "auto",
        soft_capping: bool | None = None,
        merge: bool | None = None,
        unpack: bool | None = None,
        template: str | None = None,
        max_tokens: int | None = None,
        truncation: str | None = None,
        bos: bool | None = None,
        eos: bool | None = None,
        pad_token_id: int | None = None,
        tokens_per_batch: int | None = None,
        other_base: str = "refuse",
    ):
        super().__init__()
        self.model = model
        self.adapter = adapter
        self.revision = revision
        self.name = name or Path(adapter or model).name.removeprefix("bundled:")
        self.device = device
        self.quantization = quantization
        self.dtype = dtype
        self.attn_implementation = attn_implementation
        self.merge = merge
        self.unpack = unpack
        self.tokens_per_batch = tokens_per_batch
        self.other_base = other_base
        self.soft_capping = soft_capping
        self.template = template
        self.max_tokens = max_tokens
        self.truncation = truncation
        self.bos = bos
        self.eos = eos
        self.pad_token_id = pad_token_id
        self._encoder: Encoder | None = None
        self._encoder_key = ""
        self._has_warned = False

    @property
    def task(self) -> Task:  # type: ignore[override]
        """Classes, in the order of the logits' columns."""
        recipe = trained_recipe(self, verify=False)
        return recipe.task if recipe else THREE_WAY

    @property
    def recipe_folder(self) -> Path:
        """Where a recipe lies, if there is one: beside the adapter's weights, or the model's."""
        return Path(self.adapter or self.model)

    def recipe(self) -> Recipe:
        """Return the recipe that scoring follows: the trained one, or one made of settings and defaults.

        Raises
        ------
        ConfigError
            If a setting contradicts the trained recipe.
        """
        absent = self.adapter is not None and not self.recipe_folder.is_dir()  # which `check` and `load` tell
        recipe = followed_recipe(self, warn=not (self._has_warned or absent))
        self._has_warned = self._has_warned or not absent
        return recipe

    def load(self, device: str | None = None) -> None:
        """Load base model, adapter, head and tokenizer, and check the golden rows.

        Raises
        ------
        ConfigError
            If settings contradict the recipe, or the base model is not the one it names.
        ModelError
            If weights are missing or do not fit.
        DeviceError
            If there is no such device.
        """
        super().load(device)

    def _assemble(self, compute: ComputeSettings) -> "ForwardPass":
        from lmsys_ensemble.modeling.assembly import assemble

        recipe = self.recipe()
        self.progress.phase("fetching")
        folder = self._base_folder(recipe)
        self.progress.phase("loading")
        self.encoder(folder, recipe)
        return assemble(
            folder,
            recipe,
            compute,
            adapter=Path(self.adapter) if self.adapter else None,
            golden_folder=self.recipe_folder,
            other_base=identity.is_other_base(folder, recipe),
        )

    def check(self, battles: Battles | None = None) -> None:
        """Check settings, recipe, base, adapter and tokenizer without loading weights or fetching anything.

        Raises
        ------
        CheckError
            Lists all that is wrong.
        """
        if self._forward is None:
            identity.check_classifier(self)

    def _base_folder(self, recipe: Recipe) -> Path:
        from lmsys_ensemble.bases.sources import resolve_base

        folder = resolve_base(self.model, self.revision or recipe.base_model.revision)
        identity.check_base_identity(self, folder, recipe)
        return folder

    def _encode(self, battles: Battles) -> Encoded:
        encoder = self._encoder
        if encoder is None:
            recipe = self.recipe()
            encoder = self.encoder(self._base_folder(recipe), recipe)
        return encoder.encode(battles)

    def encoder(self, base: Path, recipe: Recipe) -> Encoder:
        """Return the encoder of a base model and a recipe, made once; large tokenizers take seconds."""
        from lmsys_ensemble.modeling.tokenization import encoder_key, make_encoder

        with self._encoding:
            key = encoder_key(base, recipe)
            if self._encoder is None or self._encoder_key != key:
                self._encoder, self._encoder_key = make_encoder(base, recipe), key
            return self._encoder

    def encoding_digest(self, base: Path, recipe: Recipe) -> str:
        """Return a hash of the token ids that the scorer makes of a few battles."""
        from lmsys_ensemble.modeling.digests import encoding_digest

        with self._encoding:
            return encoding_digest(self.encoder(base, recipe))

    def costs(self, battles: Battles) -> Costs:
        """Return tokens, operations and memory, from the tokenizer and the model's configuration."""
        encoded = self.encode(battles)
        recipe = self.recipe()
        shape = read_shape(self._base_folder(recipe), recipe.head.layers)
        weights = identity.weights_in_memory(self)
        number_format = weights if weights in BYTES_PER_WEIGHT else self.compute.dtype
        return Costs(
            encoded.lengths,
            None if shape is None else shape.flops(encoded.lengths),
            int(encoded.retention["truncated"].sum()),
            None if shape is None else shape.weight_bytes(number_format if number_format != "auto" else "float16"),
        )

    def fingerprint(self) -> dict[str, Any]:
        """Return base model, adapter, recipe, the way to token ids, number formats: all that can change a result.

        Left out is what only rounds otherwise: the device, the batch size, versions of torch and transformers (a run's
        summary names those).
        """
        recipe = self.recipe()
        return identity.fingerprint_classifier(self, self._base_folder(recipe), recipe)
