"""Steps per second of training: plain Trainer, padded, packed, and with the lower layers computed once.

    python benchmarks/training.py [--rows 48] [--rows-per-step 16] [--max-tokens 1024] [--repeats 2] [--threads 1]

SmolLM2-135M, LoRA on q, k, v and o from layer 9 of 15 on, a linear head on the last token, the same rows in every run:
a third have short answers (PandaLM), a third long ones (AlpacaEval), a third many turns (HH). The plain Trainer takes
rows as they come, or by length (its own ``group_by_length``, which sorts nothing in epochs of fewer than 8 steps), as
many as a step has, padded to the longest; ours come by length, in batches of at most 4,096 tokens.

Times are of the processor, not of the clock, and the runs take turns, so that other work on the machine weighs on all
alike; the fastest repeat, which it weighed on least, counts. Before that all compute one step on the same rows, whose
losses and gradients are compared. Needs gpt4_preferences.parquet, pandalm_human.parquet and hh_multi_turn.parquet in
$LMSYS_ENSEMBLE_DATA (default ../shared/data).
"""

import argparse
import functools
import operator
import os
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from transformers import DataCollatorWithPadding, PrinterCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.utils import logging as transformers_logging

from lmsys_ensemble.bases.sources import resolve_base
from lmsys_ensemble.data.corpus import read_labelled
from lmsys_ensemble.hosting.slots import usable_cores
from lmsys_ensemble.modeling.loading import load_tokenizer
from lmsys_ensemble.modeling.tokenization import make_encoder
from lmsys_ensemble.runtime.summary import library_versions
from lmsys_ensemble.schema import THREE_WAY
from lmsys_ensemble.training.batches import divide
from lmsys_ensemble.training.examples import CrossEntropy, Examples
from lmsys_ensemble.training.fit import fit_lora
from lmsys_ensemble.training.hidden import HiddenStore
from lmsys_ensemble.training.job import plan_recipe
from lmsys_ensemble.training.model import Trainee, build_model
from lmsys_ensemble.training.settings import TrainSettings
from lmsys_ensemble.training.trainer import Data

FILES = ("gpt4_preferences.parquet", "pandalm_human.parquet", "hh_multi_turn.parquet")
FIRST_LAYER, PAD = 9, 0
RIVAL, SORTED_RIVAL = "plain Trainer", "plain Trainer, by length"
LAYOUTS = ("padded", "packed")
ROWS_COMPARED = 8


class Clock(TrainerCallback):
    """Notes the processor's time of every step."""

    def __init__(self):
        self.steps, self.begun = [], 0.0

    def on_step_begin(self, args, state, control, **_):
        """Start the clock."""
        self.begun = time.process_time()

    def on_step_end(self, args, state, control, **_):
        """Stop it."""
        self.steps.append(time.process_time() - self.begun)


