"""What is found wrong with a classifier before its weights are loaded."""

import json
import shutil

import huggingface_hub.constants
import pytest
import torch
from safetensors.torch import load_file, save_file

from lmsys_ensemble.ensemble import Ensemble
from lmsys_ensemble.errors import CheckError, ConfigError, ModelError
from lmsys_ensemble.modeling import assembly
from lmsys_ensemble.modeling.recipe import describe_base, write_recipe
from lmsys_ensemble.scorers.classifier import ClassifierScorer
from lmsys_ensemble.scorers.gemma import GemmaScorer
from lmsys_ensemble.scorers.llama import LlamaScorer
from tests.tiny import make_battles, make_recipe, save_base, save_classifier

KINDS = {"llama": LlamaScorer, "gemma2": GemmaScorer, "gemma3": GemmaScorer, "modernbert": ClassifierScorer}
HEAD = "base_model.model.score.weight"
LORA_A = "base_model.model.model.layers.2.self_attn.v_proj.lora_A.weight"


@pytest.fixture
def base(checkpoints, tmp_path):
    return shutil.copytree(checkpoints.base("llama"), tmp_path / "base")


@pytest.fixture
def adapter(checkpoints, tmp_path):
    return shutil.copytree(checkpoints.adapter("llama"), tmp_path / "adapter")


