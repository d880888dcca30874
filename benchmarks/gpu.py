"""Scoring speed of the large models' shapes on a GPU: ours against a notebook's loop and tuned, padded transformers.

    python benchmarks/gpu.py [--models gemma-2-9b llama-3-8b] [--formats bf16 nf4 int8] [--rows 128] [--repeats 3]

Weights are random: they take the time that real ones take. Lengths are drawn as those of Chatbot Arena rows are
spread (log-normal, mean near 1,000, cut at 2,048). Every contender gets the same token ids, interleaved:

- notebook: rows sorted by length, batches of 8, padded to the longest, transformers' own attention;
- padded: the same model in batches of a token budget, padded, with the fastest attention it accepts;
- ours: packed, see `lmsys_ensemble.modeling.forward`.

Printed are real tokens a second (padding does not count), the share of the matrix-multiplication rate measured in the
same run that this amounts to, peak memory, and the largest difference of a probability to the notebook's.
`--device cpu --shape tiny --dtype bfloat16` runs it as a check of itself: it ends with exit code 1 where a contender's
probabilities are not the notebook's.
"""

import argparse
import json
import platform
import sys
import tempfile
import time
from pathlib import Path

import bitsandbytes
import numpy as np
import pandas as pd
import torch
import transformers
from torch import nn
from transformers import AutoModelForSequenceClassification, Gemma2Config, LlamaConfig

from lmsys_ensemble.compute.capacity import read_shape
from lmsys_ensemble.compute.hardware import DTYPES, current_device, free_memory, resolve_dtype
from lmsys_ensemble.encoding.batches import plan_batches, restore_order
from lmsys_ensemble.encoding.tokens import Encoded
from lmsys_ensemble.modeling.forward import ForwardPass
from lmsys_ensemble.probabilities import softmax

SHAPES = {
    "gemma-2-9b": Gemma2Config(
        hidden_size=3584, intermediate_size=14336, num_hidden_layers=42, num_attention_heads=16, num_key_value_heads=8,
        head_dim=256, query_pre_attn_scalar=256, num_labels=3, pad_token_id=0,
    ),
    "llama-3-8b": LlamaConfig(
        vocab_size=128_256, hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32,
        num_key_value_heads=8, rope_theta=500_000.0, max_position_embeddings=8192, num_labels=3, pad_token_id=0,
    ),
}  # fmt: skip
NOTEBOOK_ROWS = 8
TUNED_TOKENS = 16_384
FARTHEST = {torch.float32: 1e-4, torch.bfloat16: 0.05, torch.float16: 0.02}
"""Largest difference of a probability that the rounding of a format makes; 8-bit products round inputs as well."""


def shrink(config):
    """Make a shape so small that a CPU runs it in seconds."""
    changes = {
        "initializer_range": 0.1,
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "vocab_size": 1000,
        "head_dim": 32,
    }
    for name, value in {**changes, "num_attention_heads": 4, "num_key_value_heads": 2}.items():
        setattr(config, name, value)
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:2]
    return config


def build(config, number_format, device, dtype):
    """Return a classifier with random weights on the device, linear layers quantised where asked."""
    torch.manual_seed(0)
    with torch.device(device):
        model = AutoModelForSequenceClassification.from_config(config, dtype=dtype).eval().requires_grad_(False)
    if number_format in ("nf4", "int8"):
        for layer in model.base_model.layers:
            quantise(layer, number_format, dtype, device)
    # Ours keeps the head in float32, and all contenders share the model: what transformers' own forward pass gives to
    # the head is turned to float32, too.
    model.score.register_forward_pre_hook(lambda head, given: (given[0].to(head.weight.dtype),))
    return model


def quantise(module, number_format, dtype, device):
    """Replace a layer's linear maps by bitsandbytes' own."""
    for name, child in module.named_children():
        if not isinstance(child, nn.Linear):
            quantise(child, number_format, dtype, device)
            continue
        weight = child.weight.data
        if number_format == "nf4":
            small = bitsandbytes.nn.Linear4bit(
                child.in_features, child.out_features, bias=False, compute_dtype=dtype, quant_type="nf4"
            )
            small.weight = bitsandbytes.nn.Params4bit(weight.cpu(), requires_grad=False, quant_type="nf4")
        else:
            small = bitsandbytes.nn.Linear8bitLt(
                child.in_features, child.out_features, bias=False, has_fp16_weights=False, threshold=6.0
            )
            small.weight = bitsandbytes.nn.Int8Params(weight.cpu(), requires_grad=False, has_fp16_weights=False)
        setattr(module, name, small.to(device))


def draw_rows(n_rows, vocab_size, longest):
    """Return rows of random ids whose lengths are spread as those of real rows are."""
    generator = np.random.default_rng(0)
    lengths = np.clip(generator.lognormal(np.log(820), 0.75, n_rows) * longest / 2048, 16, longest).astype(int)
    ids = [generator.integers(5, vocab_size, length).astype(np.int32) for length in lengths]
    fields = [np.zeros(length, dtype=np.int8) for length in lengths]
    return Encoded(ids, fields, pd.RangeIndex(n_rows), [np.zeros(4)] * n_rows)


