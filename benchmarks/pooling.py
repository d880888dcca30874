"""Which pooling, and how many layers, a small frozen model wants: cross-validated log loss on human labels.

    python benchmarks/pooling.py [--model bundled:smollm2-135m-instruct] [--layers 9 12 15 18 24 30]

The base model stays as it is; a head is fitted to its pooled states (see `lmsys_ensemble.training.head`) on four fifths
of the prompts and measured on the rest, five times. Beside it stand the class prior and a logistic regression on the
responses' lengths, on the same folds. Needs pandalm_human.parquet in $LMSYS_ENSEMBLE_DATA (default ../shared/data).
"""

import argparse
import os
import sys
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from lmsys_ensemble.bases.sources import resolve_base
from lmsys_ensemble.data.corpus import read_labelled
from lmsys_ensemble.encoding.batches import plan_batches
from lmsys_ensemble.evaluation.folds import group_codes, group_folds
from lmsys_ensemble.evaluation.intervals import paired_difference
from lmsys_ensemble.evaluation.metrics import row_log_losses
from lmsys_ensemble.hosting.slots import usable_cores
from lmsys_ensemble.modeling.loading import LoadSettings, load_classifier
from lmsys_ensemble.modeling.pooling import pad_batch, pool, pooled_size
from lmsys_ensemble.modeling.recipe import Recipe
from lmsys_ensemble.modeling.tokenization import make_encoder
from lmsys_ensemble.probabilities import softmax
from lmsys_ensemble.schema import THREE_WAY
from lmsys_ensemble.training.dataset import encode_both_orders
from lmsys_ensemble.training.head import fit_head
from lmsys_ensemble.training.validation import length_baseline

FILE = "pandalm_human.parquet"
POOLINGS = ("last_token", "response_spans")
PENALTIES = (0.03, 0.1, 0.3, 1.0)
TOKENS_PER_BATCH = 2048


@torch.inference_mode()
def pooled_states(model, encoded, layers):
    """Return {(pooling, layer): states of shape (n_rows, pooled size)} of the frozen model, float32."""
    backbone = model.base_model
    size = backbone.config.hidden_size
    states = {
        (kind, layer): np.empty((len(encoded), pooled_size(kind, size)), dtype=np.float32)
        for kind in POOLINGS
        for layer in layers
    }
    for rows in tqdm(plan_batches(encoded.lengths, TOKENS_PER_BATCH), desc="frozen model", disable=None):
        ids, fields = [encoded.ids[row] for row in rows], [encoded.fields[row] for row in rows]
        tokens, mask = pad_batch(ids, 0, "cpu")
        hidden = backbone(
            input_ids=tokens, attention_mask=mask, use_cache=False, output_hidden_states=True
        ).hidden_states
        for kind, layer in states:
            entering = hidden[layer]
            normed = entering if layer == backbone.config.num_hidden_layers else backbone.norm(entering)
            states[kind, layer][rows] = pool(normed, ids, fields, kind, None).numpy()
    return states


def cross_validate(states, labels, data, folds, penalty):
    """Return out-of-fold probabilities; the head learns from both orders and is measured on the first."""
    n_rows = len(data)
    result = np.empty((n_rows, labels.shape[1]))
    for fold in range(folds.max() + 1):
        inside = np.tile(folds != fold, 2)
        weight, bias = fit_head(states[inside], labels[inside], np.ones(inside.sum()), penalty)
        outside = np.flatnonzero(folds == fold)
        result[outside] = softmax(states[outside] @ weight.T + bias)
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="bundled:smollm2-135m-instruct")
    parser.add_argument("--layers", type=int, nargs="+", default=[9, 12, 15, 18, 24, 30])
    options = parser.parse_args()
    folder = Path(os.environ.get("LMSYS_ENSEMBLE_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not (folder / FILE).is_file():
        print(f"skipped: no {FILE} in {folder}; set LMSYS_ENSEMBLE_DATA")
        return 0
    data = read_labelled([folder / FILE], THREE_WAY)
    base = resolve_base(options.model)
    values = {"base_model": {"name": options.model}, "template": {"name": "turns"}, "max_tokens": 512}
    encoder = make_encoder(base, Recipe.model_validate(values))
    encoded, labels, _ = encode_both_orders(data, encoder, THREE_WAY, both=True)
    model = load_classifier(
        base, LoadSettings(3, "cpu", torch.float32, n_layers=max(options.layers)), head_follows=True
    )
    states = pooled_states(model, encoded, options.layers)
    codes = group_codes(data.groups, len(data))
    folds = group_folds(codes, 5)
    prior, lengths = np.empty((len(data), 3)), np.empty((len(data), 3))
    for fold in range(5):
        inside, outside = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        prior[outside] = data.labels[inside].mean(axis=0)
        lengths[outside] = length_baseline(data.take(inside), data.take(outside))
    reference = row_log_losses(data.labels, lengths)
    print(f"{options.model}, {len(data)} rows, {codes.max() + 1} prompts, float32, torch {torch.__version__}, "
          f"{len(usable_cores())} cores")  # fmt: skip
    print(f"class prior {row_log_losses(data.labels, prior).mean():.4f}  length only {reference.mean():.4f}")
    for (kind, layer), pooled in states.items():
        for penalty in PENALTIES:
            losses = row_log_losses(data.labels, cross_validate(pooled, labels, data, folds, penalty))
            found = paired_difference(losses, reference, codes)
            print(
                f"{kind:15} layer {layer:2} l2 {penalty:4}  log loss {losses.mean():.4f}  "
                f"to length only {found.mean:+.4f} ({found.low:+.4f} to {found.high:+.4f})"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
