"""An adapter and its base become one folder that plain transformers loads, and that scores as before."""

import json
import shutil

import numpy as np
import pytest
import torch
import yaml
from peft import LoraConfig
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from lmsys_ensemble import ClassifierScorer
from lmsys_ensemble.config import read_config
from lmsys_ensemble.data.corpus import as_labelled
from lmsys_ensemble.errors import CheckError, ConfigError, GoldenError, InputError, ModelError
from lmsys_ensemble.files import read_object, sha256_of, write_json
from lmsys_ensemble.merging import export
from lmsys_ensemble.merging.export import export_merged
from lmsys_ensemble.modeling.adapters import inject_lora
from lmsys_ensemble.modeling.adapters import save_adapter as save_peft
from lmsys_ensemble.modeling.forward import prepare_head
from lmsys_ensemble.modeling.learned_rows import LEARNED_KEY, LearnedRows, SeenRowsWarning, read_learned_rows
from lmsys_ensemble.modeling.loading import LoadSettings, load_classifier
from lmsys_ensemble.modeling.recipe import HeadRecipe, describe_base, read_recipe, write_recipe
from lmsys_ensemble.probabilities import softmax
from lmsys_ensemble.schema import THREE_WAY
from tests.merging.test_compression import NOT_INSTALLED
from tests.tiny import PAD, encode, make_battles, make_recipe, plain_logits, plain_model, save_adapter, save_base
from tests.training.synthetic import make_preferences

FILES = ("adapter_model.safetensors", "adapter_config.json")


def finish(base, folder, **recipe):
    """Put a recipe and a scorer.yaml beside an adapter."""
    described = describe_base(base, base.name).model_dump()
    special = {"pad_token_id": PAD}
    write_recipe(folder, make_recipe(**{"base_model": described, "special_tokens": special, **recipe}), FILES)
    settings = {"type": "classifier", "model": str(base), "adapter": "."}
    (folder / "scorer.yaml").write_text(yaml.safe_dump(settings))
    return folder


def make_trained(base, folder, *, pooling="last_token", layers=None, spread=0.2, **lora):
    """Save an adapter with any LoRA settings and a head on any pooling."""
    torch.manual_seed(5)
    model = load_classifier(base, LoadSettings(3, "cpu", torch.float32, n_layers=layers), head_follows=True)
    prepare_head(model, HeadRecipe(pooling=pooling), 3)
    wrapped = inject_lora(
        model, LoraConfig(**{"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"], **lora})
    )
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_B" in name or ("modules_to_save" in name and "weight" in name):
                parameter.normal_(std=spread)
    save_peft(wrapped, folder, base.name)
    return finish(base, folder, head={"pooling": pooling, "layers": layers})


@pytest.fixture(scope="module")
def trained(checkpoints, tmp_path_factory):
    """Return a function that gives base and adapter of an architecture."""

    def make(architecture):
        base = checkpoints.base(architecture)
        folder = tmp_path_factory.mktemp("trained") / f"{architecture}-adapter"
        return base, finish(base, save_adapter(base, folder, seed=3))

    return make


@pytest.mark.parametrize("architecture", ["llama", "gemma2", "modernbert"])
def test_plain_transformers_loads_the_folder_and_gives_the_adapters_logits(trained, tmp_path, architecture):
    base, adapter = trained(architecture)
    done = export_merged(adapter, tmp_path / "merged", device="cpu")
    assert (done.dtype, done.files) == ("float32", ["model.safetensors"])
    encoded = encode(make_battles(8))
    expected = plain_logits(plain_model(base, adapter=adapter), encoded.ids)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged").eval()
    assert model.config.id2label == {0: "model_a", 1: "model_b", 2: "tie"}
    scale = np.abs(expected).max()
    np.testing.assert_allclose(plain_logits(model, encoded.ids), expected, rtol=0, atol=1e-5 * scale)
    with ClassifierScorer(str(tmp_path / "merged"), device="cpu") as scorer:
        scorer.check()
        np.testing.assert_allclose(scorer.score(make_battles(8)), expected, rtol=0, atol=1e-5 * scale)
    assert list(tmp_path.iterdir()) == [tmp_path / "merged"]


