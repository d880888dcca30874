"""A language model as a judge: how fast beside a plain loop, and what it knows before anything is trained.

    python benchmarks/judging.py [--models bundled:smollm2-135m-instruct] [--rows 150] [--timed 24] [--repeats 2]

Speed: rows a second of `ChoiceScorer` beside a loop of plain transformers (sort, batch 4, pad, logits of the whole
vocabulary) over the same token ids, interleaved in one process, largest difference of a probability stated. Worth: log
loss and accuracy on human labels, raw, after contextual calibration, with both orders averaged, and out of fold (five
folds by prompt) after a temperature and class biases; averages of several questions as logarithms and as
probabilities. Needs pandalm_human.parquet in $LMSYS_ENSEMBLE_DATA (default ../shared/data).
"""

import argparse
import os
import platform
import sys
import time
from pathlib import Path

import numpy as np
import torch
import transformers
from scipy.optimize import minimize
from transformers import AutoModelForCausalLM

from lmsys_ensemble import ChoiceScorer, parse_battles, parse_labels, read_table
from lmsys_ensemble.evaluation.folds import group_codes
from lmsys_ensemble.modeling.choices import content_free_prior, log_answers
from lmsys_ensemble.probabilities import log_softmax, softmax

PROMPTS = ["verdict", "brackets"]
LABELS = [["A", "B", "tie"], ["A", "B", "C"]]
N_FOLDS = 5


def read_rows(n_rows):
    """Return drawn battles, labels and group codes."""
    folder = Path(os.environ.get("LMSYS_ENSEMBLE_DATA", Path(__file__).parents[2] / "shared" / "data"))
    path = folder / "pandalm_human.parquet"
    if not path.is_file():
        sys.exit(f"{path} is not there; set LMSYS_ENSEMBLE_DATA to the folder of the preference data")
    table = read_table(path)
    drawn = np.sort(np.random.default_rng(0).choice(len(table), min(n_rows, len(table)), replace=False))
    table = table.iloc[drawn].reset_index(drop=True)
    return parse_battles(table), np.asarray(parse_labels(table)), group_codes(table["group"], len(table))


@torch.inference_mode()
def plain_loop(model, ids, label_ids, rows_at_once=4):
    """Score as notebooks do: rows of similar length together, padded, all logits of every token."""
    order = np.argsort([-len(row) for row in ids], kind="stable")
    result = np.empty((len(ids), len(label_ids)), dtype=np.float32)
    for start in range(0, len(ids), rows_at_once):
        rows = order[start : start + rows_at_once]
        tensors = [torch.tensor(ids[row].astype(np.int64)) for row in rows]
        tokens = torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True)
        lengths = torch.tensor([len(one) for one in tensors])
        mask = (torch.arange(tokens.shape[1]) < lengths[:, None]).long()
        logits = model(input_ids=tokens, attention_mask=mask, use_cache=False).logits
        result[rows] = logits[torch.arange(len(rows)), lengths - 1][:, list(label_ids)].numpy()
    return result


def speed(scorer, battles, repeats):
    """Print rows a second of both and the largest difference."""
    forward, encoder = scorer._loaded()
    encoded = scorer.encode(battles)
    model = AutoModelForCausalLM.from_pretrained(scorer._base_folder(), dtype=torch.float32).eval()
    seconds, answers = {"plain loop": [], "ChoiceScorer": []}, {}
    for _ in range(repeats):
        for name, run in (
            ("plain loop", lambda: plain_loop(model, encoded.ids, encoder.label_ids)),
            ("ChoiceScorer", lambda: forward.score(encoded)),
        ):
            start = time.perf_counter()
            answers[name] = log_answers(run(), encoder.columns)
            seconds[name].append(time.perf_counter() - start)
    difference = np.abs(np.exp(answers["plain loop"]) - np.exp(answers["ChoiceScorer"])).max()
    rates = {name: len(battles) / min(times) for name, times in seconds.items()}
    print(
        f"| {scorer.name} | {len(battles)} | {len(encoder.questions)} | {int(encoded.lengths.sum()):,} | "
        f"{rates['plain loop']:.2f} | "
        f"{rates['ChoiceScorer']:.2f} | {rates['ChoiceScorer'] / rates['plain loop']:.2f} | {difference:.0e} |"
    )


