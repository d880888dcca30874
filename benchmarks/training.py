"""Steps per second of training: plain Trainer, padded, packed, and with the lower layers computed once.

    python benchmarks/training.py [--rows 96] [--threads 1] [--autocast float32]

SmolLM2-135M, LoRA on q, k, v and o from layer 9 of 15 on, a linear head on the last token, the same rows in every run.
The plain Trainer takes rows as they come, as many as a step has, padded to the longest; ours divide them by length.
Times are of the processor, not of the clock, and the runs take turns, so that other work on the machine weighs on all
alike. Losses of the first step are compared. Needs pandalm_human.parquet in $LMSYS_ENSEMBLE_DATA.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from transformers import DataCollatorWithPadding, Trainer, TrainerCallback, TrainingArguments

from lmsys_ensemble.data.corpus import read_labelled
from lmsys_ensemble.modeling.loading import load_tokenizer
from lmsys_ensemble.modeling.sources import resolve_base
from lmsys_ensemble.modeling.tokenization import make_encoder
from lmsys_ensemble.schema import THREE_WAY
from lmsys_ensemble.training.examples import Examples
from lmsys_ensemble.training.fit import fit_lora
from lmsys_ensemble.training.hidden import HiddenStore
from lmsys_ensemble.training.job import plan_recipe
from lmsys_ensemble.training.model import build_model
from lmsys_ensemble.training.settings import TrainSettings

FIRST_LAYER = 9


class Clock(TrainerCallback):
    """Notes the processor's time of every step, and the first loss."""

    def __init__(self):
        self.steps, self.begun, self.first_loss = [], 0.0, float("nan")

    def on_step_begin(self, args, state, control, **_):
        """Start the clock."""
        self.begun = time.process_time()

    def on_step_end(self, args, state, control, **_):
        """Stop it."""
        self.steps.append(time.process_time() - self.begun)

    def on_log(self, args, state, control, logs=None, **_):
        """Note the loss."""
        if "loss" in logs and state.global_step == 1:
            self.first_loss = logs["loss"]


def settings_of(options, layout):
    """Return the recipe of one run."""
    return TrainSettings.model_validate(
        {
            "name": "benchmark",
            "scorer": "llama",
            "base_model": "bundled:smollm2-135m-instruct",
            "max_tokens": options.max_tokens,
            "special_tokens": {"pad_token_id": 0},
            "head": {"pooling": "last_token", "layers": 15},
            "lora": {"r": 16, "alpha": 32, "dropout": 0.0, "first_layer": FIRST_LAYER},
            "optimizer": {"head_l2": None, "rows_per_step": options.rows_per_step, "warmup": 0.0},
            "batches": {"layout": layout, "tokens": 4096},
            "evaluation": {"per_epoch": 0},
            "autocast": options.autocast,
        }
    )


def plain(options, base, recipe, examples):
    """Train with the plain Trainer; returns its clock."""
    wrapped = build_model(settings_of(options, "padded"), recipe, base, "cpu")
    rows = [
        {"input_ids": ids.tolist(), "labels": int(label.argmax())}
        for ids, label in zip(examples.encoded.ids, examples.labels, strict=True)
    ]
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder, per_device_train_batch_size=options.rows_per_step, num_train_epochs=1, use_cpu=True,
            bf16=options.autocast == "bfloat16", optim="adamw_torch", report_to="none", save_strategy="no",
            logging_steps=1, disable_tqdm=True, dataloader_pin_memory=False,
        )  # fmt: skip
        collator = DataCollatorWithPadding(load_tokenizer(base))
        Trainer(wrapped, arguments, collator, rows, callbacks=[clock]).train()
    return clock


def ours(options, base, recipe, examples, layout, store=None):
    """Train with ours; returns its clock and the processor's time of what comes before the first step."""
    settings, clock = settings_of(options, layout), Clock()
    wrapped = build_model(settings, recipe, base, "cpu")
    fit_lora(wrapped, recipe, settings, examples, store=store, callbacks=[clock])
    return clock


def main():
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=96)
    parser.add_argument("--rows-per-step", type=int, default=16)
    parser.add_argument("--max-tokens", type=int, default=512)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--autocast", default="float32", choices=["float32", "bfloat16"])
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    data = Path(os.environ.get("LMSYS_ENSEMBLE_DATA", "../shared/data")) / "pandalm_human.parquet"
    rows = read_labelled([data], THREE_WAY)
    rows = rows.take(np.sort(np.random.default_rng(0).permutation(len(rows))[: options.rows]))
    settings = settings_of(options, "padded")
    base = resolve_base(settings.base_model)
    recipe = plan_recipe(settings, base)
    encoded = make_encoder(base, recipe).encode(rows.battles)
    examples = Examples(encoded, rows.labels, np.ones(len(rows)))
    print(
        f"{len(rows)} rows, {encoded.lengths.sum()} tokens (mean {encoded.lengths.mean():.0f}), "
        f"{options.rows_per_step} rows a step, {options.autocast}, {options.threads} threads, torch {torch.__version__}"
    )
    seconds: dict[str, list[float]] = {}
    losses: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        store = HiddenStore(Path(folder), {}, 576, print)
        for _ in range(options.repeats):
            for name, run in {
                "plain Trainer": lambda: plain(options, base, recipe, examples),
                "padded": lambda: ours(options, base, recipe, examples, "padded"),
                "packed": lambda: ours(options, base, recipe, examples, "packed"),
                "padded, kept": lambda: ours(options, base, recipe, examples, "padded", store),
                "packed, kept": lambda: ours(options, base, recipe, examples, "packed", store),
            }.items():
                begun = time.process_time()
                clock = run()
                seconds.setdefault(name, []).extend(clock.steps)
                losses[name] = clock.first_loss
                before = time.process_time() - begun - sum(clock.steps)
                print(f"{name}: {len(clock.steps)} steps of {np.mean(clock.steps):.2f} s, {before:.1f} s around them")
    slowest = np.mean(seconds["plain Trainer"])
    print("\n| run | steps per processor second | to the plain Trainer | loss of the first step |\n|---|---|---|---|")
    for name, each in seconds.items():
        print(f"| {name} | {1 / np.mean(each):.3f} | {slowest / np.mean(each):.2f} | {losses[name]:.4f} |")


if __name__ == "__main__":
    main()
