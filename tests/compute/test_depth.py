import numpy as np
import pytest
import torch
from transformers import AutoConfig

from lmsys_ensemble.compute.depth import only_layers
from lmsys_ensemble.modeling.assembly import assemble
from lmsys_ensemble.modeling.loading import LoadSettings, load_classifier
from lmsys_ensemble.modeling.pooling import pad_batch
from lmsys_ensemble.modeling.settings import ComputeSettings
from tests.tiny import ARCHITECTURES, DECODERS, encode, make_battles, make_recipe, plain_logits, plain_model


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("n_layers", [1, 3])
def test_a_head_on_the_first_layers_equals_transformers_with_as_many(checkpoints, architecture, n_layers):
    base, encoded = checkpoints.classifier(architecture), encode(make_battles(5))
    config = AutoConfig.from_pretrained(base, num_hidden_layers=n_layers)
    config.layer_types = getattr(config, "layer_types", None) and config.layer_types[:n_layers]
    expected = plain_logits(plain_model(base, config=config), encoded.ids)
    forward = assemble(base, make_recipe(head={"layers": n_layers}), ComputeSettings(device="cpu"), adapter=None)
    np.testing.assert_allclose(forward.score(encoded, 500), expected, atol=1e-5)
    full = assemble(base, make_recipe(), ComputeSettings(device="cpu"), adapter=None).score(encoded, 500)
    assert np.abs(full - expected).max() > 0.05


@pytest.mark.parametrize("architecture", DECODERS)
@pytest.mark.parametrize("middle", [1, 2, 3])
@torch.no_grad()
def test_lower_and_upper_layers_after_each_other_equal_the_whole(checkpoints, architecture, middle):
    settings = LoadSettings(3, "cpu", torch.float32)
    backbone = load_classifier(checkpoints.classifier(architecture), settings, head_follows=False).base_model
    tokens, mask = pad_batch(encode(make_battles(4)).ids, 0, "cpu")
    whole = backbone(input_ids=tokens, attention_mask=mask, use_cache=False).last_hidden_state
    with only_layers(backbone, 0, middle) as lower:
        between = lower(input_ids=tokens, attention_mask=mask, use_cache=False).last_hidden_state
    with only_layers(backbone, middle) as upper:
        ends = upper(inputs_embeds=between, attention_mask=mask, use_cache=False).last_hidden_state
    real = mask[:, :, None] == 1
    torch.testing.assert_close(torch.where(real, ends, 0), torch.where(real, whole, 0), atol=1e-5, rtol=1e-5)
    assert (between - whole)[mask == 1].abs().max() > 0.1
    again = backbone(input_ids=tokens, attention_mask=mask, use_cache=False).last_hidden_state
    assert torch.equal(again, whole), "the backbone must be put back as it was"


def test_a_backbone_is_put_back_although_its_layers_failed(checkpoints):
    settings = LoadSettings(3, "cpu", torch.float32)
    backbone = load_classifier(checkpoints.classifier("gemma2"), settings, head_follows=False).base_model
    before = backbone.layers, backbone.norm, backbone.config, list(backbone.config.layer_types)

    def fail():
        with only_layers(backbone, 1, 3):
            assert len(backbone.layers) == 2
            raise RuntimeError("in between")

    with pytest.raises(RuntimeError, match="in between"):
        fail()
    after = backbone.layers, backbone.norm, backbone.config
    assert all(one is other for one, other in zip(before, after, strict=False))
    assert backbone.config.layer_types == before[3]
    assert backbone.config.num_hidden_layers == len(backbone.layers) == 4