def notebook(model, encoded):
    """Score as the public notebooks do."""
    order = np.argsort(-encoded.lengths, kind="stable")
    batches = [order[start : start + NOTEBOOK_ROWS] for start in range(0, len(order), NOTEBOOK_ROWS)]
    parts = []
    for rows in batches:
        longest = encoded.lengths[rows].max()
        tokens = torch.zeros(len(rows), longest, dtype=torch.long)
        mask = torch.zeros_like(tokens)
        for position, row in enumerate(rows):
            tokens[position, : len(encoded.ids[row])] = torch.from_numpy(encoded.ids[row].astype(np.int64))
            mask[position, : len(encoded.ids[row])] = 1
        with torch.inference_mode():
            logits = model(input_ids=tokens.to(model.device), attention_mask=mask.to(model.device)).logits
        parts.append(logits.float().cpu().numpy())
    return restore_order(parts, batches, len(order))


def matmul_rate(device, dtype):
    """Return operations a second of a large matrix product."""
    size = 8192 if device.startswith("cuda") else 256  # some CPUs take seconds for a larger one in bfloat16
    one, other = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    best = float("inf")
    for _ in range(10):
        wait(device)
        start = time.perf_counter()
        one @ other
        wait(device)
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def wait(device):
    """Let the GPU finish."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def contenders(model):
    """Return what is measured, by name; the notebook first."""
    padded, ours = ForwardPass(model, "last_token", 0, packed=False), ForwardPass(model, "last_token", 0)
    tuned = {"padded": lambda rows: padded.score(rows, TUNED_TOKENS)}
    if getattr(model.config, "attn_logit_softcapping", None):  # soft-capping leaves transformers eager or compiled flex
        model.set_attn_implementation("eager")
        tuned = {f"padded, {model.config._attn_implementation}": tuned["padded"]}
    return {
        "notebook": lambda rows: notebook(model, rows),
        **tuned,
        f"ours ({ours.layout})": ours.score,
    }


def measure(name, number_format, options):
    """Print a table for one model in one number format; return whether all contenders agree."""
    device = options.device
    config = SHAPES[name]
    if options.shape == "tiny":
        config = shrink(config)
    dtype = resolve_dtype(options.dtype, device)
    model = build(config, number_format, device, dtype)
    encoded = draw_rows(options.rows, config.vocab_size, 2048 if options.shape == "real" else 256)
    ceiling = matmul_rate(device, dtype)
    n_padded = sum(len(rows) * encoded.lengths[rows[0]] for rows in plan_batches(encoded.lengths, TUNED_TOKENS))
    flops = flops_of(config, encoded)
    print(
        f"\n{name}, {number_format} ({dtype}), {options.rows} rows, {encoded.lengths.sum():,} tokens (mean "
        f"{encoded.lengths.mean():.0f}), padding of the tuned loop {1 - encoded.lengths.sum() / n_padded:.1%}; "
        f"matmul ceiling {ceiling / 1e12:.1f} TFLOP/s\n"
        "\n| loop | tokens/s, median (spread) | to the notebook | of the ceiling | peak GiB | max dp |\n"
        "|---|---|---|---|---|---|"
    )
    runs = contenders(model)
    times, peaks, results = {key: [] for key in runs}, {}, {}
    for repeat in range(options.repeats + 1):  # the first one warms up
        for key, score in runs.items():
            seconds, results[key], peaks[key] = timed(score, encoded, device)
            if repeat:
                times[key].append(seconds)
    base = np.median(times["notebook"])
    reference = softmax(results["notebook"])
    for key, seconds in times.items():
        rates, median = encoded.lengths.sum() / np.array(seconds), np.median(seconds)
        print(
            f"| {key} | {np.median(rates):,.0f} ({rates.min():,.0f} to {rates.max():,.0f}) | {base / median:.2f} | "
            f"{flops / median / ceiling:.1%} | {peaks[key] / 2**30:.1f} | "
            f"{np.abs(softmax(results[key]) - reference).max():.1e} |"
        )
    if options.shape == "real":  # many layers of random weights amplify rounding; the table shows by how much
        return True
    farthest = max(np.abs(softmax(logits) - reference).max() for logits in results.values())
    return farthest <= max(FARTHEST[dtype], FARTHEST[torch.bfloat16] if number_format != "bf16" else 0)


def flops_of(config, encoded):
    """Return the operations of all rows without padding."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(config.to_dict(), default=str))
        return float(read_shape(Path(folder)).flops(encoded.lengths).sum())


def timed(score, encoded, device):
    """Return seconds, logits and peak memory of one call."""
    if device.startswith("cuda"):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    wait(device)
    start = time.perf_counter()
    logits = score(encoded)
    wait(device)
    seconds = time.perf_counter() - start
    return seconds, logits, torch.cuda.max_memory_allocated(device) if device.startswith("cuda") else 0


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--formats", nargs="+", choices=["bf16", "nf4", "int8"], default=["bf16", "nf4", "int8"])
    parser.add_argument("--rows", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--dtype", choices=["auto", *DTYPES], default="auto", help="of what is not quantised")
    parser.add_argument("--shape", choices=["real", "tiny"], default="real")
    options = parser.parse_args()
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        print("skipped: no GPU")
        return 0
    device = torch.cuda.get_device_name(options.device) if options.device.startswith("cuda") else platform.processor()
    print(
        f"{device or platform.machine()}, torch {torch.__version__}, transformers {transformers.__version__}, "
        f"bitsandbytes {bitsandbytes.__version__}"
    )
    agree = True
    with current_device(options.device):
        for name in options.models:
            for number_format in options.formats:
                agree &= bool(measure(name, number_format, options))
                free_memory(options.device)
    if not agree:
        print("the contenders' probabilities differ by more than rounding", file=sys.stderr)
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main())
