import numpy as np
import pytest
import torch
from peft import LoraConfig

from lmsys_ensemble.data.battles import parse_battles
from lmsys_ensemble.data.labels import parse_labels
from lmsys_ensemble.modeling.adapters import inject_lora
from lmsys_ensemble.modeling.forward import ForwardPass, prepare_head
from lmsys_ensemble.modeling.loading import LoadSettings, load_classifier
from lmsys_ensemble.modeling.recipe import HeadRecipe
from lmsys_ensemble.probabilities import softmax
from lmsys_ensemble.training.examples import Examples
from lmsys_ensemble.training.fit import fit_lora
from lmsys_ensemble.training.model import arithmetic, trained_head
from lmsys_ensemble.training.settings import TrainSettings
from tests.tiny import PAD, encode, make_recipe
from tests.training.synthetic import make_preferences

CHANCE = 1.0397  # entropy of the labels: a quarter, a quarter, a half


def make_settings(first_layer=0, **changes):
    values = {
        "name": "tiny",
        "scorer": "llama",
        "base_model": "tiny",
        "data": {"files": []},
        "lora": {"r": 4, "alpha": 8, "dropout": 0.0, "first_layer": first_layer},
        "optimizer": {"head_l2": None, "epochs": 5, "learning_rate": 5e-3, "head_learning_rate": 2e-2},
        "autocast": "float32",
    }
    return TrainSettings.model_validate({**values, **changes})


@pytest.fixture
def make_model(checkpoints):
    """Return a function that makes a PEFT model as training does."""

    def make(architecture, pooling, first_layer, dtype=torch.float32):
        base = checkpoints.base(architecture)  # made on first use, with random numbers
        torch.manual_seed(0)
        model = load_classifier(base, LoadSettings(3, "cpu", dtype), head_follows=True)
        prepare_head(model, HeadRecipe(pooling=pooling), 3)
        torch.nn.init.normal_(model.score.weight, std=0.01)
        config = LoraConfig(
            r=4,
            lora_alpha=8,
            target_modules=["q_proj", "k_proj", "v_proj", "o_proj"],
            layers_to_transform=list(range(first_layer, 4)),
            layers_pattern="layers",
        )
        return inject_lora(model, config)

    return make


def make_examples(n_rows=200, seed=0, weights=None):
    table = make_preferences(n_rows, seed)
    encoded = encode(parse_battles(table), max_tokens=160)
    return Examples(encoded, parse_labels(table), np.ones(n_rows) if weights is None else weights)


