import json
import shutil
import warnings

import numpy as np
import pytest
import torch
from peft import LoraConfig
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file

from lmsys_ensemble.errors import IntegrityError, ModelError
from lmsys_ensemble.modeling import adapters as adapters_module
from lmsys_ensemble.modeling.adapters import attach_adapter, inject_lora, merge_rounding, read_adapter, save_adapter
from lmsys_ensemble.modeling.assembly import assemble
from lmsys_ensemble.modeling.loading import LoadSettings, load_classifier
from lmsys_ensemble.modeling.settings import ComputeSettings
from tests.tiny import encode, make_battles, make_recipe, plain_logits, plain_model
from tests.tiny import save_adapter as save_plain_adapter

HEAD = "base_model.model.score.weight"
LORA_A, LORA_B = (f"base_model.model.model.layers.2.self_attn.v_proj.lora_{side}.weight" for side in "AB")


@pytest.fixture
def folder(checkpoints, tmp_path):
    """Return a copy of an adapter, to be damaged."""
    return shutil.copytree(checkpoints.adapter("llama"), tmp_path / "checkpoint-5748")


@pytest.fixture
def build(checkpoints):
    def build(adapter, **options):
        return assemble(
            checkpoints.base("llama"), make_recipe(), ComputeSettings(device="cpu", **options), adapter=adapter
        )

    return build


def edit_weights(folder, change):
    path = folder / "adapter_model.safetensors"
    weights = load_file(path)
    change(weights)
    save_file(weights, path, metadata={"format": "pt"})


def has_lora_layers(forward):
    return any(isinstance(module, LoraLayer) for module in forward.model.modules())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weights: weights.pop(HEAD), rf"1 missing: {HEAD}.*trained head was not saved"),
        (lambda weights: weights.pop(LORA_A), rf"1 missing: {LORA_A}$"),
        (
            lambda weights: weights.update({"base_model.model.mine": torch.ones(2)}),
            "1 unexpected: base_model.model.mine",
        ),
        (
            lambda weights: weights.update({LORA_B: torch.ones(9, 4)}),
            rf"1 of another shape: {LORA_B} \(got \(9, 4\), expected \(32, 4\)\)",
        ),
        (lambda weights: weights[LORA_B].view(-1)[3].fill_(float("nan")), f"1 not finite: {LORA_B}"),
        (lambda weights: weights[HEAD].view(-1)[3].fill_(float("inf")), f"1 not finite: {HEAD}"),
        (
            lambda weights: weights.update({HEAD: torch.ones(2, 64)}),
            rf"1 of another shape: {HEAD} \(got \(2, 64\), expected \(3, 64\)\)",
        ),
    ],
    ids=["head lost", "LoRA lost", "strange key", "LoRA's shape", "NaN", "infinity", "two classes"],
)
def test_every_tensor_is_accounted_for(folder, build, change, message):
    edit_weights(folder, change)
    with pytest.raises(ModelError, match=message):
        build(folder)


def test_all_faults_are_listed_at_once(folder, build):
    def damage(weights):
        del weights[HEAD]
        weights["base_model.model.mine"] = torch.ones(2)
        weights[LORA_A][:] = float("nan")

    edit_weights(folder, damage)
    with pytest.raises(ModelError) as caught:
        build(folder)
    for said in (f"1 missing: {HEAD}", "1 unexpected: base_model.model.mine", f"1 not finite: {LORA_A}", str(folder)):
        assert said in str(caught.value)


def test_a_pickled_adapter_is_refused_with_the_cure(folder):
    torch.save(load_file(folder / "adapter_model.safetensors"), folder / "adapter_model.bin")
    (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"adapter_model\.bin is a pickle.*lmsys-ensemble import-checkpoint"):
        read_adapter(folder)


@pytest.mark.parametrize("kept", [4, 200, -1])
def test_an_adapter_cut_short_is_named(folder, kept):
    path = folder / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(IntegrityError, match=r"adapter_model\.safetensors is damaged or cut short"):
        read_adapter(folder)


def test_what_is_no_lora_adapter_says_so(folder, tmp_path):
    with pytest.raises(ModelError, match="there is no adapter folder"):
        read_adapter(tmp_path / "nowhere")
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({"peft_type": "IA3", "task_type": "SEQ_CLS"}))
    with pytest.raises(ModelError, match="IA3 adapter; only LoRA adapters"):
        read_adapter(folder)
    path.unlink()
    with pytest.raises(ModelError, match=r"holds no adapter_config\.json"):
        read_adapter(folder)


