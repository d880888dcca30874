"""Any plan gives the logits that plain transformers gives one row at a time."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.nn.attention.flex_attention import flex_attention

from lmsys_ensemble.compute import kernels
from lmsys_ensemble.compute.attention import SequenceAttention
from lmsys_ensemble.compute.flex import FlexAttention
from lmsys_ensemble.encoding.prefixes import find_families
from lmsys_ensemble.encoding.retention import FIELD_CODES
from lmsys_ensemble.encoding.tokens import Encoded
from lmsys_ensemble.modeling import forward as forward_module
from lmsys_ensemble.modeling.forward import ForwardPass, prepare_head
from lmsys_ensemble.modeling.pooling import pad_batch, pool
from lmsys_ensemble.modeling.recipe import HeadRecipe
from tests.modeling.conftest import make_model
from tests.tiny import BOS, DECODERS, EOS, PAD, encode, make_battles, plain_logits

pytestmark = pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")

TOLERANCE = {"atol": 1e-4, "rtol": 0}
LONGEST = 90


@pytest.fixture(autouse=True)
def small_kernels(monkeypatch):
    """Uncompiled, FlexAttention makes the whole matrix of scores."""
    monkeypatch.setattr(kernels, "LEAST_SIZE", 256)


def flex(packed, wanted):
    """FlexAttention as it is without compilation, which takes half a minute a shape."""
    return FlexAttention(packed, wanted, run=flex_attention)


KINDS = {"by sequence": SequenceAttention, "flex": flex}


def encoded_rows(ids, fields=None):
    ids = [np.array(row, dtype=np.int32) for row in ids]
    fields = fields or [np.zeros(len(row), dtype=np.int8) for row in ids]
    return Encoded(ids, fields, pd.RangeIndex(len(ids)), [np.zeros(4)] * len(ids))


tokens = st.lists(st.integers(3, 399), min_size=1, max_size=LONGEST)


@st.composite
def rows(draw):
    """Rows of one token, at the limit, twice the same, and of common beginnings."""
    plain = draw(st.lists(tokens, min_size=1, max_size=6))
    beginning = draw(st.lists(st.integers(3, 399), min_size=40, max_size=60))
    family = [beginning + end for end in draw(st.lists(st.lists(st.integers(3, 9), max_size=30), max_size=4))]
    ends = draw(st.sampled_from([[], [[5]], [[7] * LONGEST], [plain[0]], [plain[0], plain[0], [5]]]))
    return draw(st.permutations(plain + family + ends))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("architecture", DECODERS)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ids=rows(), tokens_per_batch=st.sampled_from([1, 50, 130, 10**6]))
def test_any_plan_gives_the_logits_of_one_row_at_a_time(models, architecture, kind, ids, tokens_per_batch):
    encoded = encoded_rows(ids)
    forward = ForwardPass(models[architecture], "last_token", PAD, attention=KINDS[kind])
    expected = plain_logits(models[architecture], encoded.ids)
    np.testing.assert_allclose(forward.score(encoded, tokens_per_batch), expected, **TOLERANCE)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("architecture", DECODERS)
def test_both_orders_of_battles_share_their_prompts_and_keep_their_logits(architecture, kind):
    model = make_model(architecture)
    prepare_head(model, HeadRecipe(pooling="response_spans"), 3)
    battles = make_battles(5, longest=60)
    battles = dataclasses.replace(battles, prompts=[(turns[0] * 3, *turns[1:]) for turns in battles.prompts])
    both = [encode(order, 512) for order in (battles, battles.swapped())]
    encoded = encoded_rows(both[0].ids + both[1].ids, both[0].fields + both[1].fields)
    forward = ForwardPass(model, "response_spans", PAD, attention=KINDS[kind])
    computed = []
    model.base_model.embed_tokens.register_forward_pre_hook(lambda _, given: computed.append(given[0].numel()))
    got = forward.score(encoded, 10**6)
    assert sum(computed) < 0.9 * encoded.lengths.sum()
    expected = [padded_logits(model, ids, fields) for ids, fields in zip(encoded.ids, encoded.fields, strict=True)]
    np.testing.assert_allclose(got, np.concatenate(expected), **TOLERANCE)
    assert np.ptp(got, axis=0).min() > 0.05


def test_beginnings_are_looked_for_once_and_not_again_in_every_batch(models, monkeypatch):
    looked = []

    def find(ids, *others):
        looked.append(len(ids))
        return find_families(ids, *others)

    monkeypatch.setattr(forward_module, "find_families", find)
    beginnings = [[number, *range(10, 60)] for number in range(100, 106)]
    encoded = encoded_rows([[*beginning, end] for end in (5, 6, 7) for beginning in beginnings])
    tried = []

    def check(_, given):
        tried.append(given[0].numel())
        if tried[-1] > 60:
            raise torch.OutOfMemoryError("out of memory")

    expected = plain_logits(models["llama"], encoded.ids)
    hook = models["llama"].get_input_embeddings().register_forward_pre_hook(check)
    got = ForwardPass(models["llama"], "last_token", PAD).score(encoded, 120)
    hook.remove()
    assert looked == [len(encoded)]
    assert max(tried) == 2 * 54, "two families of three rows share a batch, until memory runs out"
    np.testing.assert_allclose(got, expected, **TOLERANCE)


@torch.no_grad()
def padded_logits(model, ids, fields):
    """Return the logits of one row, pooled from what transformers' own layers give."""
    hidden = model.base_model(input_ids=pad_batch([ids], 0, "cpu")[0], use_cache=False).last_hidden_state
    return model.score(pool(hidden, [ids], [fields], "response_spans", PAD)).numpy()