class Workload:
    """What all runs share: settings, base model, recipe and examples.

    Parameters
    ----------
    options : argparse.Namespace
        Of the command line.
    data : Path
        Folder of preference data.
    """

    def __init__(self, options, data):
        self.options = options
        encoded, labels = [], []
        settings = self.settings("padded")
        self.base = resolve_base(settings.base_model)
        self.recipe = plan_recipe(settings, self.base)
        encoder, generator = make_encoder(self.base, self.recipe), np.random.default_rng(0)
        for name in FILES:
            rows = read_labelled([data / name], THREE_WAY)
            rows = rows.take(np.sort(generator.permutation(len(rows))[: options.rows // len(FILES)]))
            encoded.append(encoder.encode(rows.battles))
            labels.append(np.eye(3)[rows.labels.argmax(axis=1)])  # the plain Trainer takes hard labels
        self.examples = Examples(
            functools.reduce(operator.add, encoded), np.concatenate(labels), np.ones(sum(map(len, labels)))
        )

    def settings(self, layout):
        """Return the recipe of one run."""
        options = self.options
        return TrainSettings.model_validate(
            {
                "name": "benchmark",
                "scorer": "llama",
                "base_model": "bundled:smollm2-135m-instruct",
                "max_tokens": options.max_tokens,
                "special_tokens": {"pad_token_id": PAD},
                "head": {"pooling": "last_token", "layers": 15},
                "lora": {"r": 16, "alpha": 32, "dropout": 0.0, "first_layer": FIRST_LAYER},
                "optimizer": {"head_l2": None, "rows_per_step": options.rows_per_step, "warmup": 0.0},
                "batches": {"layout": layout, "tokens": 4096},
                "evaluation": {"per_epoch": 0},
                "autocast": options.autocast,
            }
        )

    def model(self, layout="padded"):
        """Return a fresh PEFT model."""
        wrapped = build_model(self.settings(layout), self.recipe, self.base, "cpu")
        wrapped.get_base_model().config.pad_token_id = PAD  # the plain model pools the last token that is another
        return wrapped

    def collator(self):
        """Return the plain Trainer's collator."""
        tokenizer = load_tokenizer(self.base)
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(PAD)
        return DataCollatorWithPadding(tokenizer)

    def arithmetic(self):
        """Return the context of the number format."""
        return torch.autocast("cpu", torch.bfloat16, enabled=self.options.autocast == "bfloat16")

    def plain_rows(self):
        """Return the examples as the plain Trainer takes them."""
        pairs = zip(self.examples.encoded.ids, self.examples.labels, strict=True)
        return [{"input_ids": ids.tolist(), "labels": int(label.argmax())} for ids, label in pairs]


def run_plain(work, *, by_length):
    """Train with the plain Trainer; returns the seconds of its steps."""
    options, clock = work.options, Clock()
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder, per_device_train_batch_size=options.rows_per_step, num_train_epochs=1, use_cpu=True,
            bf16=options.autocast == "bfloat16", optim="adamw_torch", report_to="none", save_strategy="no",
            disable_tqdm=True, dataloader_pin_memory=False,
            train_sampling_strategy="group_by_length" if by_length else "random",
        )  # fmt: skip
        trainer = Trainer(work.model(), arguments, work.collator(), work.plain_rows(), callbacks=[clock])
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return clock.steps


def run_ours(work, layout, store=None):
    """Train with ours; returns the seconds of its steps."""
    clock = Clock()
    settings, model = work.settings(layout), work.model(layout)
    fit_lora(model, work.recipe, settings, work.examples, store=store, callbacks=[clock])
    return clock.steps


def fill(work, folder=None):
    """Compute and write the hidden states below the first trained layer.

    Returns them, the seconds that it took, the store, and bytes on the disk.
    """
    backbone = work.model().get_base_model().base_model
    with tempfile.TemporaryDirectory() if folder is None else nullcontext(folder) as place:
        store = HiddenStore(Path(place), {}, backbone.config.hidden_size, lambda text: None)
        begun = time.process_time()
        with work.arithmetic():
            states = store.get(backbone, FIRST_LAYER, work.examples.encoded, work.settings("padded").batches.tokens)
        took = time.process_time() - begun
        n_bytes = sum(path.stat().st_size for path in Path(place).rglob("*.bin"))
    return states, took, store, n_bytes


def one_step(work, layout, rows, states=None):
    """Return loss, gradients and seconds of one step on some rows, by the plain model (no layout) or a trainee."""
    wrapped = work.model(layout or "padded")
    torch.manual_seed(1)
    for name, parameter in wrapped.named_parameters():
        if "lora_B" in name:  # zero in a new adapter, and gradients of lora_A with them
            torch.nn.init.normal_(parameter, std=0.02)
    begun = time.process_time()
    if layout is None:
        batch = work.collator()([work.plain_rows()[row] for row in rows])
        with work.arithmetic():
            loss = wrapped(**batch).loss
        loss.backward()
        total = float(loss.detach())
    else:
        settings = work.settings(layout)
        trainee, data = Trainee(wrapped, work.recipe, settings), Data(work.examples, states)
        objective, total = CrossEntropy(work.examples.labels, work.examples.weights), 0.0
        for part in divide(rows, work.examples.encoded.lengths, settings.batches, trainee.packed):
            loss = objective(*data.call(trainee, part), part) / (len(rows) * objective.mean_weight)
            loss.backward()
            total += float(loss.detach())
    took = time.process_time() - begun
    learning = [parameter for _, parameter in sorted(wrapped.named_parameters()) if parameter.requires_grad]
    return total, torch.cat([parameter.grad.flatten() for parameter in learning]), took


def compare(work, states):
    """Print how losses and gradients of one step on the same rows compare, and what it takes."""
    rows = np.arange(len(work.examples))[:: max(len(work.examples) // ROWS_COMPARED, 1)][:ROWS_COMPARED]
    plain_loss, plain, took = one_step(work, None, rows)
    print(
        f"One step on {len(rows)} rows of {work.examples.encoded.lengths[rows].sum():,} tokens, by the plain model: "
        f"{took:.1f} s, loss {plain_loss:.6f}, norm of the gradient {plain.norm():.4f}\n"
    )
    print("| run | difference of the loss | of the gradient, to its norm | seconds |\n|---|---|---|---|")
    for layout in LAYOUTS:
        for kept in (None, states):
            loss, gradient, took = one_step(work, layout, rows, kept)
            apart = float((gradient - plain).norm() / plain.norm())
            name = f"{layout}, kept" if kept else layout
            print(f"| {name} | {abs(loss - plain_loss):.1e} | {apart:.1e} | {took:.1f} |", flush=True)


def measure(work, store):
    """Return the seconds of every epoch's steps, by run, and those that computing the hidden states takes."""
    runs = {
        RIVAL: lambda: run_plain(work, by_length=False),
        SORTED_RIVAL: lambda: run_plain(work, by_length=True),
        **{layout: lambda layout=layout: run_ours(work, layout) for layout in LAYOUTS},
        **{f"{layout}, kept": lambda layout=layout: run_ours(work, layout, store) for layout in LAYOUTS},
    }
    seconds, stored = {name: [] for name in runs}, []
    for repeat in range(work.options.repeats):
        stored.append(fill(work)[1])
        order = list(runs) if repeat % 2 == 0 else list(runs)[::-1]
        for name in order:
            steps = runs[name]()
            seconds[name].append(sum(steps))
            print(
                f"{name}: {len(steps)} steps of {', '.join(f'{each:.2f}' for each in steps)} s",
                file=sys.stderr,
                flush=True,
            )
    return seconds, min(stored)


def report(work, seconds, stored, n_bytes):
    """Print epochs and what kept states save."""
    options = work.options
    n_tokens = int(work.examples.encoded.lengths.sum())
    n_steps = -(-len(work.examples) // options.rows_per_step)
    epoch = {name: min(each) for name, each in seconds.items()}
    print("\n| run | seconds an epoch, fastest (slowest) | steps/s | tokens/s | to the plain | to that by length |")
    print("|---|---|---|---|---|---|")
    for name, each in seconds.items():
        took = epoch[name]
        print(
            f"| {name} | {took:.1f} ({max(each):.1f}) | {n_steps / took:.3f} | "
            f"{n_tokens / took:.0f} | {epoch[RIVAL] / took:.2f} | {epoch[SORTED_RIVAL] / took:.2f} |"
        )
    print(
        f"\nHidden states below layer {FIRST_LAYER}: {stored:.1f} s to compute and write, "
        f"{n_bytes / n_tokens:.0f} bytes a token\n"
    )
    print("| layout | epochs' worth of rows | computed every time | kept | saves |\n|---|---|---|---|---|")
    for layout in LAYOUTS:
        for worth, what in ((1, "1 epoch"), (3, "3 epochs"), (4, "5 folds of 1 epoch"), (12, "5 folds of 3 epochs")):
            before, after = worth * epoch[layout], stored + worth * epoch[f"{layout}, kept"]
            print(f"| {layout} | {worth} ({what}) | {before:.0f} s | {after:.0f} s | {1 - after / before:.0%} |")


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=48)
    parser.add_argument("--rows-per-step", type=int, default=16)
    parser.add_argument("--max-tokens", type=int, default=1024)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--autocast", default="float32", choices=["float32", "bfloat16"])
    options = parser.parse_args()
    data = Path(os.environ.get("LMSYS_ENSEMBLE_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if missing := [name for name in FILES if not (data / name).is_file()]:
        print(f"skipped: no {', '.join(missing)} in {data}; set LMSYS_ENSEMBLE_DATA")
    torch.set_num_threads(options.threads)
    transformers_logging.set_verbosity_error()
    work = Workload(options, data)
    lengths = work.examples.encoded.lengths
    versions = ", ".join(f"{name} {version}" for name, version in library_versions().items())
    print(
        f"{len(lengths)} rows, {lengths.sum():,} tokens: median {np.median(lengths):.0f}, mean {lengths.mean():.0f}, "
        f"longest {lengths.max()}; {options.rows_per_step} rows a step, {options.autocast}, CPU, {options.threads} of "
        f"{len(usable_cores())} cores, {versions}\n",
        flush=True,
    )
    with tempfile.TemporaryDirectory() as folder:
        states, _, store, n_bytes = fill(work, folder)
        compare(work, states)
        report(work, *measure(work, store), n_bytes)
    return 0


if __name__ == "__main__":
    sys.exit(main())