@pytest.mark.parametrize("first_layer", [0, 2])
@pytest.mark.parametrize(
    ("architecture", "pooling"), [("llama", "response_spans"), ("llama", "last_token"), ("gemma2", "response_spans")]
)
def test_a_preference_is_learned_and_only_the_adapter_and_the_head_change(
    make_model, architecture, pooling, first_layer
):
    wrapped = make_model(architecture, pooling, first_layer)
    before = {name: tensor.clone() for name, tensor in wrapped.state_dict().items()}
    recipe = make_recipe(head={"pooling": pooling}, special_tokens={"pad_token_id": PAD})
    examples, unseen = make_examples(), make_examples(80, seed=1)

    losses = fit_lora(wrapped, recipe, make_settings(first_layer), examples).losses

    assert len(losses) == 5
    assert losses[0] < 1.3 * CHANCE
    assert losses[-1] < (0.5 if pooling == "response_spans" else 0.95) * CHANCE
    changed = {name for name, tensor in wrapped.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed
    assert all("lora_" in name or "modules_to_save" in name for name in changed)
    layers = {int(name.split("layers.")[1].split(".")[0]) for name in changed if "lora_B" in name}
    assert layers == set(range(first_layer, 4))
    forward = ForwardPass(wrapped.get_base_model(), pooling, PAD)
    probabilities = softmax(forward.score(unseen.encoded, 1000))
    loss = -(unseen.labels * np.log(probabilities)).sum(axis=1).mean()
    assert loss < (0.7 if pooling == "response_spans" else 1.0) * CHANCE


def test_the_head_alone_is_the_logistic_regression_on_frozen_states(make_model):
    """Zero epochs leave the layers as they are; the head reaches what no small change of it improves."""
    wrapped = make_model("llama", "response_spans", 2)
    recipe = make_recipe(head={"pooling": "response_spans"}, special_tokens={"pad_token_id": PAD})
    examples = make_examples(200)
    settings = make_settings(2, optimizer={"head_l2": 1e-3, "epochs": 0})
    assert fit_lora(wrapped, recipe, settings, examples).losses == []
    forward = ForwardPass(wrapped.get_base_model(), "response_spans", PAD)

    def loss():
        return -(examples.labels * np.log(softmax(forward.score(examples.encoded, 1000)))).sum(axis=1).mean()

    best = loss()
    assert best < 0.6 * CHANCE
    head = trained_head(wrapped.get_base_model())
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        shift = 0.1 * torch.randn(head.bias.shape, generator=generator)
        with torch.no_grad():
            head.bias += shift
            assert loss() > best
            head.bias -= shift


def test_rows_of_weight_zero_teach_nothing(make_model):
    recipe = make_recipe(head={"pooling": "response_spans"}, special_tokens={"pad_token_id": PAD})
    weights = np.where(np.arange(120) < 60, 1.0, 0.0)
    examples = make_examples(120, weights=weights)
    spoilt = examples.labels.copy()
    spoilt[60:] = spoilt[60:][:, [2, 0, 1]]
    settings = make_settings(2, optimizer={"head_l2": 0.1, "epochs": 1, "learning_rate": 5e-3})
    heads = []
    for labels in (examples.labels, spoilt):
        wrapped = make_model("llama", "response_spans", 2)
        fit_lora(wrapped, recipe, settings, Examples(examples.encoded, labels, weights))
        heads.append(trained_head(wrapped.get_base_model()).weight.detach().clone())
    torch.testing.assert_close(heads[0], heads[1])
    wrapped = make_model("llama", "response_spans", 2)
    fit_lora(wrapped, recipe, settings, Examples(examples.encoded, spoilt, np.ones(120)))
    assert (trained_head(wrapped.get_base_model()).weight - heads[0]).abs().max() > 1e-2


def test_training_is_repeatable(make_model):
    recipe = make_recipe(head={"pooling": "response_spans"}, special_tokens={"pad_token_id": PAD})
    settings = make_settings(2, lora={"r": 4, "alpha": 8, "dropout": 0.2, "first_layer": 2})
    losses = [
        fit_lora(make_model("llama", "response_spans", 2), recipe, settings, make_examples(60)).losses for _ in range(2)
    ]
    assert losses[0] == losses[1]


def test_what_learns_is_float32_although_the_base_is_not(make_model):
    wrapped = make_model("llama", "response_spans", 2, torch.bfloat16)
    recipe = make_recipe(head={"pooling": "response_spans"}, special_tokens={"pad_token_id": PAD})
    losses = fit_lora(wrapped, recipe, make_settings(2, autocast="bfloat16"), make_examples(60)).losses
    kinds = {parameter.dtype for parameter in wrapped.parameters() if parameter.requires_grad}
    assert kinds == {torch.float32}
    assert {parameter.dtype for parameter in wrapped.parameters()} == {torch.float32, torch.bfloat16}
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("first_layer", [0, 2])
def test_float16_learns_what_float32_learns_although_its_gradients_would_vanish(make_model, first_layer):
    """As on a T4: base and arithmetic in float16. The head is so small that gradients below it are below 6e-8."""
    recipe = make_recipe(head={"pooling": "response_spans"}, special_tokens={"pad_token_id": PAD})
    updates = {}
    for autocast, dtype in (("float32", torch.float32), ("float16", torch.float16)):
        wrapped = make_model("llama", "response_spans", first_layer, dtype)
        with torch.no_grad():
            trained_head(wrapped.get_base_model()).weight.mul_(1e-4)
        optimizer = {"head_l2": None, "epochs": 1, "learning_rate": 1e-3, "head_learning_rate": 1e-12}
        settings = make_settings(first_layer, optimizer=optimizer, autocast=autocast)
        fit_lora(wrapped, recipe, settings, make_examples(60))
        learned = [tensor for name, tensor in wrapped.named_parameters() if "lora_B" in name and tensor.requires_grad]
        assert all(torch.isfinite(tensor).all() for tensor in learned)
        updates[autocast] = torch.cat([tensor.flatten() for tensor in learned])
    assert updates["float32"].abs().max() > 1e-4
    assert torch.cosine_similarity(updates["float16"], updates["float32"], dim=0) > 0.9


@pytest.mark.parametrize("first_layer", [0, 2])
def test_what_layers_add_up_may_leave_the_range_of_float16(make_model, first_layer):
    """It ends at 65,504: embeddings close to it, and what a layer adds to them, are within it; their sum is not."""
    wrapped = make_model("llama", "response_spans", first_layer, torch.float16)
    backbone = wrapped.get_base_model().base_model
    with torch.no_grad():
        backbone.embed_tokens.weight.copy_(60_000 * backbone.embed_tokens.weight.sign())
        backbone.layers[0].mlp.down_proj.weight.mul_(3_000)
    recipe = make_recipe(head={"pooling": "response_spans"}, special_tokens={"pad_token_id": PAD})
    optimizer = {"head_l2": None, "epochs": 1, "learning_rate": 1e-3}
    losses = fit_lora(
        wrapped, recipe, make_settings(first_layer, optimizer=optimizer, autocast="float16"), make_examples(40)
    ).losses
    assert np.isfinite(losses).all()


def test_the_arithmetic_is_what_the_device_computes_in(monkeypatch):
    capabilities = {"cuda:0": (7, 5), "cuda:1": (8, 0)}
    monkeypatch.setattr(torch.cuda, "get_device_capability", capabilities.get)
    assert arithmetic("auto", "cuda:0") == torch.float16
    assert arithmetic("auto", "cuda:1") == torch.bfloat16
    for amx, expected in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda amx=amx: amx)
        assert arithmetic("auto", "cpu") == expected
    assert arithmetic("float32", "cuda:0") == torch.float32