def test_the_base_that_an_adapter_names_is_not_followed(checkpoints, folder, build):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "base_model_name_or_path": "evil/model"}))
    encoded = encode(make_battles(3))
    expected = plain_logits(plain_model(checkpoints.base("llama"), adapter=checkpoints.adapter("llama")), encoded.ids)
    np.testing.assert_allclose(build(folder, merge=False).score(encoded, 400), expected, atol=1e-5)


def test_an_adapter_for_layers_that_are_not_there_is_refused(folder, checkpoints):
    with pytest.raises(ModelError, match=r"12 unexpected: .*layers\.2"):
        assemble(
            checkpoints.base("llama"), make_recipe(head={"layers": 2}), ComputeSettings(device="cpu"), adapter=folder
        )


def test_an_adapter_for_other_modules_is_refused(folder, build):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "target_modules": ["no_such_proj"]}))
    with pytest.raises(ModelError, match="does not fit LlamaForSequenceClassification"):
        build(folder)


def test_lora_is_merged_where_that_is_exact_enough(checkpoints, folder, build, tmp_path):
    assert not has_lora_layers(build(folder))
    weak = save_plain_adapter(checkpoints.base("llama"), tmp_path / "weak")
    edit_weights(weak, lambda weights: [t.mul_(1e-4) for name, t in weights.items() if "lora_B" in name])
    assert not has_lora_layers(build(weak))
    assert has_lora_layers(build(weak, dtype="bfloat16"))
    assert not has_lora_layers(build(weak, dtype="bfloat16", merge=True))


def test_the_loss_of_merging_is_measured_against_the_update(checkpoints, folder):
    """Equal to computing it by hand from the files."""
    model = load_classifier(checkpoints.base("llama"), LoadSettings(3, "cpu", torch.bfloat16), head_follows=True)
    base = load_file(checkpoints.base("llama") / "model.safetensors")
    weights = load_file(folder / "adapter_model.safetensors")
    worst = 0.0
    for name in weights:
        if "lora_A" in name:
            plain = name.removeprefix("base_model.model.").replace(".lora_A", "")
            low = {side: weights[name.replace("lora_A", f"lora_{side}")].bfloat16() for side in "AB"}
            update = (2.0 * (low["B"] @ low["A"])).float()
            exact = base[plain].bfloat16().float() + update
            lost = (exact.bfloat16().float() - exact).norm() / update.norm()
            worst = max(worst, float(lost))
    adapter = read_adapter(folder)
    wrapped = inject_lora(model, adapter.config)
    from peft.utils import set_peft_model_state_dict

    set_peft_model_state_dict(wrapped, dict(adapter.weights))
    assert merge_rounding(wrapped) == pytest.approx(worst, rel=1e-3)
    assert 0 < worst < 0.05


def test_lora_is_injected_without_a_warning_and_without_a_filter_and_the_model_keeps_its_class(
    checkpoints, folder, monkeypatch
):
    model = plain_model(checkpoints.base("llama"))
    kind, filters = type(model), []
    real = adapters_module.get_peft_model

    def watched(*given, **options):
        filters.append(list(warnings.filters))
        return real(*given, **options)

    monkeypatch.setattr(adapters_module, "get_peft_model", watched)
    before = list(warnings.filters)
    wrapped = inject_lora(model, read_adapter(folder).config)
    assert filters == [before]
    assert type(model) is type(wrapped.get_base_model()) is kind


def test_what_is_saved_is_read_by_peft_alone(checkpoints, tmp_path):
    base, encoded = checkpoints.base("llama"), encode(make_battles(4))
    torch.manual_seed(5)
    model = load_classifier(base, LoadSettings(3, "cpu", torch.float32), head_follows=True)
    wrapped = inject_lora(model, LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj"], layers_to_transform=[1, 3]))
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_B" in name or "modules_to_save" in name:
                parameter.normal_(std=0.3)
    wrapped.eval()
    here = plain_logits(wrapped, encoded.ids)
    save_adapter(wrapped, tmp_path, "org/base")
    assert json.loads((tmp_path / "adapter_config.json").read_text())["base_model_name_or_path"] == "org/base"
    np.testing.assert_allclose(plain_logits(plain_model(base, adapter=tmp_path), encoded.ids), here, atol=1e-6)
    again = attach_adapter(
        load_classifier(base, LoadSettings(3, "cpu", torch.float32), head_follows=True), read_adapter(tmp_path)
    )
    np.testing.assert_allclose(plain_logits(again, encoded.ids), here, atol=1e-5)