def test_the_folder_says_where_it_comes_from_and_can_be_scored_with_by_its_yaml(trained, tmp_path):
    base, adapter = trained("llama")
    folder = tmp_path / "merged"
    export_merged(adapter, folder, device="cpu")
    recipe = read_recipe(folder)
    assert recipe.base_model.name == base.name
    assert recipe.training["export"]["adapter_sha256"] == sha256_of(adapter / FILES[0])
    assert recipe.training["export"]["golden_difference"] < 1e-5
    assert (folder / "tokenizer.json").read_bytes() == (base / "tokenizer.json").read_bytes()
    (tmp_path / "ensemble.yaml").write_text(yaml.safe_dump({"version": 1, "scorers": ["merged/scorer.yaml"]}))
    ((scorer,), _, _) = read_config(tmp_path / "ensemble.yaml")
    assert (scorer.name, scorer.adapter) == ("merged", None)
    assert str(tmp_path) not in (folder / "scorer.yaml").read_text()
    assert "the logits are the same" in (folder / "README.md").read_text()


@pytest.mark.parametrize("lora", [{"use_dora": True}, {"use_rslora": True, "target_modules": ["down_proj", "o_proj"]}])
def test_other_kinds_of_updates_are_added_up_by_peft(checkpoints, tmp_path, lora):
    base = checkpoints.base("llama")
    adapter = make_trained(base, tmp_path / "adapter", **lora)
    export_merged(adapter, tmp_path / "merged", device="cpu")
    ids = encode(make_battles(4)).ids
    expected = plain_logits(plain_model(base, adapter=adapter), ids)
    found = plain_logits(plain_model(tmp_path / "merged"), ids)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_a_head_on_response_spans_and_fewer_layers_load_through_the_scorer(checkpoints, tmp_path):
    base, battles = checkpoints.base("gemma2"), make_battles(6)
    adapter = make_trained(base, tmp_path / "adapter", pooling="response_spans", layers=3)
    export_merged(adapter, tmp_path / "merged", device="cpu")
    with ClassifierScorer(str(base), adapter=str(adapter), device="cpu") as scorer:
        expected = scorer.score(battles)
    merged = ClassifierScorer(str(tmp_path / "merged"), device="cpu")
    merged.check()
    with merged:
        np.testing.assert_allclose(merged.score(battles), expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    assert read_object(tmp_path / "merged" / "config.json")["num_hidden_layers"] == 3
    assert not any(".layers.3." in name for name in load_file(tmp_path / "merged" / "model.safetensors"))
    assert "Not with transformers alone" in (tmp_path / "merged" / "README.md").read_text()


def test_a_head_of_another_width_than_the_recipe_says_is_found_without_loading(checkpoints, tmp_path):
    adapter = make_trained(checkpoints.base("llama"), tmp_path / "adapter")
    export_merged(adapter, tmp_path / "merged", device="cpu")
    recipe = read_object(tmp_path / "merged" / "recipe.json")
    write_json(tmp_path / "merged" / "recipe.json", {**recipe, "head": {"pooling": "response_spans"}})
    scorer = ClassifierScorer(str(tmp_path / "merged"), device="cpu")
    with pytest.raises(CheckError, match=r"score.weight takes 64 values, a head on response_spans is given 131"):
        scorer.check()
    with pytest.raises(ModelError, match=r"1 missing: score\.bias; 1 of another shape: score\.weight \(got \(3, 64\)"):
        scorer.load("cpu")


def test_a_base_in_half_precision_stays_so_but_the_head_keeps_its_digits(tmp_path):
    base = save_base("llama", tmp_path / "base", initializer_range=0.05)
    AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16).save_pretrained(base)
    adapter = finish(base, save_adapter(base, tmp_path / "adapter", spread=0.05))
    done = export_merged(adapter, tmp_path / "merged", device="cpu")
    assert done.dtype == "bfloat16"
    stored = load_file(tmp_path / "merged" / "model.safetensors")
    head = stored.pop("score.weight")
    assert head.dtype == torch.float32
    assert {tensor.dtype for tensor in stored.values()} == {torch.bfloat16}
    with ClassifierScorer(str(tmp_path / "merged"), device="cpu", dtype="bfloat16") as scorer:
        assert torch.equal(scorer._forward.model.score.weight, head)
    # added up in float32, and rounded once
    name = "model.layers.1.self_attn.q_proj.weight"
    parts = load_file(adapter / FILES[0])
    prefix = f"base_model.model.{name.removesuffix('.weight')}.lora_"
    exact = load_file(base / "model.safetensors")[name].float() + 2 * (
        parts[f"{prefix}B.weight"] @ parts[f"{prefix}A.weight"]
    )
    assert torch.equal(stored[name], exact.to(torch.bfloat16))


