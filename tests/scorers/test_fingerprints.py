"""Fingerprints: a run folder must not take results of other weights or settings for its own."""

import inspect
import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from lmsys_ensemble.encoding import tokens
from lmsys_ensemble.ensemble import Ensemble
from lmsys_ensemble.errors import InputError, JournalError
from lmsys_ensemble.modeling import digests
from lmsys_ensemble.modeling.digests import base_digest
from lmsys_ensemble.scorers.classifier import ClassifierScorer
from lmsys_ensemble.scorers.gemma import GemmaScorer
from lmsys_ensemble.scorers.llama import LlamaScorer
from lmsys_ensemble.scorers.saved import SavedScorer
from lmsys_ensemble.testing.fake import FakeScorer
from lmsys_ensemble.testing.faults import FaultyScorer
from tests.tiny import make_battles, save_classifier

CLASSIFIER_CHANGES = {
    "revision": "abc123",
    "quantization": "nf4",
    "dtype": "bfloat16",
    "attn_implementation": "eager",
    "soft_capping": False,
    "merge": False,
    "unpack": True,
    "template": "turns",
    "max_tokens": 64,
    "truncation": "tail",
    "bos": False,
    "eos": False,
    "pad_token_id": 2,
    "adapter": None,
}
"""For every setting a value other than the one the fixture has."""

ONLY_ROUNDS = {
    "name": "what errors and tables call the scorer; the journal keeps it beside the fingerprint",
    "device": "the number format that it decides is in the fingerprint; the rest is rounding",
    "tokens_per_batch": "rows are computed apart from each other; batches are halved where memory ends, too",
    "other_base": "whether another base is refused; which one is used is in the fingerprint",
}
"""Settings of a model's scorer that change no result beyond rounding, and why."""

OF_A_FAKE = {
    "seed": 9,
    "scale": 2.0,
    "n_classes": 2,
    "seconds_per_row": 0.5,
    "name": "other",
    "device": "cuda:0",
}
FAULTS_THAT_END = ("raise_at", "error", "out_of_memory_above", "hang_at", "die_at", "fail_load")
"""A run that one of these ended can be resumed without it."""


def settings_of(kind):
    return set(inspect.signature(kind).parameters)


@pytest.fixture
def adapter(checkpoints, tmp_path):
    """Return a copy of an adapter without a recipe, to be changed."""
    return shutil.copytree(checkpoints.adapter("llama"), tmp_path / "adapter")


@pytest.fixture
def scorer(checkpoints, adapter):
    return LlamaScorer(str(checkpoints.base("llama")), adapter=str(adapter), device="cpu", max_tokens=120)


