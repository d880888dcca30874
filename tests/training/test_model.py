"""Gradients: the same however rows are laid out, and none where nothing shall learn."""

import numpy as np
import pytest
import torch

from lmsys_ensemble.errors import ConfigError
from lmsys_ensemble.training.examples import CrossEntropy
from lmsys_ensemble.training.hidden import compute_hidden_states
from lmsys_ensemble.training.model import Trainee, check_targets
from lmsys_ensemble.training.trainer import Data
from tests.training.fitting import build, gradients, make_examples, make_settings, recipe_of, relative_difference

SPANS = {"pooling": "response_spans"}


def make(checkpoints, architecture="llama", **changes):
    """Return a trainee, its data and its objective."""
    settings = make_settings(**{"head": SPANS, **changes})
    trainee = Trainee(build(checkpoints, settings, architecture), recipe_of(settings), settings)
    with torch.no_grad():  # else the first gradients of A are zero
        generator = torch.Generator().manual_seed(0)
        for name, tensor in trainee.learning().items():
            if "lora_B" in name:
                tensor.copy_(0.1 * torch.randn(tensor.shape, generator=generator))
    examples = make_examples(12)
    return trainee, Data(examples), CrossEntropy(examples.labels, np.linspace(0.5, 2, 12))


ALL = [np.arange(12)]


@pytest.mark.parametrize("layout", ["padded", "packed"])
def test_uneven_batches_give_the_gradients_of_one_large_one(checkpoints, layout):
    trainee, data, objective = make(checkpoints, batches={"layout": layout})
    once = gradients(trainee, data, objective, ALL)
    parts = [np.array([3]), np.array([0, 1, 2, 5, 6, 7, 8]), np.array([11, 4, 9, 10])]
    assert relative_difference(gradients(trainee, data, objective, parts), once) < 1e-5


def test_a_cpu_packs_by_default(checkpoints):
    assert make(checkpoints, batches={"layout": "auto"})[0].packed


@pytest.mark.parametrize("pooling", ["response_spans", "last_token"])
@pytest.mark.parametrize("architecture", ["llama", "gemma2", "gemma3"])
def test_packed_gradients_are_the_padded_ones(checkpoints, architecture, pooling):
    found = {}
    for layout in ("padded", "packed"):
        trainee, data, objective = make(
            checkpoints, architecture, head={"pooling": pooling}, batches={"layout": layout}
        )
        assert trainee.packed == (layout == "packed")
        found[layout] = gradients(trainee, data, objective, ALL)
    assert relative_difference(found["packed"], found["padded"]) < 1e-5


@pytest.mark.parametrize("layout", ["padded", "packed"])
def test_activations_computed_twice_give_the_same_gradients(checkpoints, layout):
    found = []
    for checkpointing in (False, True):
        torch.manual_seed(3)
        trainee, data, objective = make(
            checkpoints, lora={"dropout": 0.3}, batches={"layout": layout}, gradient_checkpointing=checkpointing
        )
        trainee.train()
        torch.manual_seed(5)
        calls = []
        layer = trainee.model.base_model.layers[1].self_attn.q_proj
        layer.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        found.append(gradients(trainee, data, objective, ALL))
        assert len(calls) == 1 + checkpointing
    assert relative_difference(found[1], found[0]) < 1e-6


@pytest.mark.parametrize("layout", ["padded", "packed"])
def test_hidden_states_give_the_gradients_of_the_whole_model(checkpoints, layout):
    trainee, data, objective = make(checkpoints, lora={"first_layer": 2}, batches={"layout": layout})
    whole = gradients(trainee, data, objective, ALL)
    encoded = data.examples.encoded
    values = torch.empty(int(encoded.lengths.sum()), 64)
    compute_hidden_states(trainee.model.base_model, 2, encoded.ids, values, 500, lambda _: None)
    states = torch.split(values, encoded.lengths.tolist())
    assert relative_difference(gradients(trainee, Data(data.examples, states), objective, ALL), whole) < 1e-5


