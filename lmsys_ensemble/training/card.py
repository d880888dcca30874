"""Model cards: what a model is, and the figures that were measured on rows it has not seen."""

from typing import Any

from lmsys_ensemble.modeling.recipe import Recipe
from lmsys_ensemble.training.settings import TrainSettings


def model_card(settings: TrainSettings, recipe: Recipe, *, with_curves: bool = False) -> str:
    """Return a model card in Markdown, with all held-out figures by source and, where drawn, the curves' picture."""
    lora, head = settings.lora, recipe.head
    depth = f"the first {head.layers} of " if head.layers else ""
    pooling = {
        "last_token": "the last token's hidden state",
        "response_spans": (
            "the last token's hidden state, the difference of the two responses' mean hidden states, and their lengths"
        ),
    }[head.pooling]
    lines = [
        f"# {settings.name}",
        "",
        f"LoRA adapter and classification head for `{settings.base_model}`, trained by `lmsys-ensemble train` to "
        "predict which of two responses people prefer.",
        "",
        *_dequantized(recipe),
        f"- runs {depth}{recipe.base_model.num_hidden_layers} layers; the head sees {pooling}",
        f"- LoRA rank {lora.r}, alpha {lora.alpha}, on {', '.join(lora.target_modules)} of the layers from "
        f"{lora.first_layer} on",
        f"- template `{recipe.template.name}` version {recipe.template.version}, at most {recipe.max_tokens} tokens, "
        f"truncation `{recipe.truncation}`",
        f"- classes, in order: {', '.join(recipe.classes)}",
        f"- learned from {', '.join(f'{n} rows of {name}' for name, n in recipe.training['rows'].items())}"
        + (", each in both orders" if settings.swap_augmentation else ""),
        *_stood_on(recipe.training["settings"]),
        "",
        "## Held-out figures",
        "",
        "Rows of prompts that the model was not trained on, scored in float32. Log loss in nats (lower is better) with "
        "its 95 % bootstrap interval over prompts. *Class prior* predicts the source's mean label; *length only* is a "
        "logistic regression on the responses' lengths; both were fitted to the training rows of the same source.",
        "",
        "| source | rows | log loss | 95 % interval | accuracy | class prior | length only | model − length only |",
        "|---|---|---|---|---|---|---|---|",
        *(_row(source, figures) for source, figures in recipe.validation.items()),
        "",
        *verdict(recipe.validation),
        "",
        *(_curves(settings, recipe) if with_curves else []),
    ]
    return "\n".join(lines)


def _dequantized(recipe: Recipe) -> list[str]:
    """Say so where the base's weights were dequantised: those of the same model from elsewhere are others."""
    found = recipe.base_model.gguf_sha256
    return [f"- trained on weights dequantised from the GGUF file with SHA-256 `{found}`"] if found else []


def _stood_on(settings: dict[str, Any]) -> list[str]:
    """Return lines that name the teachers and the first stage."""
    lines = []
    if distillation := settings.get("distillation"):
        terms = ", ".join(f"{weight:g} {name}" for name, weight in distillation["terms"].items() if weight)
        teachers = ", ".join(f"`{teacher['file']}`" for teacher in distillation["teachers"])
        temperature = distillation["temperature"]
        lines.append(f"- distilled from {teachers}: {terms}, at temperature {temperature:g}")
    if settings.get("init_adapter"):
        lines.append(f"- goes on from the adapter `{settings['init_adapter']}`")
    return lines


def _curves(settings: TrainSettings, recipe: Recipe) -> list[str]:
    """Return the section with the picture of the curves and how the weights were chosen."""
    kept, steps = recipe.training.get("kept_step"), recipe.training.get("steps")
    chosen = (
        f"The weights are those of step {kept} of {steps}, whose log loss on the rows held out was the lowest: the "
        "figures above are of rows that were chosen by, and a little too good."
        if settings.evaluation.keeps_best
        else f"The weights are those of the last of {steps} steps."
    )
    return ["## Training", "", "![training loss and log loss on the rows held out](curves.svg)", "", chosen, ""]


def _row(source: str, figures: dict[str, Any]) -> str:
    low, high = figures["log_loss_interval"]
    down, up = figures["difference_interval"]
    return (
        f"| {source} | {figures['rows']} | {figures['log_loss']:.4f} | {low:.4f} to {high:.4f} | "
        f"{figures['accuracy']:.3f} | {figures['class_prior']:.4f} | {figures['length_only']:.4f} "
        f"(accuracy {figures['length_only_accuracy']:.3f}) | {figures['difference_to_length_only']:+.4f} "
        f"({down:+.4f} to {up:+.4f}) |"
    )


def verdict(validation: dict[str, Any]) -> list[str]:
    """Say in words where the model beats its baselines and where it does not."""
    lines = []
    for source, figures in validation.items():
        beaten = [
            f"{'beats' if figures['log_loss'] < figures[key] else 'does not beat'} the {name}"
            for key, name in (("class_prior", "class prior"), ("length_only", "length-only baseline"))
        ]
        down, up = figures["difference_interval"]
        sure = "" if up < 0 or down > 0 else " (the interval of the difference to the latter includes zero)"
        lines.append(f"- {source}: {' and '.join(beaten)}{sure}.")
    return lines
