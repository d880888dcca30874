"""Commands that make one model out of trained adapters."""

from typing import Any

from lmsys_ensemble.commands.output import Result, say
from lmsys_ensemble.commands.training_options import MergeAdaptersOptions, MergeOptions


def merge_adapters(options: MergeAdaptersOptions) -> Result:
    """Merge adapters into one by the mean of their weights."""
    from lmsys_ensemble.merging.adapters import average_adapters

    done = average_adapters(
        options.adapters,
        options.output,
        weights=options.weights,
        rank=options.rank,
        base=options.base,
        rows=options.input or (),
        device=options.device,
        overwrite=options.overwrite,
        say=say,
    )
    lines = [
        f"{options.output}: adapter, head, recipe.json, golden.json, scorer.yaml, README.md",
        f"  rank {done['rank']}, {done['lost']:.2%} of the update lost",
        *(_figures(done["figures"], "probability average") if "figures" in done else []),
    ]
    return Result({"output": str(options.output), **done}, "\n".join(lines))


def _figures(figures: dict[str, Any], other: str) -> list[str]:
    low, high = figures["difference_interval"]
    least, most = figures["accuracy_difference_interval"]
    return [
        *(
            f"  {name}: log loss {figures['log_loss'][name]:.4f}, accuracy {figures['accuracy'][name]:.4f} on "
            f"{figures['rows']} rows"
            for name in figures["log_loss"]
        ),
        f"  merged minus {other}: log loss {figures['difference']:+.5f} ({low:+.5f} to {high:+.5f}), accuracy "
        f"{figures['accuracy_difference']:+.5f} ({least:+.5f} to {most:+.5f})",
    ]


def merge(options: MergeOptions) -> Result:
    """Merge an adapter into its base model and write a plain transformers folder."""
    from lmsys_ensemble.merging.export import export_merged

    done = export_merged(
        options.adapter,
        options.output,
        base=options.base,
        quantization=options.quantization,
        calibration=options.calibration,
        dtype=options.dtype,
        rows=options.input,
        device=options.device,
        say=say,
    )
    values = {
        "output": str(options.output),
        "files": done.files,
        "dtype": done.dtype,
        "quantization": options.quantization,
        "golden_difference": done.golden_difference,
        **({} if done.figures is None else {"figures": done.figures}),
    }
    lines = [
        f"{options.output}: {', '.join(done.files)}, config.json, tokenizer, recipe.json, golden.json, scorer.yaml, "
        "README.md",
        f"  golden rows differ by at most {done.golden_difference:.1e} from the adapter's",
        *([] if done.figures is None else _figures(done.figures, "unmerged")),
    ]
    return Result(values, "\n".join(lines))