def test_the_last_layer_computes_only_what_is_pooled(models):
    model = models["llama"]
    rows_of_last_mlp, rows_of_first_mlp = [], []
    hooks = [
        model.base_model.layers[number].mlp.register_forward_pre_hook(lambda _, given, to=to: to.append(len(given[0])))
        for number, to in ((-1, rows_of_last_mlp), (0, rows_of_first_mlp))
    ]
    down = model.base_model.layers[-1].mlp.down_proj
    hooks.append(down.register_forward_pre_hook(lambda _, given: rows_of_last_mlp.append(len(given[0]))))
    encoded = encode(make_battles(6))
    ForwardPass(model, "last_token", PAD).score(encoded, 10**6)
    for hook in hooks:
        hook.remove()
    assert rows_of_last_mlp == [6]


def test_rows_that_are_the_same_are_computed_once_and_counted_each(models):
    model = models["gemma2"]
    encoded = encoded_rows([[5, 6, 7]] * 3 + [[8, 9]])
    computed = []
    hook = model.base_model.embed_tokens.register_forward_pre_hook(lambda _, given: computed.append(given[0].numel()))
    got = ForwardPass(model, "last_token", PAD).score(encoded, 100)
    hook.remove()
    assert computed == [5]
    assert np.array_equal(got[0], got[1])
    np.testing.assert_allclose(got, plain_logits(model, encoded.ids), **TOLERANCE)


def test_tokens_of_a_response_that_both_orders_begin_with_are_pooled_for_both():
    model = make_model("llama")
    prepare_head(model, HeadRecipe(pooling="response_spans"), 3)
    shared = [BOS, *range(10, 50)]
    code_a, code_b = FIELD_CODES["response_a"], FIELD_CODES["response_b"]
    codes = np.array([0] * 30 + [code_a] * 11 + [code_b] * 3, dtype=np.int8)
    encoded = encoded_rows([[*shared, 60, 61, EOS], [*shared, 70, 71, EOS]], [codes, codes])
    forward = ForwardPass(model, "response_spans", PAD)
    expected = [padded_logits(model, ids, fields) for ids, fields in zip(encoded.ids, encoded.fields, strict=True)]
    np.testing.assert_allclose(forward.score(encoded, 1000), np.concatenate(expected), **TOLERANCE)