@pytest.fixture(autouse=True)
def _nothing_is_loaded(monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(assembly, "load_classifier", lambda *_, **__: pytest.fail("weights were loaded"))
    monkeypatch.setenv("LMSYS_ENSEMBLE_CACHE", str(tmp_path / "cache"))


def edit_json(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def edit_weights(path, change):
    weights = load_file(path)
    change(weights)
    save_file(weights, path, metadata={"format": "pt"})


@pytest.mark.parametrize("architecture", KINDS)
def test_what_is_right_passes(checkpoints, architecture):
    kind, base = KINDS[architecture], str(checkpoints.base(architecture))
    settings = {"device": "cpu", "max_tokens": 120}
    kind(base, adapter=str(checkpoints.adapter(architecture)), **settings).check()
    kind(str(checkpoints.classifier(architecture)), **settings).check()
    kind(base, adapter=str(checkpoints.adapter(architecture)), quantization="nf4", device="cuda:7").check()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"dtype": "float23"}, r"unknown dtype 'float23' \(did you mean 'float32'\?\)"),
        ({"quantization": "nf5"}, r"unknown quantization 'nf5' \(did you mean 'nf4'\?\)"),
        ({"device": "gpu:0"}, "unknown device 'gpu:0'; a device is called auto, cpu, cuda:0"),
        ({"device": 0}, "unknown device 0"),
        ({"attn_implementation": "evil/kernel"}, "'evil/kernel' names code on the Hub"),
        ({"merge": True, "quantization": "nf4"}, "merge=True on a base with quantization='nf4'"),
        ({"other_base": "mesure"}, r"unknown other_base 'mesure' \(did you mean 'measure'\?\)"),
        ({"tokens_per_batch": 0}, "tokens_per_batch must be a whole number above 0, got 0"),
        ({"template": "turn"}, r"unknown template 'turn' \(did you mean 'turns'\?\)"),
        ({"truncation": "tial"}, "truncation: .*balanced"),
        ({"max_tokens": 3}, "max_tokens: .*greater than or equal to 8"),
        ({"max_tokens": 10}, "max_tokens=10 is too short: template 'kaggle-llama'"),
        ({"model": "models/absent"}, "no folder here: 'models/absent'"),
        ({"model": "bundled:smollm"}, "no bundled model 'smollm'"),
        ({"adapter": "absent"}, "there is no adapter folder absent"),
        ({"adapter": None}, "has no trained classification head; give adapter="),
    ],
)
def test_settings_are_checked(base, adapter, settings, words):
    scorer = LlamaScorer(**{"model": str(base), "adapter": str(adapter), "device": "cpu", **settings})
    with pytest.raises(CheckError, match=words):
        scorer.check()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda base, _: (base / "config.json").unlink(), r"holds no config\.json"),
        (lambda base, _: (base / "model.safetensors").unlink(), r"holds no \*\.safetensors"),
        (lambda base, _: (base / "model.safetensors").write_bytes(b"\x10"), "is damaged or cut short"),
        (lambda base, _: (base / "tokenizer.json").write_text("{"), "holds no tokenizer that can be loaded"),
        (lambda base, _: edit_json(base / "config.json", hidden_size=128), r"has shape \(400, 64\), .* \(400, 128\)"),
        (lambda base, _: edit_json(base / "config.json", model_type="gemma2"), "is a 'gemma2' model. Use Classifier"),
        (lambda base, _: edit_json(base / "config.json", model_type="nothing"), "is a 'nothing' model"),
        (
            lambda base, _: edit_json(base / "config.json", hidden_act="x"),
            "no classifier that can be built: KeyError: 'x'",
        ),
        (lambda base, _: edit_json(base / "config.json", rope_parameters={"rope_type": "x"}), "that can be built"),
        (lambda base, _: edit_json(base / "config.json", pad_token_id=999), "can be built: Padding_idx must be within"),
        (
            lambda base, _: edit_json(base / "config.json", text_config="x"),
            "text_config must be names with their values",
        ),
        (lambda base, _: edit_json(base / "config.json", rms_norm_eps="x"), r"config\.json is none .*'rms_norm_eps'"),
        (lambda base, _: edit_json(base / "config.json", to_dict=1), r"config\.json is none that transformers reads"),
        (lambda _, adapter: (adapter / "adapter_config.json").unlink(), r"holds no adapter_config\.json"),
        (lambda _, adapter: (adapter / "adapter_model.safetensors").unlink(), "holds no adapter_model"),
        (lambda _, adapter: edit_json(adapter / "adapter_config.json", r=8), "rank of 8, but its largest .* rank 4"),
        (lambda _, adapter: edit_json(adapter / "adapter_config.json", target_modules=["x"]), "does not fit"),
        (
            lambda _, adapter: edit_json(adapter / "adapter_config.json", lora_dropout="x"),
            "does not fit .*'>'",
        ),
        (lambda _, adapter: edit_json(adapter / "adapter_config.json", arrow_config={"top_k": 3}), "does not fit"),
        (lambda _, adapter: (adapter / "recipe.json").write_text("{}"), "base_model: Field required"),
        (lambda _, adapter: (adapter / "golden.json").write_text("{}"), "golden.json: .*rows: Field required"),
    ],
)
def test_files_are_checked(base, adapter, damage, words):
    damage(base, adapter)
    with pytest.raises(CheckError, match=words):
        LlamaScorer(str(base), adapter=str(adapter), device="cpu").check()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda weights: weights.pop(HEAD), "holds no classification head .*it was not saved"),
        (lambda weights: weights.pop(LORA_A), f"1 missing: {LORA_A}"),
        (
            lambda weights: weights.update({"base_model.model.mine": torch.ones(2)}),
            "1 unexpected: base_model.model.mine",
        ),
        (lambda weights: weights.update({LORA_A: torch.ones(4, 65)}), r"1 of another shape: .*got \(4, 65\)"),
        (lambda weights: weights.update({HEAD: torch.ones(2, 64)}), r"got \(2, 64\), expected \(3, 64\)"),
    ],
)
def test_the_tensors_of_an_adapter_are_accounted_for_by_its_header(base, adapter, change, words):
    edit_weights(adapter / "adapter_model.safetensors", change)
    with pytest.raises(CheckError, match=words):
        LlamaScorer(str(base), adapter=str(adapter), device="cpu").check()