def edit_json(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize("kind", [ClassifierScorer, LlamaScorer, GemmaScorer])
def test_every_setting_changes_the_fingerprint_or_has_a_reason_not_to(kind, checkpoints):
    architecture = "gemma2" if kind is GemmaScorer else "llama"
    assert {"model", *CLASSIFIER_CHANGES, *ONLY_ROUNDS} == settings_of(kind)
    defaults = {"adapter": str(checkpoints.adapter(architecture)), "device": "cpu", "max_tokens": 120}
    model, other = str(checkpoints.base(architecture)), str(checkpoints.classifier(architecture))
    if kind is ClassifierScorer:
        defaults["template"] = "kaggle-gemma"
    plain = kind(model, **defaults).fingerprint()
    json.dumps(plain)
    for name, value in CLASSIFIER_CHANGES.items():
        assert kind(model, **{**defaults, name: value}).fingerprint() != plain, name
    assert kind(other, **defaults).fingerprint()["base_digest"] != plain["base_digest"]
    for name, value in {"name": "other", "device": "auto", "tokens_per_batch": 99, "other_base": "measure"}.items():
        assert kind(model, **{**defaults, name: value}).fingerprint() == plain, name


@pytest.mark.parametrize(
    ("kind", "changes"), [(FakeScorer, OF_A_FAKE), (FaultyScorer, {**OF_A_FAKE, "nan_for": "tea"})]
)
def test_every_setting_of_a_fake_changes_the_fingerprint_but_faults_that_end_a_run(kind, changes):
    left_out = FAULTS_THAT_END if kind is FaultyScorer else ()
    assert {*changes, *left_out} == settings_of(kind)
    for name, value in changes.items():
        assert kind(**{name: value}).fingerprint() != kind().fingerprint(), name
    for name in left_out:
        assert kind(**{name: "RuntimeError" if name == "error" else 1}).fingerprint() == kind().fingerprint(), name


def test_a_file_of_probabilities_is_known_by_what_is_read_of_it(tmp_path):
    path, copy, other = (tmp_path / name for name in ("a.csv", "b.csv", "c.csv"))
    path.write_text("id,winner_model_a,winner_model_b,winner_tie\n1,0.2,0.3,0.5\n")
    shutil.copy(path, copy)
    other.write_text(path.read_text().replace("0.2,0.3", "0.3,0.2"))
    plain = SavedScorer(str(path)).fingerprint()
    json.dumps(plain)
    assert settings_of(SavedScorer) == {"path", "columns", "n_classes", "name"}
    for same in (SavedScorer(str(copy)), SavedScorer(str(path), name="other")):
        assert same.fingerprint() == plain
    for changed in (
        SavedScorer(str(other)),
        SavedScorer(str(path), n_classes=2),
        SavedScorer(str(path), columns=("winner_model_b", "winner_model_a", "winner_tie")),
    ):
        assert changed.fingerprint() != plain
    with pytest.raises(InputError, match=r"there is no file .*absent\.csv"):
        SavedScorer(str(tmp_path / "absent.csv")).fingerprint()


def test_a_resumed_run_refuses_an_adapter_with_another_alpha_and_names_it(scorer, adapter, tmp_path):
    battles = make_battles(6)
    before = Ensemble([scorer]).predict_proba(battles, run_dir=tmp_path / "run")
    edit_json(adapter / "adapter_config.json", lora_alpha=32)
    with pytest.raises(JournalError, match=r"adapter\.config\.lora_alpha was 8, is 32"):
        Ensemble([scorer]).predict_proba(battles, run_dir=tmp_path / "run")
    after = Ensemble([scorer]).predict_proba(battles, run_dir=tmp_path / "run", rescore=True)
    assert np.abs(after - before).max() > 0.01


def test_what_changes_nothing_of_an_adapter_is_not_in_the_way(scorer, adapter):
    before = scorer.fingerprint()
    edit_json(
        adapter / "adapter_config.json", base_model_name_or_path="/elsewhere", inference_mode=False, peft_version="9"
    )
    assert scorer.fingerprint() == before


@pytest.mark.parametrize("key", ["score.weight", "layers.3.self_attn.v_proj.lora_B.weight"])
def test_every_tensor_of_an_adapter_counts(scorer, adapter, key):
    before = scorer.fingerprint()
    path = adapter / "adapter_model.safetensors"
    weights = load_file(path)
    next(tensor for name, tensor in weights.items() if name.endswith(key)).view(-1)[0] += 1
    save_file(weights, path, metadata={"format": "pt"})
    after = scorer.fingerprint()
    assert {name for name in after if after[name] != before[name]} == {"adapter"}


@pytest.mark.parametrize("key", ["score.weight", "model.norm.weight", "model.layers.7.mlp.down_proj.weight"])
def test_one_tensor_of_a_large_base_counts(tmp_path, key):
    """A head trained on a frozen base, or a merge into one layer, lies in a small part of a large file."""
    folder = save_classifier(
        "llama", tmp_path / "base", hidden_size=256, intermediate_size=1024, num_hidden_layers=8, vocab_size=4000
    )
    before, path = base_digest(folder), folder / "model.safetensors"
    weights = load_file(path)
    weights[key] = weights[key] + torch.randn_like(weights[key]) * 0.01
    save_file(weights, path, metadata={"format": "pt"})
    assert base_digest(folder) != before


def test_a_change_of_the_code_between_battle_and_token_ids_counts(scorer, monkeypatch):
    before = scorer.fingerprint()
    monkeypatch.setattr(tokens, "MAX_CHARACTERS_PER_TOKEN", 1)
    after = scorer.fingerprint()
    assert {name for name in after if after[name] != before[name]} == {"encoding"}
    monkeypatch.undo()
    monkeypatch.setattr(digests, "SCORING_GENERATION", digests.SCORING_GENERATION + 1)
    after = scorer.fingerprint()
    assert {name for name in after if after[name] != before[name]} == {"generation"}


def test_where_a_local_model_lies_and_how_its_path_is_spelt_changes_nothing(
    checkpoints, adapter, tmp_path, monkeypatch
):
    base = shutil.copytree(checkpoints.base("llama"), tmp_path / "moved" / "base")
    defaults = {"adapter": str(adapter), "device": "cpu", "max_tokens": 120}
    plain = LlamaScorer(str(checkpoints.base("llama")), **defaults).fingerprint()
    assert LlamaScorer(str(base), **defaults).fingerprint() == plain
    monkeypatch.chdir(base.parent)
    assert LlamaScorer("base", **defaults).fingerprint() == plain
    assert LlamaScorer("./base/../base", **defaults).fingerprint() == plain
