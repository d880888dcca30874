"""The mean of LoRA adapters against PEFT's own updates: ranks, scalings and modules differ."""

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from transformers import AutoModelForSequenceClassification

from lmsys_ensemble.errors import ModelError
from lmsys_ensemble.merging.averaging import Update, average, check_can_average, reduce_rank
from lmsys_ensemble.modeling.adapters import Adapter, read_adapter
from tests.tiny import plain_model

WEIGHTS = [0.5, 0.2, 0.3]
KINDS = [
    {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj", "o_proj"]},
    {"r": 3, "lora_alpha": 16, "use_rslora": True, "target_modules": ["q_proj", "up_proj"]},
    {
        "r": 2,
        "lora_alpha": 5,
        "target_modules": ["q_proj", "embed_tokens"],
        "rank_pattern": {"layers.1.self_attn.q_proj": 5},
        "alpha_pattern": {"layers.2.self_attn.q_proj": 7},
    },
]


def save(base, folder, seed, **settings):
    torch.manual_seed(seed)
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=3)
    wrapped = get_peft_model(model, LoraConfig(task_type="SEQ_CLS", **settings))
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_" in name or "modules_to_save" in name:
                parameter.normal_(std=0.2)
    wrapped.save_pretrained(folder, save_embedding_layers=False)
    return folder


@pytest.fixture(scope="module")
def folders(checkpoints, tmp_path_factory):
    """Return folders of adapters that differ in rank, alpha, scaling, modules and layers."""
    folder = tmp_path_factory.mktemp("parts")
    return [save(checkpoints.base("llama"), folder / f"fold-{k}", k, **kind) for k, kind in enumerate(KINDS)]


def deltas(base, folder):
    """Return PEFT's dense updates of every module, and the head."""
    model = plain_model(base)
    wrapped = PeftModel.from_pretrained(model, folder)
    found = {
        name.removeprefix("base_model.model."): layer.get_delta_weight("default").detach()
        for name, layer in wrapped.named_modules()
        if isinstance(layer, LoraLayer)
    }
    return found, wrapped.get_base_model().score.modules_to_save["default"].weight.detach()


def written(averaged, folder):
    from safetensors.torch import save_file

    folder.mkdir()
    averaged.config.save_pretrained(str(folder))
    save_file(averaged.weights, folder / "adapter_model.safetensors")
    return folder


def test_the_exact_mean_is_the_mean_of_peft_updates_and_heads(checkpoints, folders, tmp_path):
    base = checkpoints.base("llama")
    averaged = average([read_adapter(folder) for folder in folders], WEIGHTS)
    merged, head = deltas(base, written(averaged, tmp_path / "merged"))
    parts = [deltas(base, folder) for folder in folders]
    assert merged.keys() == set().union(*(updates for updates, _ in parts))
    for name, update in merged.items():
        expected = sum(
            weight * updates.get(name, torch.zeros_like(update))
            for weight, (updates, _) in zip(WEIGHTS, parts, strict=True)
        )
        torch.testing.assert_close(update, expected, rtol=0, atol=1e-6)
    expected = sum(weight * other for weight, (_, other) in zip(WEIGHTS, parts, strict=True))
    torch.testing.assert_close(head, expected, rtol=0, atol=1e-6)
    assert averaged.lost == 0
    assert averaged.config.r == averaged.largest_rank == 4 + 3 + 5


def test_a_mean_of_alike_adapters_keeps_their_choice_of_modules(checkpoints, tmp_path):
    kind = {"r": 2, "target_modules": ["q_proj", "o_proj"], "layers_to_transform": [1, 3], "layers_pattern": "layers"}
    parts = [read_adapter(save(checkpoints.base("llama"), tmp_path / str(seed), seed, **kind)) for seed in range(2)]
    config = average(parts, [0.5, 0.5]).config
    assert (config.r, config.lora_alpha, config.rank_pattern) == (4, 4, {})
    assert set(config.target_modules) == {"q_proj", "o_proj"}
    assert config.layers_to_transform == [1, 3]


