"""Model cards of what was made out of trained adapters."""

from collections.abc import Sequence
from typing import Any

from lmsys_ensemble.merging.parts import AVERAGE, MERGED, UNMERGED
from lmsys_ensemble.modeling.recipe import Recipe


def merged_card(name: str, recipe: Recipe) -> str:
    """Return the model card of an adapter that is the mean of several, in Markdown."""
    training = recipe.training
    exact = "exactly, by putting the matrices side by side"
    cut = f"by singular value decomposition, which lost {training['lost']:.2%} of the update (Frobenius norm)"
    lines = [
        f"# {name}",
        "",
        f"LoRA adapter and classification head for `{recipe.base_model.name}`: the mean of "
        f"{len(training['merged_from'])} adapters, made by `lmsys-ensemble merge-adapters`.",
        "",
        f"- LoRA updates were averaged {cut if training['lost'] else exact}; the largest rank is {training['rank']}",
        "- heads were averaged weight by weight",
        f"- template `{recipe.template.name}` version {recipe.template.version}, at most {recipe.max_tokens} tokens, "
        f"truncation `{recipe.truncation}`",
        f"- classes, in order: {', '.join(recipe.classes)}",
        "",
        "| adapter | weight | SHA-256 of its weights |",
        "|---|---|---|",
        *(
            f"| {part['name']} | {part['weight']:.4f} | `{part['adapter_sha256']}` |"
            for part in training["merged_from"]
        ),
        "",
        "## Figures",
        "",
        *(_figures(recipe.validation) if recipe.validation else ["Not measured: no labelled rows were given."]),
        "",
    ]
    return "\n".join(lines)


def _figures(figures: dict[str, Any], other: str = AVERAGE) -> list[str]:
    """Return the table of log losses and accuracies, and the difference of the merged model to another."""
    low, high = figures["difference_interval"]
    least, most = figures["accuracy_difference_interval"]
    return [
        f"Log loss in nats and accuracy on {figures['rows']} labelled rows, with 95 % bootstrap intervals over "
        "prompts. Rows that an adapter was trained on flatter it, and what was merged from it.",
        "",
        "| | log loss | 95 % interval | accuracy | 95 % interval |",
        "|---|---|---|---|---|",
        *(
            f"| {name} | {figures['log_loss'][name]:.4f} | {_ends(figures['log_loss_interval'][name])} | "
            f"{figures['accuracy'][name]:.4f} | {_ends(figures['accuracy_interval'][name])} |"
            for name in figures["log_loss"]
        ),
        "",
        f"{MERGED.capitalize()} minus {other}, on the same rows: log loss {figures['difference']:+.5f} ({low:+.5f} to "
        f"{high:+.5f}), accuracy {figures['accuracy_difference']:+.5f} ({least:+.5f} to {most:+.5f}); the largest "
        f"difference of a probability is {figures['largest_difference']:.5f}.",
    ]


def _ends(interval: Sequence[float]) -> str:
    return f"{interval[0]:.4f} to {interval[1]:.4f}"


def exported_card(name: str, recipe: Recipe) -> str:
    """Return the model card of a merged model, in Markdown."""
    export = recipe.training["export"]
    bits = {
        "none": f"weights are {export['dtype']}, added up in float32",
        "int8": "linear layers are rounded to 8 bits, with a scale a row (compressed-tensors, `pack-quantized`)",
        "w4a16": "linear layers are rounded to 4 bits, with a scale for a group of weights (compressed-tensors, "
        "`pack-quantized`)",
    }[export["quantization"]]
    lines = [
        f"# {name}",
        "",
        f"The adapter `{export['adapter']}` (SHA-256 `{export['adapter_sha256']}`) merged into "
        f"`{recipe.base_model.name}` by `lmsys-ensemble merge`.",
        "",
        f"- {bits}; the head is float32",
        *_calibrated(export),
        f"- on the golden rows, probabilities differ by at most {export['golden_difference']:.5f} from the adapter's",
        f"- template `{recipe.template.name}` version {recipe.template.version}, at most {recipe.max_tokens} tokens, "
        f"truncation `{recipe.truncation}`",
        f"- classes, in order: {', '.join(recipe.classes)}",
        "",
        "Figures in the adapter's recipe were measured before merging; `recipe.json` keeps them as "
        "`validation_of_adapter`.",
        "",
        *(["## Figures", "", *_figures(recipe.validation, UNMERGED), ""] if recipe.validation else []),
        "## Loading",
        "",
        "With this library: `ClassifierScorer(folder)`, which follows `recipe.json`.",
        "",
        *_plain_loading(recipe),
        "",
    ]
    return "\n".join(lines)


def _calibrated(export: dict[str, Any]) -> list[str]:
    rows = export.get("calibration")
    if rows is None:
        return []
    return [f"- rounded by GPTQ on {rows['rows']} calibration rows of {rows['tokens']:,} tokens"]


def _plain_loading(recipe: Recipe) -> list[str]:
    if recipe.head.pooling == "last_token":
        return [
            "With transformers alone: `AutoModelForSequenceClassification.from_pretrained(folder)`, on sequences that "
            "are put together as the template says, control tokens included; the logits are the same.",
        ]
    return [
        f"Not with transformers alone: the head is a linear map of {recipe.head.pooling}, which is more than the last "
        "token's hidden state (the difference of the two responses' mean states, and their lengths), and "
        "`AutoModelForSequenceClassification` refuses its shape. The layers below it load as "
        "`AutoModel.from_pretrained(folder)`.",
    ]
