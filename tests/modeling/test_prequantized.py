"""Models that are stored quantised: loaded as they are, or refused before weights are read."""

import json
import shutil

import numpy as np
import pytest
import torch
from bitsandbytes.nn import Linear4bit, Linear8bitLt
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, BitsAndBytesConfig

from lmsys_ensemble import ClassifierScorer
from lmsys_ensemble.errors import CheckError, ConfigError, MissingDependencyError, ModelError
from lmsys_ensemble.files import read_object, write_json
from lmsys_ensemble.modeling import prequantized
from lmsys_ensemble.modeling.assembly import assemble
from lmsys_ensemble.modeling.prequantized import StoredQuantization, check_stored, stored_quantization
from lmsys_ensemble.modeling.settings import ComputeSettings
from tests.tiny import encode, make_battles, make_recipe, make_tokenizer

LINEAR = {"nf4": Linear4bit, "int8": Linear8bitLt}


def options_of(quantization):
    """Return what people pass to bitsandbytes; float16 is what most uploads state."""
    if quantization == "int8":
        return {"load_in_8bit": True}
    return {"load_in_4bit": True, "bnb_4bit_quant_type": quantization, "bnb_4bit_compute_dtype": torch.float16}


def save_quantised(kind, base, folder, quantization, **changes):
    """Save a model in bitsandbytes' weights, as competitors upload it."""
    config = BitsAndBytesConfig(**options_of(quantization), **changes)
    extra = {"num_labels": 3} if kind is AutoModelForSequenceClassification else {}
    model = kind.from_pretrained(base, quantization_config=config, device_map={"": "cpu"}, dtype=torch.float32, **extra)
    model.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def encoded():
    return encode(make_battles(6))


@pytest.fixture(scope="module")
def stored_base(checkpoints, tmp_path_factory):
    """Return a language model that is stored in 4 bits, without a head."""
    folder = tmp_path_factory.mktemp("stored") / "nf4-base"
    return save_quantised(AutoModelForCausalLM, checkpoints.base("llama"), folder, "nf4")


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
@pytest.mark.parametrize("architecture", ["llama", "gemma2"])
def test_stored_weights_give_the_logits_of_weights_quantised_on_the_way(
    checkpoints, tmp_path, encoded, architecture, quantization
):
    base = checkpoints.classifier(architecture)
    folder = save_quantised(AutoModelForSequenceClassification, base, tmp_path / "stored", quantization)
    fresh = assemble(base, make_recipe(), ComputeSettings(device="cpu", quantization=quantization), adapter=None)
    for asked in ("none", quantization):
        found = assemble(folder, make_recipe(), ComputeSettings(device="cpu", quantization=asked), adapter=None)
        kinds = {type(layer) for layer in found.model.model.modules() if isinstance(layer, torch.nn.Linear)}
        assert kinds == {LINEAR[quantization]}
        assert type(found.model.score) is torch.nn.Linear
        assert found.layout.startswith("packed")
        np.testing.assert_allclose(found.score(encoded), fresh.score(encoded), rtol=0, atol=1e-5)


def test_arithmetic_is_in_the_number_format_asked_for_whatever_the_upload_states(stored_base, checkpoints):
    found = assemble(
        stored_base, make_recipe(), ComputeSettings(device="cpu", dtype="float32"), adapter=checkpoints.adapter("llama")
    )
    layers = [layer for layer in found.model.modules() if isinstance(layer, Linear4bit)]
    assert {layer.compute_dtype for layer in layers} == {torch.float32}


@pytest.mark.parametrize("skipped", [None, ["lm_head"]])
def test_a_base_stored_in_4_bits_loads_under_an_adapter(checkpoints, tmp_path, encoded, skipped):
    base, adapter = checkpoints.base("llama"), checkpoints.adapter("llama")
    folder = save_quantised(AutoModelForCausalLM, base, tmp_path / "base", "nf4", llm_int8_skip_modules=skipped)
    fresh = assemble(base, make_recipe(), ComputeSettings(device="cpu", quantization="nf4"), adapter=adapter)
    found = assemble(folder, make_recipe(), ComputeSettings(device="cpu"), adapter=adapter)
    np.testing.assert_allclose(found.score(encoded), fresh.score(encoded), rtol=0, atol=1e-5)
    unpacked = assemble(folder, make_recipe(), ComputeSettings(device="cpu", unpack=True), adapter=adapter)
    assert not any(isinstance(layer, Linear4bit) for layer in unpacked.model.modules())
    assert np.ptp(found.score(encoded)) > 0.1


def test_a_scorer_of_stored_weights_shares_no_model_and_counts_its_memory(stored_base, checkpoints):
    adapter = checkpoints.adapter("llama")
    stored = ClassifierScorer(str(stored_base), adapter=str(adapter))
    plain = ClassifierScorer(str(checkpoints.base("llama")), adapter=str(adapter))
    on_the_way = ClassifierScorer(str(checkpoints.base("llama")), adapter=str(adapter), quantization="nf4")
    assert (stored.shareable, on_the_way.shareable, plain.shareable) == (False, False, True)
    n_bytes = [scorer.costs(make_battles(2)).weight_bytes for scorer in (stored, on_the_way, plain)]
    assert n_bytes[0] == n_bytes[1] < n_bytes[2]
    stored.check()