@pytest.mark.parametrize("rank", [1, 4, 9])
def test_a_smaller_rank_loses_what_no_other_of_that_rank_could_keep(checkpoints, folders, tmp_path, rank):
    base, adapters = checkpoints.base("llama"), [read_adapter(folder) for folder in folders]
    exact, _ = deltas(base, written(average(adapters, WEIGHTS), tmp_path / "exact"))
    averaged = average(adapters, WEIGHTS, rank)
    reduced, _ = deltas(base, written(averaged, tmp_path / "reduced"))
    cut, total = 0.0, 0.0
    for name, update in exact.items():
        singular = torch.linalg.svdvals(update.double())
        optimum = float(singular[rank:].norm())
        assert float((reduced[name].double() - update.double()).norm()) == pytest.approx(optimum, abs=1e-5)
        cut, total = cut + optimum**2, total + float(singular.norm()) ** 2
    assert averaged.lost == pytest.approx((cut / total) ** 0.5, abs=1e-6)
    assert averaged.largest_rank == rank


def test_a_reduced_rank_never_needs_a_matrix_of_the_size_of_the_base():
    """A dense update of these sides would take 80 TB."""
    torch.manual_seed(0)
    n = 50_000
    update = Update(torch.randn(n, 3, dtype=torch.float64), torch.randn(3, 4 * n, dtype=torch.float64))
    reduced, lost, size = reduce_rank(update, 2)
    assert reduced.up.shape == (n, 2)
    assert reduced.down.shape == (2, 4 * n)
    assert 0 < lost < size


def test_adapters_that_change_nothing_yet_have_a_mean(checkpoints, tmp_path):
    base = checkpoints.base("llama")
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=3)
    wrapped = get_peft_model(model, LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["q_proj"]))
    wrapped.save_pretrained(tmp_path / "fresh", save_embedding_layers=False)
    fresh = read_adapter(tmp_path / "fresh")
    averaged = average([fresh, fresh], [0.5, 0.5], 1)
    assert averaged.lost == 0
    updates, _ = deltas(base, written(averaged, tmp_path / "merged"))
    assert all(not update.any() for update in updates.values())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"use_dora": True}, "use_dora is set"),
        ({"lora_bias": True}, "lora_bias is set"),
        ({"init_lora_weights": "pissa"}, "'pissa' changes the base's weights"),
        ({"bias": "all"}, "biases"),
    ],
)
def test_updates_that_are_no_products_of_two_matrices_are_refused(tmp_path, settings, words):
    config = LoraConfig(task_type="SEQ_CLS", target_modules=["q_proj"], **settings)
    with pytest.raises(ModelError, match=words):
        check_can_average(Adapter(tmp_path, config, {}))


def test_numbers_that_are_not_finite_are_found_in_the_adapter_that_holds_them(folders):
    adapter = read_adapter(folders[0])
    name = next(iter(adapter.weights))
    adapter.weights[name][0, 0] = np.nan
    with pytest.raises(ModelError, match=r"fold-0 holds numbers that are not finite: base_model"):
        average([adapter, read_adapter(folders[1])], [0.5, 0.5])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda tensors: {**tensors, "base_model.model.score.weight": torch.zeros(2, 64)}, "heads of different shapes"),
        (
            lambda tensors: {**tensors, "base_model.model.score.bias": torch.zeros(3)},
            r"score.bias is absent and \(3,\)",
        ),
        (lambda tensors: {k: v for k, v in tensors.items() if "0.self_attn.q_proj.lora_B" not in k}, "lacks one of"),
        (
            lambda tensors: {k: v[:2] if "q_proj.lora_A" in k else v for k, v in tensors.items()},
            r"ranks 2 and 4, adapter_config.json says 4",
        ),
        (
            lambda tensors: {k: v[:, :10] if "q_proj.lora_A" in k else v for k, v in tensors.items()},
            r"updates of model.layers.0.self_attn.q_proj have shapes \[\(64, 10\), \(64, 64\)\]",
        ),
    ],
)
def test_adapters_that_do_not_fit_each_other_are_told_apart(folders, change, words):
    first, second = read_adapter(folders[0]), read_adapter(folders[0])
    with pytest.raises(ModelError, match=words):
        average([first, Adapter(second.folder, second.config, change(dict(second.weights)))], [0.5, 0.5])
