import dataclasses
import gc
import json
import logging
import os
import shutil
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from lmsys_ensemble.ensemble import Ensemble
from lmsys_ensemble.errors import ConfigError, DeviceError, GoldenError, InputError, IntegrityError, ScoringError
from lmsys_ensemble.modeling import tokenization
from lmsys_ensemble.modeling.golden import golden_battles, write_golden
from lmsys_ensemble.modeling.recipe import describe_base, write_recipe
from lmsys_ensemble.probabilities import softmax
from lmsys_ensemble.scorers.base import NoProgress
from lmsys_ensemble.scorers.classifier import ClassifierScorer
from lmsys_ensemble.scorers.gemma import GemmaScorer
from lmsys_ensemble.scorers.llama import LlamaScorer
from lmsys_ensemble.testing.check import check_scorer
from tests.tiny import encode, make_battles, make_recipe, plain_logits, plain_model, save_base

KINDS = {"llama": LlamaScorer, "gemma2": GemmaScorer, "gemma3": GemmaScorer, "modernbert": ClassifierScorer}


@pytest.fixture
def make_scorer(checkpoints):
    """Return a function that makes a scorer of an architecture's base and adapter, which have no recipe."""

    def make(architecture="llama", **settings):
        defaults = {"adapter": str(checkpoints.adapter(architecture)), "device": "cpu", "max_tokens": 120}
        return KINDS[architecture](str(checkpoints.base(architecture)), **{**defaults, **settings})

    return make


@pytest.mark.parametrize("architecture", KINDS)
def test_every_kind_keeps_the_contract(make_scorer, architecture):
    check_scorer(make_scorer(architecture, name=architecture))


@pytest.mark.parametrize("architecture", KINDS)
def test_logits_are_those_of_plain_transformers_on_our_token_ids(make_scorer, checkpoints, architecture):
    battles = make_battles(9)
    with make_scorer(architecture, template="turns", tokens_per_batch=500) as scorer:
        logits = scorer.score(battles)
    plain = plain_model(checkpoints.base(architecture), adapter=checkpoints.adapter(architecture))
    expected = plain_logits(plain, encode(battles, max_tokens=120).ids, rows_at_once=4)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, expected, atol=1e-5)


def test_scoring_follows_the_recipe(checkpoints, trained):
    battles = make_battles(6)
    with LlamaScorer(str(checkpoints.base("llama")), adapter=str(trained), device="cpu") as scorer:
        encoded, logits = scorer.encode(battles), scorer.score(battles)
    expected_ids = encode(battles, max_tokens=71, template="kaggle-gemma", truncation="tail").ids
    # <eos> is left out, and 71 tokens with it are 70 without.
    assert [row.tolist() for row in encoded.ids] == [row[:-1].tolist() for row in expected_ids]
    plain = plain_model(checkpoints.base("llama"), adapter=trained, pad_token_id=2)
    np.testing.assert_allclose(logits, plain_logits(plain, encoded.ids, rows_at_once=3), atol=1e-5)


def test_another_base_model_is_told_by_its_shape(trained, tmp_path):
    other = save_base("llama", tmp_path / "other", num_hidden_layers=5, vocab_size=416)
    with pytest.raises(ConfigError, match="vocab_size 416 instead of 400, num_hidden_layers 5 instead of 4") as caught:
        LlamaScorer(str(other), adapter=str(trained), device="cpu").load()
    assert "is not the base model of" in str(caught.value)
    assert "tiny-llama" in str(caught.value)