def with_entry(folder, target, entry):
    """Return a copy of a model whose configuration states another quantisation."""
    shutil.copytree(folder, target)
    write_json(target / "config.json", {**read_object(target / "config.json"), "quantization_config": entry})
    return target


@pytest.mark.parametrize(
    ("quantization", "merge", "words"),
    [
        ("int8", None, "quantization='int8' contradicts .* stored as 4-bit bitsandbytes. Leave quantization out"),
        ("none", True, "merge=True on a base that is stored as 4-bit bitsandbytes"),
    ],
)
def test_what_contradicts_the_stored_weights_is_refused_with_the_cure(
    stored_base, checkpoints, quantization, merge, words
):
    adapter = str(checkpoints.adapter("llama"))
    scorer = ClassifierScorer(str(stored_base), adapter=adapter, quantization=quantization, merge=merge)
    with pytest.raises(CheckError, match=words):
        scorer.check()
    with pytest.raises((ConfigError, ModelError), match=r"contradicts|merge=True"):
        scorer.load("cpu")


def gptq(**changes):
    return {"quant_method": "gptq", "bits": 8, "group_size": 128, "desc_act": False, **changes}


@pytest.mark.parametrize(
    ("entry", "packages"),
    [
        (gptq(), "gptqmodel optimum"),
        ({"quant_method": "awq", "bits": 4}, "gptqmodel"),
        (
            {
                "quant_method": "compressed-tensors",
                "config_groups": {"group_0": {"targets": ["Linear"], "weights": {"num_bits": 4}}},
            },
            "compressed-tensors",
        ),
    ],
)
def test_a_package_that_is_not_installed_is_named_before_weights_are_read(
    checkpoints, tmp_path, monkeypatch, entry, packages
):
    monkeypatch.setattr(prequantized, "find_spec", lambda name: None)
    folder = with_entry(checkpoints.classifier("llama"), tmp_path / "stored", entry)
    for path in folder.glob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:-1000])  # what is damaged now would be found by reading it
    with pytest.raises(MissingDependencyError, match=f"not installed: pip install {packages}$"):
        check_stored(folder, "none")


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"quant_method": "fbgemm_fp8"}, "by 'fbgemm_fp8', which is not supported; known: bitsandbytes, compressed-"),
        ({"load_in_4bit": False}, "by 'None', which is not supported"),
        ({"load_in_4bit": True, "bnb_4bit_quant_type": "nf5"}, "must be nf4 or fp4, got 'nf5'"),
        (gptq(bits=5), "bits of quantization_config must be 2, 3, 4 or 8, got 5"),
        ([4], r"must be names with their values, got '\[4\]'"),
        ({"quant_method": "compressed-tensors"}, "states no config_groups"),
        (
            {
                "quant_method": "compressed-tensors",
                "config_groups": {"a": {"weights": {"num_bits": 4}}, "b": {"weights": {"num_bits": 8}}},
            },
            "quantised by 2 different schemes",
        ),
    ],
)
def test_a_quantisation_that_cannot_be_loaded_is_told_before_anything_else(checkpoints, tmp_path, entry, words):
    folder = with_entry(checkpoints.classifier("llama"), tmp_path / "stored", entry)
    with pytest.raises(ModelError, match=words):
        stored_quantization(folder)
    with pytest.raises(CheckError, match=words):
        ClassifierScorer(str(folder)).check()
    assert ClassifierScorer(str(folder)).shareable


def test_an_expression_in_the_configuration_that_takes_for_ever_is_refused(checkpoints, tmp_path, monkeypatch):
    monkeypatch.setattr("lmsys_ensemble.modeling.patterns.TIME_LIMIT_S", 1.0)
    entry = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "llm_int8_skip_modules": [r"((\w|\.)*)*\$"]}
    folder = with_entry(checkpoints.classifier("llama"), tmp_path / "stored", entry)
    with pytest.raises(ModelError, match="may take for ever"):
        check_stored(folder, "none")


def test_a_head_that_is_quantised_is_refused(checkpoints, tmp_path):
    folder = save_quantised(
        AutoModelForSequenceClassification,
        checkpoints.classifier("llama"),
        tmp_path / "stored",
        "nf4",
        llm_int8_skip_modules=["lm_head"],
    )
    with pytest.raises(ModelError, match=r"the classification head is quantised, too \(score.weight.*skip_modules"):
        assemble(folder, make_recipe(), ComputeSettings(device="cpu"), adapter=None)


def test_plain_models_state_no_quantisation(checkpoints):
    assert stored_quantization(checkpoints.base("llama")) is None
    assert check_stored(checkpoints.base("llama"), "nf4") is None
    assert str(StoredQuantization("gptq", "int8", 8)) == "8-bit gptq"


def test_transformers_reads_the_entry_that_is_checked(stored_base):
    """The method, the kind of 4 bits and the skipped modules are where bitsandbytes' configuration has them."""
    entry = json.loads((stored_base / "config.json").read_text())["quantization_config"]
    assert entry["load_in_4bit"]
    assert entry["bnb_4bit_compute_dtype"] == "float16"
    assert stored_quantization(stored_base) == StoredQuantization("bitsandbytes", "nf4", 4)