@pytest.mark.parametrize(
    ("lora", "layers"),
    [
        ({}, {0, 1, 2, 3}),
        ({"first_layer": 2}, {2, 3}),
        ({"freeze_layers": 3}, {3}),
        ({"layers_to_transform": [1, 3]}, {1, 3}),
    ],
)
def test_only_the_layers_that_are_named_learn(checkpoints, lora, layers):
    trainee, _, _ = make(checkpoints, lora=lora)
    found = {int(name.split("layers.")[1].split(".")[0]) for name in trainee.learning() if "layers." in name}
    assert found == layers
    assert trainee.first_layer == min(layers)


def test_rank_stabilised_updates_are_larger_by_the_root_of_the_rank(checkpoints):
    scales = []
    for rslora in (False, True):
        trainee, _, _ = make(checkpoints, lora={"r": 4, "alpha": 8, "rslora": rslora})
        scales.append(trainee.model.base_model.layers[0].self_attn.q_proj.scaling["default"])
    assert scales == [2, 4]


def test_dora_learns_magnitudes(checkpoints):
    trainee, data, objective = make(checkpoints, lora={"dora": True})
    found = gradients(trainee, data, objective, ALL)
    magnitudes = [tensor for name, tensor in found.items() if "lora_magnitude_vector" in name]
    assert len(magnitudes) == 16
    assert all(tensor.abs().max() > 0 for tensor in magnitudes)


@pytest.mark.parametrize("architecture", ["llama", "gemma2"])
def test_a_head_with_a_hidden_layer_learns(checkpoints, architecture):
    trainee, data, objective = make(checkpoints, architecture, head={**SPANS, "hidden_size": 10})
    found = gradients(trainee, data, objective, ALL)
    shapes = [tuple(tensor.shape) for name, tensor in found.items() if "modules_to_save" in name]
    assert shapes == [(10, 131), (10,), (3, 10), (3,)]
    assert all(tensor.abs().max() > 0 for name, tensor in found.items() if "modules_to_save" in name)


def test_what_lies_between_an_encoders_layers_and_its_head_learns_too(checkpoints):
    trainee, data, objective = make(
        checkpoints, "modernbert", head={"pooling": "last_token"}, lora={"target_modules": ["Wqkv", "Wo"]}
    )
    found = gradients(trainee, data, objective, ALL)
    saved = {name.split("base_model.model.")[1].split(".")[0] for name in found if "modules_to_save" in name}
    assert saved == {"head", "classifier"}
    assert not trainee.packed


def test_target_modules_that_match_nothing_are_named_before_weights_are_loaded(checkpoints):
    settings = make_settings(lora={"target_modules": ["q_proj", "v_projj"]})
    with pytest.raises(ConfigError, match=r"no linear layer called 'v_projj' \(did you mean 'v_proj'\?\); its layers"):
        check_targets(checkpoints.base("llama"), recipe_of(settings), settings.lora)
    check_targets(checkpoints.base("llama"), recipe_of(make_settings()), make_settings().lora)


def test_an_encoder_cannot_be_packed(checkpoints):
    with pytest.raises(ConfigError, match="runs padded only"):
        make(
            checkpoints, "modernbert", head={"pooling": "last_token"}, lora={"target_modules": ["Wqkv"]},
            batches={"layout": "packed"},
        )  # fmt: skip


@pytest.mark.parametrize("layout", ["padded", "packed"])
def test_stored_states_of_bfloat16_enter_where_arithmetic_is_float16(checkpoints, layout):
    settings = make_settings(autocast="float16", lora={"first_layer": 2}, batches={"layout": layout})
    trainee = Trainee(build(checkpoints, settings), recipe_of(settings), settings)
    encoded = make_examples(3).encoded
    states = torch.randn(int(encoded.lengths.sum()), 64).bfloat16()
    entering = list(states.split(encoded.lengths.tolist()))
    logits, _ = trainee(encoded.ids, encoded.fields, entering)
    exact, _ = trainee(encoded.ids, encoded.fields, [each.float() for each in entering])
    torch.testing.assert_close(logits, exact, atol=0, rtol=0)
