import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, GraniteConfig

from lmsys_ensemble.errors import ModelError
from lmsys_ensemble.modeling.label_head import LabelHead, LabelModel, make_label_head
from tests.tiny import make_config

IDS = (5, 70, 399)


def make_model(**changes):
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(make_config("llama", **changes)).eval()


@torch.no_grad()
def last_logits(model, tokens):
    return model(input_ids=tokens).logits[:, -1, list(IDS)]


@torch.no_grad()
def assert_reproduces(model):
    head = make_label_head(model, IDS, "mine")
    tokens = torch.tensor([[1, 9, 30, 12, 8]])
    hidden = model.base_model(input_ids=tokens).last_hidden_state[:, -1]
    torch.testing.assert_close(head(hidden), last_logits(model, tokens), atol=1e-5, rtol=0)


def test_a_bias_of_the_output_matrix_counts():
    model = make_model(tie_word_embeddings=False)
    model.lm_head = nn.Linear(64, 400, bias=True)
    assert_reproduces(model)


def test_logits_that_an_architecture_scales_are_scaled():
    config = GraniteConfig(**{**make_config("llama").to_dict(), "logits_scaling": 4.0, "model_type": "granite"})
    torch.manual_seed(0)
    assert_reproduces(AutoModelForCausalLM.from_config(config).eval())


def test_logits_that_are_made_in_an_unknown_way_are_refused(monkeypatch):
    model = make_model()
    forward = model.forward

    def doubled(**inputs):
        output = forward(**inputs)
        output.logits = output.logits * 2
        return output

    monkeypatch.setattr(model, "forward", doubled)
    with pytest.raises(ModelError, match="mine: LlamaForCausalLM makes its logits in a way that is not known"):
        make_label_head(model, IDS, "mine")


def test_an_output_matrix_of_whole_numbers_is_refused():
    model = make_model(tie_word_embeddings=False)
    model.lm_head.weight = nn.Parameter(torch.ones(400, 64, dtype=torch.int8), requires_grad=False)
    with pytest.raises(ModelError, match="does not hold plain numbers; give a model whose lm_head is not quantised"):
        make_label_head(model, IDS, "mine")


def test_a_label_beyond_the_output_matrix_is_refused():
    with pytest.raises(ModelError, match="its output has 400 tokens, a label is token 400"):
        make_label_head(make_model(), [400], "mine")


def test_half_precision_weights_give_float32_logits_capped_where_asked():
    head = LabelHead(torch.ones(2, 4, dtype=torch.bfloat16), softcap=3.0)
    logits = head(torch.full((1, 4), 10.0, dtype=torch.bfloat16))
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, 3 * torch.tanh(torch.full((1, 2), 40.0) / 3))


def test_a_label_model_keeps_nothing_of_the_output_matrix():
    model = make_model(tie_word_embeddings=False)
    kept = LabelModel(model, make_label_head(model, IDS, "mine"))
    assert kept.config.num_labels == 3
    assert model.config.num_labels == 2
    assert not any(tensor is model.lm_head.weight for tensor in kept.parameters())