def fitted(logs, labels, codes):
    """Return out-of-fold probabilities after a temperature and class biases."""
    result = np.empty_like(labels)
    folds = np.random.default_rng(0).permutation(codes.max() + 1)[codes] % N_FOLDS
    for fold in range(N_FOLDS):
        train, test = folds != fold, folds == fold

        def loss(values, rows=train):
            return -(labels[rows] * log_softmax(values[0] * logs[rows] + np.append(values[1:], 0.0))).sum(1).mean()

        values = minimize(loss, np.r_[1.0, 0.0, 0.0]).x
        result[test] = softmax(values[0] * logs[test] + np.append(values[1:], 0.0))
    return result


def show(name, what, probabilities, labels):
    """Print log loss and accuracy."""
    losses = -(labels * np.log(np.clip(probabilities, 1e-15, 1))).sum(axis=1)
    right = labels[np.arange(len(labels)), probabilities.argmax(axis=1)] >= labels.max(axis=1)
    print(f"| {name} | {what} | {losses.mean():.4f} | {right.mean():.3f} |")


def worth(scorer, battles, labels, codes):
    """Print what the answers are worth, question by question and together."""
    forward, encoder = scorer._loaded()
    first, second = (
        log_answers(forward.score(scorer.encode(rows)), encoder.columns) for rows in (battles, battles.swapped())
    )
    both = (first + second[:, :, [1, 0, 2]]) / 2
    prior = content_free_prior(forward, encoder)
    for number, question in enumerate(encoder.questions):
        show(scorer.name, question.name, np.exp(first[:, number]), labels)
    ways = {
        "all, averaged as probabilities": np.log(np.exp(first).mean(axis=1)),
        "all, averaged as logarithms": log_softmax(first.mean(axis=1)),
        "the same, calibrated without content": log_softmax((first - prior).mean(axis=1)),
        "the same, both orders": log_softmax(both.mean(axis=1)),
    }
    for what, logs in ways.items():
        show(scorer.name, what, np.exp(logs), labels)
        show(scorer.name, f"{what}, then fitted", fitted(logs, labels, codes), labels)


def main():
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--models", nargs="+", default=["bundled:smollm2-135m-instruct", "bundled:gemma-3-270m"])
    parser.add_argument("--rows", type=int, default=150)
    parser.add_argument("--timed", type=int, default=24)
    parser.add_argument("--repeats", type=int, default=2)
    options = parser.parse_args()
    print(
        f"torch {torch.__version__}, transformers {transformers.__version__}, {platform.machine()}, "
        f"{torch.get_num_threads()} threads, float32\n"
    )
    battles, labels, codes = read_rows(options.rows)
    scorers = [ChoiceScorer(model, device="cpu", prompts=PROMPTS, labels=LABELS) for model in options.models]
    print("| model | rows | questions | tokens | plain loop, rows/s | ours, rows/s | ratio | max dp |\n|" + "---|" * 8)
    for asked in scorers:
        for settings in ({"prompts": None, "labels": None}, {}):
            with ChoiceScorer(**{**asked.settings(), **settings}) as scorer:
                speed(scorer, battles[: options.timed], options.repeats)
    print(f"\n{len(battles)} rows\n\n| model | question | log loss | accuracy |\n|" + "---|" * 4)
    show("class prior", "out of fold", fitted(np.zeros_like(labels), labels, codes), labels)
    for scorer in scorers:
        with scorer:
            worth(scorer, battles, labels, codes)


if __name__ == "__main__":
    main()