def test_large_models_are_written_in_several_files(trained, tmp_path, monkeypatch):
    base, adapter = trained("llama")
    monkeypatch.setattr(export, "SHARD_BYTES", 100_000)
    done = export_merged(adapter, tmp_path / "merged", device="cpu")
    assert len(done.files) > 3
    assert done.files[0] == f"model-00001-of-{len(done.files):05d}.safetensors"
    index = json.loads((tmp_path / "merged" / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"].values()) == set(done.files)
    ids = encode(make_battles(3)).ids
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged").eval()
    expected = plain_logits(plain_model(base, adapter=adapter), ids)
    np.testing.assert_allclose(plain_logits(model, ids), expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_the_merged_model_is_measured_against_the_unmerged_one(tmp_path):
    """Log losses and accuracies are those that scorers of both give; the rows that were learned from are told."""
    pytest.importorskip("compressed_tensors", reason=NOT_INSTALLED)
    base = save_base("llama", tmp_path / "base", initializer_range=0.05)
    adapter = make_trained(base, tmp_path / "adapter", spread=0.1)
    table = make_preferences(40, 3)
    table.to_parquet(tmp_path / "held.parquet")
    data = as_labelled(table, THREE_WAY)
    recipe = read_recipe(adapter)
    digest = LearnedRows.of(data.battles.take(np.arange(3))).write(adapter)
    write_recipe(adapter, recipe.model_copy(update={"training": {LEARNED_KEY: digest}}), FILES)
    folder, files = tmp_path / "merged", [tmp_path / "held.parquet"]
    with pytest.warns(SeenRowsWarning, match="adapter has learned from 3 of the 40 rows that are measured on"):
        done = export_merged(adapter, folder, quantization="w4a16", rows=files, device="cpu")
    losses, right = [], []
    for scorer in (ClassifierScorer(str(base), adapter=str(adapter)), ClassifierScorer(str(folder))):
        with scorer:
            probabilities = softmax(scorer.score(data.battles))
        losses.append(-np.log((data.labels * probabilities).sum(axis=1)))
        right.append(probabilities.argmax(axis=1) == data.labels.argmax(axis=1))
    figures = done.figures
    assert list(figures["log_loss"]) == list(figures["accuracy"]) == ["unmerged", "merged"]
    assert list(figures["log_loss"].values()) == pytest.approx([loss.mean() for loss in losses], abs=1e-4)
    assert list(figures["accuracy"].values()) == pytest.approx([share.mean() for share in right], abs=1e-4)
    assert figures["difference"] == pytest.approx((losses[1] - losses[0]).mean(), abs=2e-5)
    assert figures["difference"] != 0
    low, high = figures["difference_interval"]
    assert low <= figures["difference"] <= high
    assert read_recipe(folder).validation == figures
    assert "Merged minus unmerged, on the same rows: log loss" in (folder / "README.md").read_text()
    assert read_learned_rows(folder, read_recipe(folder)).find(data.battles)[0].sum() == 3


@pytest.mark.parametrize(("quantization", "farthest"), [("int8", 0.02), ("w4a16", 0.2)])
@pytest.mark.parametrize("pooling", ["last_token", "response_spans"])
def test_rounded_weights_score_nearly_as_before_packed_and_in_plain_transformers(
    tmp_path, quantization, farthest, pooling
):
    pytest.importorskip("compressed_tensors", reason=NOT_INSTALLED)
    base = save_base("llama", tmp_path / "base", initializer_range=0.05)
    adapter = make_trained(base, tmp_path / "adapter", pooling=pooling, spread=0.05)
    folder, battles = tmp_path / "merged", make_battles(6)
    export_merged(adapter, folder, quantization=quantization, device="cpu")
    stored = load_file(folder / "model.safetensors")
    assert stored["model.layers.0.mlp.up_proj.weight_packed"].dtype == torch.int32
    assert stored["score.weight"].dtype == torch.float32
    assert read_object(folder / "config.json")["quantization_config"]["ignore"] == ["score"]
    assert stored["model.embed_tokens.weight"].dtype == torch.float32
    with ClassifierScorer(str(base), adapter=str(adapter), device="cpu") as scorer:
        expected = softmax(scorer.score(battles))
    small = ClassifierScorer(str(folder), device="cpu")
    small.check()
    assert small.shareable
    with small:
        assert small._forward.layout.startswith("packed")
        logits = small.score(battles)
    assert 1e-5 < np.abs(softmax(logits) - expected).max() < farthest
    if pooling == "last_token":
        model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
        np.testing.assert_allclose(plain_logits(model, encode(battles).ids), logits, rtol=0, atol=1e-5)
    with pytest.raises(CheckError, match=r"contradicts .* stored as [48]-bit compressed-tensors"):
        ClassifierScorer(str(folder), device="cpu", quantization="nf4").check()


def test_golden_rows_that_come_out_otherwise_leave_nothing_behind(trained, tmp_path):
    _, adapter = trained("llama")
    copy = shutil.copytree(adapter, tmp_path / "adapter")
    export_merged(adapter, tmp_path / "merged", device="cpu")
    golden = read_object(tmp_path / "merged" / "golden.json")
    for row in golden["rows"]:
        row["logits"] = row["logits"][::-1]
    write_json(copy / "golden.json", golden)
    with pytest.raises(GoldenError, match=r"merged model's probabilities differ by .* nothing was written"):
        export_merged(copy, tmp_path / "other", device="cpu")
    assert not (tmp_path / "other").exists()
    assert len(list(tmp_path.iterdir())) == 2


def test_an_adapter_without_a_recipe_and_a_base_that_is_stored_quantised_are_refused(trained, checkpoints, tmp_path):
    base, adapter = trained("llama")
    with pytest.raises(ConfigError, match=r"holds no recipe.json"):
        export_merged(checkpoints.adapter("llama"), tmp_path / "out", device="cpu")
    small = shutil.copytree(base, tmp_path / "small")
    entry = {"quantization_config": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}}
    write_json(small / "config.json", {**read_object(small / "config.json"), **entry})
    with pytest.raises(ConfigError, match="is stored as 4-bit bitsandbytes, and merging would round"):
        export_merged(adapter, tmp_path / "out", base=str(small), device="cpu")
    with pytest.raises(ConfigError, match="is not the base model of"):
        export_merged(adapter, tmp_path / "out", base=str(checkpoints.base("gemma2")), device="cpu")
    with pytest.raises(InputError, match="is a file, expected a folder"):
        export_merged(adapter, small / "config.json", device="cpu")
    assert not (tmp_path / "out").exists()
