from dataclasses import replace

import numpy as np
import pytest
import torch
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, Gemma3Config

from lmsys_ensemble.errors import ConfigError, ModelError
from lmsys_ensemble.modeling.assembly import assemble
from lmsys_ensemble.modeling.settings import ComputeSettings
from lmsys_ensemble.progress import NoProgress
from tests.tiny import (
    ARCHITECTURES,
    DECODERS,
    EOS,
    PAD,
    SLIDING_WINDOW,
    encode,
    make_battles,
    make_config,
    make_recipe,
    plain_logits,
    plain_model,
    save_classifier,
)

TOLERANCE = {"atol": 1e-5, "rtol": 0}


class Listener(NoProgress):
    """Keeps what it is told."""

    def __init__(self):
        self.reports = []

    def advance(self, n_rows, n_tokens):
        self.reports.append((n_rows, n_tokens))


@pytest.fixture(scope="module")
def encoded():
    result = encode(make_battles(14))
    assert len(set(result.lengths)) > 5
    assert result.lengths.min() > SLIDING_WINDOW
    return result


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("lora", ["none", "unmerged", "merged"])
def test_logits_equal_plain_transformers_in_batches_of_any_size_and_rows_in_any_order(
    checkpoints, encoded, architecture, lora
):
    base = checkpoints.classifier(architecture) if lora == "none" else checkpoints.base(architecture)
    adapter = None if lora == "none" else checkpoints.adapter(architecture)
    plain = plain_model(base, adapter=adapter, merge=lora == "merged")
    expected = plain_logits(plain, encoded.ids)
    assert np.ptp(expected, axis=0).min() > 0.1, "rows must differ for a comparison to mean anything"

    forward = assemble(base, make_recipe(), ComputeSettings(device="cpu", merge=lora == "merged"), adapter=adapter)
    assert any(isinstance(module, LoraLayer) for module in forward.model.modules()) == (lora == "unmerged")
    for tokens_per_batch in (1, 330, 1000, 10**6):
        np.testing.assert_allclose(forward.score(encoded, tokens_per_batch), expected, **TOLERANCE)
    order = np.random.default_rng(0).permutation(len(encoded))
    shuffled = replace(encoded, ids=[encoded.ids[row] for row in order], fields=[encoded.fields[row] for row in order])
    np.testing.assert_allclose(forward.score(shuffled, 1000), expected[order], **TOLERANCE)


@pytest.mark.parametrize("architecture", DECODERS)
def test_pad_equal_to_eos_is_pooled_as_transformers_does(tmp_path, encoded, architecture):
    base = save_classifier(architecture, tmp_path, pad_token_id=EOS)
    expected = plain_logits(plain_model(base, pad_token_id=EOS), encoded.ids, rows_at_once=5)
    by_config = assemble(base, make_recipe(), ComputeSettings(device="cpu"), adapter=None)
    np.testing.assert_allclose(by_config.score(encoded, 1000), expected, **TOLERANCE)

    at_eos = assemble(
        base, make_recipe(special_tokens={"pad_token_id": PAD}), ComputeSettings(device="cpu"), adapter=None
    )
    otherwise = plain_logits(plain_model(base, pad_token_id=PAD), encoded.ids, rows_at_once=5)
    np.testing.assert_allclose(at_eos.score(encoded, 1000), otherwise, **TOLERANCE)
    assert np.abs(otherwise - expected).max() > 0.1


def test_the_text_part_of_a_gemma_3_with_vision_is_scored_as_transformers_does(tmp_path, encoded):
    """Gemma 3 from 4B on; its configuration keeps layers and sizes in a part of its own."""
    vision = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = Gemma3Config(
        text_config=make_config("gemma3").to_dict(),
        vision_config={**vision, "image_size": 28, "patch_size": 14},
        mm_tokens_per_image=4,
        num_labels=3,
        initializer_range=0.15,
    )
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(config)
    model.save_pretrained(tmp_path)
    expected = plain_logits(plain_model(tmp_path, config=config), encoded.ids)
    assert np.ptp(expected, axis=0).min() > 0.1
    forward = assemble(tmp_path, make_recipe(), ComputeSettings(device="cpu"), adapter=None)
    for tokens_per_batch in (1, 1000):
        np.testing.assert_allclose(forward.score(encoded, tokens_per_batch), expected, **TOLERANCE)


@pytest.mark.parametrize("architecture", ["llama", "modernbert"])
def test_batches_keep_to_the_budget_and_every_row_and_token_is_reported(checkpoints, encoded, architecture):
    forward = assemble(checkpoints.classifier(architecture), make_recipe(), ComputeSettings(device="cpu"), adapter=None)
    seen = []
    embedding = forward.model.get_input_embeddings()
    embedding.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0].numel()))
    listener = Listener()
    forward.score(encoded, 500, listener)
    assert max(seen) <= 500
    assert len(seen) == len(listener.reports) > 3
    assert np.sum(listener.reports, axis=0).tolist() == [len(encoded), encoded.lengths.sum()]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_head_of_an_adapter_keeps_all_its_digits_in_half_precision(checkpoints, encoded, dtype):
    adapter = checkpoints.adapter("llama")
    forward = assemble(
        checkpoints.base("llama"), make_recipe(), ComputeSettings(device="cpu", dtype=dtype), adapter=adapter
    )
    saved = load_file(adapter / "adapter_model.safetensors")["base_model.model.score.weight"]
    assert next(forward.model.base_model.parameters()).dtype == getattr(torch, dtype)
    (head,) = [
        tensor for name, tensor in forward.model.named_parameters() if "score" in name and "original" not in name
    ]
    assert torch.equal(head, saved)
    assert forward.score(encoded, 1000).dtype == np.float32


def test_pooling_that_an_encoder_has_no_place_for_is_refused(checkpoints):
    recipe = make_recipe(head={"pooling": "response_spans"})
    with pytest.raises(ConfigError, match="response_spans"):
        assemble(
            checkpoints.base("modernbert"),
            recipe,
            ComputeSettings(device="cpu"),
            adapter=checkpoints.adapter("modernbert"),
        )


def test_a_head_on_response_spans_is_never_made_up(checkpoints):
    recipe = make_recipe(head={"pooling": "response_spans"})
    with pytest.raises(ModelError, match="tensors of a head on response_spans do not match the model"):
        assemble(checkpoints.classifier("llama"), recipe, ComputeSettings(device="cpu"), adapter=None)