def test_a_base_of_other_weights_is_measured_on_request(checkpoints, tmp_path, caplog):
    """What was trained on dequantised weights is scored on the originals, or on weights that have nothing of them."""
    dequantized = shutil.copytree(checkpoints.base("llama"), tmp_path / "dequantized")
    (dequantized / "manifest.json").write_text(json.dumps({"gguf_sha256": "a" * 64}))
    adapter = shutil.copytree(checkpoints.adapter("llama"), tmp_path / "adapter")
    recipe = make_recipe(base_model=describe_base(dequantized, "bundled:tiny").model_dump())
    write_recipe(adapter, recipe, ("adapter_model.safetensors",))
    with LlamaScorer(str(dequantized), adapter=str(adapter), device="cpu") as scorer:
        golden = scorer.encode(golden_battles())
        write_golden(adapter, golden, scorer.score(golden_battles()), "float32")
    for noise in (0.005, 1.0):
        base = shutil.copytree(checkpoints.base("llama"), tmp_path / f"noise-{noise}")
        weights = load_file(base / "model.safetensors")
        torch.manual_seed(0)
        noisy = {name: tensor * (1 + noise * torch.randn_like(tensor)) for name, tensor in weights.items()}
        save_file(noisy, base / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(
            ConfigError, match=r"dequantised from the GGUF file .*aaaaaaaaaaaa…; .* holds other weights"
        ):
            LlamaScorer(str(base), adapter=str(adapter), device="cpu").load()
        measured = LlamaScorer(str(base), adapter=str(adapter), device="cpu", other_base="measure")
        if noise < 1:
            measured.load()
            assert "golden rows differ by up to 0." in caplog.text
        else:
            with pytest.raises(GoldenError, match=r"more than 0\.2"):
                measured.load()


def test_an_adapter_exchanged_under_its_recipe_is_named(checkpoints, trained):
    shutil.copy(checkpoints.adapter("gemma2") / "adapter_model.safetensors", trained)
    with pytest.raises(IntegrityError, match=r"adapter_model\.safetensors is not the file that was saved"):
        LlamaScorer(str(checkpoints.base("llama")), adapter=str(trained), device="cpu").load()


def test_closing_frees_every_tensor_and_loading_again_gives_the_same_logits(make_scorer):
    battles = make_battles(5)
    scorer = make_scorer("gemma2", merge=False)
    scorer.load()
    first = scorer.score(battles)
    alive = [weakref.ref(tensor) for tensor in scorer._forward.model.state_dict(keep_vars=True).values()]
    assert len(alive) > 50
    scorer.close()
    assert [reference for reference in alive if reference() is not None] == []
    assert not [thing for thing in gc.get_objects() if type(thing).__name__ == "Gemma2ForSequenceClassification"]
    scorer.close()  # twice does no harm
    scorer.load()
    assert np.array_equal(scorer.score(battles), first)
    scorer.close()


def test_a_scorer_that_is_not_loaded_says_so(make_scorer):
    with pytest.raises(ScoringError, match=r"mine is not loaded; call load\(\)"):
        make_scorer(name="mine").score(make_battles(2))


def test_a_tokenizer_is_loaded_once_until_it_changes(checkpoints, tmp_path, monkeypatch):
    base = shutil.copytree(checkpoints.classifier("llama"), tmp_path / "base")
    loads, real = [], tokenization.load_tokenizer
    monkeypatch.setattr(tokenization, "load_tokenizer", lambda folder: loads.append(folder) or real(folder))
    scorer = LlamaScorer(str(base), device="cpu", max_tokens=120)
    scorer.check()
    before = scorer.fingerprint()
    with scorer:
        scorer.encode(make_battles(2))
    assert len(loads) == 1
    content = (base / "tokenizer.json").read_bytes()
    (base / "tokenizer.json").write_bytes(content.replace(b'"e": 71', b'"e": 72 ').replace(b'"f": 72,', b'"f": 71,'))
    assert scorer.fingerprint()["encoding"] != before["encoding"]
    assert len(loads) == 2
    scorer.max_tokens = 64
    scorer.check()
    assert len(loads) == 3


def test_what_truncation_keeps_is_told_without_loading_weights(checkpoints, tmp_path):
    base = shutil.copytree(checkpoints.base("llama"), tmp_path / "base")
    (base / "model.safetensors").unlink()
    scorer = LlamaScorer(str(base), max_tokens=50, template="turns")
    assert scorer.encode(make_battles(8)).retention["truncated"].any()


def test_a_device_that_is_not_there_is_said_before_anything_is_loaded(make_scorer, monkeypatch):
    monkeypatch.setattr(tokenization, "load_tokenizer", lambda *_: pytest.fail("loaded"))
    with pytest.raises(DeviceError, match=r"'cuda:99' is not on this machine, which has .*cpu.*or to 'auto'"):
        make_scorer(device="cuda:99").load()


def test_all_rows_and_tokens_are_reported_as_progress(make_scorer):
    @dataclasses.dataclass
    class Listener(NoProgress):
        done: tuple = (0, 0)

        def advance(self, *amounts):
            self.done = tuple(map(sum, zip(self.done, amounts, strict=True)))

    battles = make_battles(7)
    with make_scorer(tokens_per_batch=300) as scorer:
        scorer.progress = listener = Listener()
        scorer.score(battles)
        assert listener.done == (7, scorer.encode(battles).lengths.sum())


def test_scorers_in_threads_give_what_each_gives_alone(make_scorer):
    battles = make_battles(8)
    scorers = [make_scorer(architecture, name=architecture) for architecture in KINDS]
    scorers.append(make_scorer("llama", name="half", dtype="bfloat16"))
    scorers.append(make_scorer("gemma2", name="small", quantization="nf4"))
    together = Ensemble(scorers).member_probabilities(battles)
    for scorer in scorers:
        with scorer:
            np.testing.assert_allclose(together[scorer.name], softmax(scorer.score(battles)), atol=1e-6)


def test_a_failure_while_loading_keeps_nothing(make_scorer, trained, checkpoints):
    """The golden rows of another model: what was loaded by then is freed."""
    golden = {"dtype": "float32", "rows": [{"ids": [1, 5, 6], "fields": [0, 1, 2], "logits": [9.0, -9.0, 0.0]}]}
    (trained / "golden.json").write_text(json.dumps(golden))
    scorer = LlamaScorer(str(checkpoints.base("llama")), adapter=str(trained), device="cpu")
    with pytest.raises(GoldenError):
        scorer.load()
    gc.collect()
    assert not [thing for thing in gc.get_objects() if type(thing).__name__ == "LlamaForSequenceClassification"]
    with pytest.raises(ScoringError, match="not loaded"):
        scorer.score(make_battles(1))


def test_half_precision_stays_near_float32(make_scorer):
    battles = make_battles(6)
    results = {}
    for dtype in ("float32", "float16", "bfloat16"):
        with make_scorer("gemma3", dtype=dtype) as scorer:
            assert next(scorer._forward.model.base_model.parameters()).dtype == getattr(torch, dtype)
            results[dtype] = softmax(scorer.score(battles))
    assert 0 < np.abs(results["float16"] - results["float32"]).max() < 0.02
    assert 0 < np.abs(results["bfloat16"] - results["float32"]).max() < 0.1


def test_the_fingerprint_tells_apart_what_lies_in_the_base_folder(checkpoints, tmp_path):
    base = shutil.copytree(checkpoints.base("llama"), tmp_path / "base")
    before = LlamaScorer(str(base), device="cpu").fingerprint()
    for name, change in (
        ("config.json", lambda content: content.replace(b"10000.0", b"20000.0")),
        ("tokenizer.json", lambda content: content.replace(b'"e": 71', b'"e": 72').replace(b'"f": 72', b'"f": 71')),
        ("model.safetensors", lambda content: content[:-1] + bytes([content[-1] ^ 1])),
    ):
        content = (base / name).read_bytes()
        changed = change(content)
        assert changed != content, name
        (base / name).write_bytes(changed)
        after = LlamaScorer(str(base), device="cpu").fingerprint()
        assert {key for key in after if after[key] != before[key]} - {"encoding"} == {"base_digest"}, name
        assert (after["encoding"] != before["encoding"]) == (name == "tokenizer.json")
        (base / name).write_bytes(content)
    assert LlamaScorer(str(base), device="cpu").fingerprint() == before


def test_attention_that_is_named_runs_transformers_own_forward_pass(make_scorer, caplog):
    battles = make_battles(5)
    logits = {}
    for attention in ("auto", "eager", "sdpa"):
        with caplog.at_level(logging.INFO, "lmsys_ensemble"), make_scorer(attn_implementation=attention) as scorer:
            logits[attention] = scorer.score(battles)
        assert ("runs packed" in caplog.text) == (attention == "auto")
        caplog.clear()
    np.testing.assert_allclose(logits["eager"], logits["auto"], atol=1e-5)
    np.testing.assert_allclose(logits["sdpa"], logits["auto"], atol=1e-5)


@pytest.mark.parametrize("architecture", KINDS)
def test_threads_that_share_a_scorer_give_what_one_gives(make_scorer, architecture):
    parts = [make_battles(6, seed=seed) for seed in range(8)]
    with make_scorer(architecture) as scorer, ThreadPoolExecutor(4) as threads:
        assert scorer.shareable
        alone = [scorer.score(part) for part in parts]
        for logits, expected in zip(threads.map(scorer.score, parts), alone, strict=True):
            assert np.array_equal(logits, expected)


def test_scorers_with_quantised_layers_are_not_shared(make_scorer):
    assert not make_scorer(quantization="int8").shareable


def test_a_tokenizer_is_read_once_in_a_process_unless_it_or_the_recipe_has_changed(checkpoints, tmp_path):
    folder = shutil.copytree(checkpoints.classifier("llama"), tmp_path / "model")
    scorer = LlamaScorer(str(folder), device="cpu", max_tokens=64)
    encoders = []
    for change in ("nothing", "nothing", "max_tokens", "tokenizer"):
        if change == "max_tokens":
            scorer.max_tokens = 80
        if change == "tokenizer":
            os.utime(folder / "tokenizer.json", ns=(1, 1))
        scorer.load()
        scorer.close()
        encoders.append(scorer._encoder)
    assert encoders[0] is encoders[1]
    assert encoders[2] is not encoders[1]
    assert encoders[2].max_tokens == 80
    assert encoders[3] is not encoders[2]


def test_a_setting_that_is_assigned_counts_from_the_next_load_on(make_scorer):
    scorer = make_scorer(dtype="float32")
    before = scorer.fingerprint()
    scorer.dtype, scorer.quantization = "bfloat16", "int8"
    assert (scorer.compute.dtype, scorer.compute.quantization, scorer.shareable) == ("bfloat16", "int8", False)
    assert scorer.fingerprint() != before


def test_encode_says_what_it_takes(make_scorer):
    with pytest.raises(InputError, match=r"type DataFrame; write encode\(parse_battles\(table\)\)"):
        make_scorer().encode(pd.DataFrame({"id": [1]}))


def test_an_adapter_that_is_not_there_is_not_said_to_have_no_recipe(make_scorer, caplog, tmp_path):
    scorer = make_scorer(adapter=str(tmp_path / "none"), max_tokens=3)
    with pytest.raises(ConfigError, match="no adapter folder") as caught:
        Ensemble([scorer]).check()
    assert not caplog.records
    assert all(fault.count(f"scorer {scorer.name!r}") == 1 for fault in caught.value.faults)
