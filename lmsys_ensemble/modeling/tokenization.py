"""The encoder that a recipe asks for."""

from pathlib import Path

from lmsys_ensemble.encoding.tokens import Encoder
from lmsys_ensemble.errors import ConfigError
from lmsys_ensemble.modeling.loading import load_tokenizer
from lmsys_ensemble.modeling.recipe import Recipe


def tokenizer_key(base: Path) -> str:
    """Return a text that is another one where a file of the tokenizer was changed since."""
    files = sorted({*base.glob("*.json"), *base.glob("*.model"), *base.glob("*.txt"), *base.glob("*.jinja")})
    return f"{base.resolve()} {[(path.name, path.stat().st_mtime_ns, path.stat().st_size) for path in files]}"


def encoder_key(base: Path, recipe: Recipe) -> str:
    """Return what an encoder is made of, as text; another text where a file of the tokenizer was changed since."""
    return f"{tokenizer_key(base)} {recipe.model_dump_json(exclude={'training', 'validation'})}"


def make_encoder(base: Path, recipe: Recipe) -> Encoder:
    """Load a base model's tokenizer and return an encoder that follows `recipe`.

    Raises
    ------
    ModelError
        If the folder holds no fast tokenizer.
    ConfigError
        If the recipe wants a control token that the tokenizer does not have.
    """
    tokenizer = load_tokenizer(base)
    special = recipe.special_tokens
    ids = {}
    # Encoders (ModernBERT) begin with [CLS] and end with [SEP], and often have no token of the other name.
    for kind, other, wanted in (("bos", "cls", special.bos), ("eos", "sep", special.eos)):
        known = [getattr(tokenizer, f"{name}_token_id") for name in (kind, other)]
        ids[kind] = next((token for token in known if token is not None), None) if wanted else None
        if wanted and ids[kind] is None:
            raise ConfigError(f"the tokenizer of {base} has no {kind} token; set {kind}=False")
    return Encoder(
        tokenizer.backend_tokenizer,
        recipe.get_template(),
        max_tokens=recipe.max_tokens,
        truncation=recipe.truncation,
        bos_id=ids["bos"],
        eos_id=ids["eos"],
        owns_tokenizer=True,
    )
