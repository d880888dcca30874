import numpy as np
import pandas as pd
import pytest
import torch
from peft import LoraConfig, PeftModel
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedTokenizerFast

from lmsys_ensemble.data.battles import Battles
from lmsys_ensemble.encoding.retention import FIELD_CODES
from lmsys_ensemble.errors import ConfigError
from lmsys_ensemble.modeling.adapters import inject_lora, save_adapter
from lmsys_ensemble.modeling.assembly import assemble
from lmsys_ensemble.modeling.forward import prepare_head
from lmsys_ensemble.modeling.loading import LoadSettings, load_classifier
from lmsys_ensemble.modeling.recipe import HeadRecipe
from lmsys_ensemble.modeling.settings import ComputeSettings
from lmsys_ensemble.modeling.tokenization import make_encoder
from tests.tiny import (
    BOS,
    DECODERS,
    EOS,
    encode,
    make_battles,
    make_recipe,
    make_tokenizer,
    plain_logits,
    plain_model,
    save_classifier,
)

N_LAYERS = 2
SPANS = {"pooling": "response_spans", "layers": N_LAYERS}


@pytest.fixture
def save_spans_adapter(checkpoints, tmp_path):
    """Return a function that saves an adapter whose head pools response spans after two layers."""

    def save(architecture):
        torch.manual_seed(4)
        settings = LoadSettings(3, "cpu", torch.float32, n_layers=N_LAYERS)
        model = load_classifier(checkpoints.base(architecture), settings, head_follows=True)
        prepare_head(model, HeadRecipe(pooling="response_spans"), 3)
        wrapped = inject_lora(model, LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj", "v_proj"]))
        with torch.no_grad():
            for name, parameter in wrapped.named_parameters():
                if "lora_B" in name or "modules_to_save" in name:
                    parameter.normal_(std=0.2)
        save_adapter(wrapped, tmp_path / "spans", "tiny")
        return tmp_path / "spans"

    return save


def read_with_peft_alone(base, folder):
    """Load an adapter with its wide head onto plain transformers."""
    config = AutoConfig.from_pretrained(base, num_hidden_layers=N_LAYERS, num_labels=3)
    config.layer_types = getattr(config, "layer_types", None) and config.layer_types[:N_LAYERS]
    model = AutoModelForSequenceClassification.from_pretrained(base, config=config)
    model.score = torch.nn.Linear(2 * config.hidden_size + 3, 3)
    return PeftModel.from_pretrained(model, folder).eval().get_base_model()


@torch.no_grad()
def logits_by_hand(model, ids, fields):
    """Pool one row's response spans with nothing of ours."""
    hidden = model.base_model(input_ids=torch.tensor(ids[None].astype(np.int64))).last_hidden_state[0]
    parts = [hidden[torch.from_numpy(fields == FIELD_CODES[name])] for name in ("response_a", "response_b")]
    means = [part.mean(0) if len(part) else torch.zeros(hidden.shape[1]) for part in parts]
    a, b = (np.log(1 + len(part)) for part in parts)
    return model.score(
        torch.cat([means[0] - means[1], hidden[-1], torch.tensor([a - b, abs(a - b), (a + b) / 2]).float()])
    )


@pytest.mark.parametrize("architecture", DECODERS)
@pytest.mark.parametrize("merge", [True, False])
def test_a_head_on_response_spans_equals_plain_hidden_states_pooled_by_hand(
    checkpoints, save_spans_adapter, architecture, merge
):
    base, folder = checkpoints.base(architecture), save_spans_adapter(architecture)
    some = make_battles(6)
    battles = Battles(
        pd.RangeIndex(7), [*some.prompts, ("?",)], [*some.responses_a, ("yes",)], [*some.responses_b, ("",)]
    )
    encoded = encode(battles)
    assert not (encoded.fields[-1] == FIELD_CODES["response_b"]).any()
    plain = read_with_peft_alone(base, folder)
    expected = [logits_by_hand(plain, *row).numpy() for row in zip(encoded.ids, encoded.fields, strict=True)]
    assert np.ptp(expected, axis=0).min() > 0.1
    forward = assemble(base, make_recipe(head=SPANS), ComputeSettings(device="cpu", merge=merge), adapter=folder)
    for tokens_per_batch in (1, 500, 10**6):
        np.testing.assert_allclose(forward.score(encoded, tokens_per_batch), expected, atol=1e-5)


def test_a_head_of_two_classes_is_a_setting_of_the_recipe(tmp_path):
    folder, encoded = save_classifier("llama", tmp_path, num_labels=2), encode(make_battles(3))
    forward = assemble(folder, make_recipe(classes=("model_a", "model_b")), ComputeSettings(device="cpu"), adapter=None)
    expected = plain_logits(plain_model(folder, num_labels=2), encoded.ids)
    np.testing.assert_allclose(forward.score(encoded, 500), expected, atol=1e-5)


@pytest.mark.parametrize(("bos", "eos"), [(True, True), (True, False), (False, True), (False, False)])
def test_control_tokens_are_those_of_the_recipe(checkpoints, bos, eos):
    battles = make_battles(3)
    recipe = make_recipe(special_tokens={"bos": bos, "eos": eos}, max_tokens=40)
    encoded = make_encoder(checkpoints.base("llama"), recipe).encode(battles)
    for row in encoded.ids:
        assert len(row) <= 40
        assert (row[0] == BOS) == bos
        assert (row[-1] == EOS) == eos
        assert not np.isin(row[1:-1], [BOS, EOS]).any()


def test_an_encoder_begins_with_cls_and_ends_with_sep_where_it_has_no_other_tokens(tmp_path):
    backend = make_tokenizer().backend_tokenizer
    PreTrainedTokenizerFast(tokenizer_object=backend, cls_token="<bos>", sep_token="<eos>").save_pretrained(tmp_path)
    (row,) = make_encoder(tmp_path, make_recipe()).encode(make_battles(1)).ids
    assert (row[0], row[-1]) == (BOS, EOS)


def test_a_control_token_that_the_tokenizer_lacks_is_named(tmp_path):
    backend = make_tokenizer().backend_tokenizer
    PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<bos>").save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="has no eos token; set eos=False"):
        make_encoder(tmp_path, make_recipe())
    make_encoder(tmp_path, make_recipe(special_tokens={"eos": False}))


@pytest.mark.parametrize(("instructions", "warned"), [(True, False), (False, True)])
def test_half_precision_on_a_cpu_that_only_emulates_it_is_warned_of(
    checkpoints, monkeypatch, caplog, instructions, warned
):
    for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: instructions)
    for dtype, expected in (("bfloat16", warned), ("float32", False)):
        assemble(
            checkpoints.classifier("llama"), make_recipe(), ComputeSettings(device="cpu", dtype=dtype), adapter=None
        )
        assert ("no instructions for bfloat16" in caplog.text) == expected
        caplog.clear()