def test_an_adapter_without_its_head_is_told_even_where_the_base_is_not_here(adapter):
    scorer = GemmaScorer("google/gemma-2-9b-it", revision="abc123", adapter=str(adapter), device="cpu")
    scorer.check()  # nothing of the base can be known yet
    edit_weights(adapter / "adapter_model.safetensors", lambda weights: weights.pop(HEAD))
    for model, revision in (("google/gemma-2-9b-it", "abc123"), ("bundled:gemma-3-270m", None)):
        with pytest.raises(CheckError, match="holds no classification head"):
            GemmaScorer(model, revision=revision, adapter=str(adapter), device="cpu").check()


def test_the_number_of_labels_of_a_classifier_is_read_off_its_head(tmp_path):
    folder = save_classifier("llama", tmp_path / "two", num_labels=2)
    with pytest.raises(CheckError, match=r"score\.weight is for 2 classes, expected 3"):
        LlamaScorer(str(folder), device="cpu").check()


def test_another_base_and_too_few_layers_are_told(tmp_path, adapter, base):
    recipe = make_recipe(base_model=describe_base(base, "tiny").model_dump(), head={"layers": 4})
    write_recipe(adapter, recipe, ("adapter_model.safetensors",))
    LlamaScorer(str(base), adapter=str(adapter), device="cpu").check()
    other = save_base("llama", tmp_path / "other", num_hidden_layers=3)
    with pytest.raises(CheckError) as caught:
        LlamaScorer(str(other), adapter=str(adapter), device="cpu").check()
    assert "has 3 layers, 4 are asked for" in str(caught.value)
    assert "is not the base model of" in str(caught.value)


def test_all_faults_of_all_scorers_are_listed_before_anything_is_loaded(base, adapter):
    edit_weights(adapter / "adapter_model.safetensors", lambda weights: weights.pop(HEAD))
    scorers = [
        LlamaScorer(str(base), adapter=str(adapter), dtype="half", quantization="nf5", name="one"),
        GemmaScorer("./absent", adapter="nowhere", name="two"),
    ]
    with pytest.raises(CheckError) as caught:
        Ensemble(scorers).predict(make_battles(3))
    assert isinstance(caught.value, ConfigError)
    assert isinstance(caught.value, ModelError)
    assert len(caught.value.faults) == 5
    for said in (
        "5 things are wrong:\n",
        "scorer 'one': unknown dtype 'half'",
        "scorer 'one': unknown quantization 'nf5'",
        "scorer 'one': " + str(adapter) + " holds no classification head",
        "scorer 'two': no folder here: './absent'",
        "scorer 'two': there is no adapter folder nowhere",
    ):
        assert said in str(caught.value)


def test_a_loaded_scorer_has_nothing_left_to_check(base, adapter, monkeypatch):
    monkeypatch.undo()
    with LlamaScorer(str(base), adapter=str(adapter), device="cpu") as scorer:
        shutil.rmtree(base)
        scorer.check()
    with pytest.raises(CheckError, match="no folder here"):
        scorer.check()


def test_weights_from_elsewhere_than_the_file_that_the_recipe_names_are_told(adapter, base):
    manifest = base / "manifest.json"
    manifest.write_text(json.dumps({"gguf_sha256": "a" * 64}))
    recipe = make_recipe(base_model=describe_base(base, "bundled:tiny").model_dump())
    write_recipe(adapter, recipe, ("adapter_model.safetensors",))
    LlamaScorer(str(base), adapter=str(adapter), device="cpu").check()
    manifest.write_text(json.dumps({"gguf_sha256": "b" * 64}))
    with pytest.raises(
        CheckError, match=r"file with sha256 a{12}…; .* holds those of the file b{12}…\. Give that base"
    ):
        LlamaScorer(str(base), adapter=str(adapter), device="cpu").check()
    with pytest.raises(CheckError, match=r"without golden\.json there is nothing to measure the difference by"):
        LlamaScorer(str(base), adapter=str(adapter), device="cpu", other_base="measure").check()
