"""The packed forward pass on pretended GPUs: devices, formats, waits and memory."""

import numpy as np
import pandas as pd
import pytest
import torch

from lmsys_ensemble.compute.attention import SequenceAttention
from lmsys_ensemble.compute.capacity import shape_of
from lmsys_ensemble.compute.hardware import MOST_TOKENS
from lmsys_ensemble.encoding.retention import FIELD_CODES
from lmsys_ensemble.encoding.tokens import Encoded
from lmsys_ensemble.modeling.forward import attention_kind
from lmsys_ensemble.modeling.warming import common_sizes, warm_up
from lmsys_ensemble.progress import NoProgress
from tests.gpu_path.pretended.conftest import CAPABILITY, DEVICE, FREE_BYTES, draw_rows, flex

MODELS = ("gemma", "llama")
POOLINGS = ("last_token", "response_spans")
HALF = torch.float16 if CAPABILITY < (8, 0) else torch.bfloat16
ATTENTIONS = [SequenceAttention] if CAPABILITY < (8, 0) else [flex, SequenceAttention]
"""Those that this capability can have; the first is the one that it gets."""


class Listener(NoProgress):
    """Keeps what it is told."""

    def __init__(self):
        self.retries = []

    def retried(self, why):
        self.retries.append(why)


def encoded_rows(*arguments, **options):
    ids, fields = draw_rows(*arguments, **options)
    return Encoded(ids, fields, pd.RangeIndex(len(ids)), [np.zeros(4)] * len(ids))


def test_fields_of_drawn_rows_are_those_of_responses():
    assert {FIELD_CODES["response_a"], FIELD_CODES["response_b"]} < {1, 2, 3}


def test_the_attention_is_the_one_that_suits_the_capability(make_forward):
    kind = attention_kind(torch.device(DEVICE))
    assert (kind is SequenceAttention) == (CAPABILITY < (8, 0))
    assert make_forward("llama").model.dtype == HALF


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("shared", [0, 300])
@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("name", MODELS)
def test_a_batch_stays_on_its_device_and_the_host_waits_once(watch, make_forward, name, pooling, shared, attention):
    forward = make_forward(name, pooling, attention)
    before = watch.live[DEVICE]
    ids, fields = draw_rows(2500, shared)
    logits = forward(ids, fields)
    assert (logits.shape, logits.dtype) == ((len(ids), 3), np.float32)
    assert watch.devices == {DEVICE}
    assert watch.pinned_for == {1}
    assert not watch.elsewhere, "another device was the thread's current one"
    assert watch.waits == ["copy to the host"]
    assert watch.live[DEVICE] == before, "a batch leaves nothing behind"
    assert torch.cuda.current_device() == 0, "the caller's device is as it was"


@pytest.mark.skipif(CAPABILITY < (8, 0), reason="attention is not compiled below compute capability 8.0")
def test_warming_up_runs_every_common_size_and_leaves_nothing(watch, make_forward):
    forward = make_forward("gemma")
    before = watch.live[DEVICE]
    assert warm_up(forward) == common_sizes(forward.tokens_per_batch) == [2048, 32_768, 65_536]
    assert watch.devices == {DEVICE}
    assert not watch.elsewhere
    assert watch.live[DEVICE] == before
    forward.attention = SequenceAttention
    assert warm_up(forward) == []


@pytest.mark.parametrize("name", MODELS)
def test_a_row_alone_is_computed_in_float32_and_the_model_stays_as_it_was(watch, make_forward, name):
    forward = make_forward(name, "response_spans")
    before, formats = watch.live[DEVICE], set()
    types = {type(forward.decoder.backbone.layers[0].mlp.down_proj)}
    for layer in forward.decoder.backbone.layers:
        layer.mlp.down_proj.register_forward_pre_hook(lambda _, given: formats.add(given[0].dtype))
    ids, fields = draw_rows(900)
    assert forward.can_upcast
    assert forward(ids[:1], fields[:1], upcast=True).shape == (1, 3)
    assert formats == {torch.float32}
    assert {parameter.dtype for parameter in forward.model.base_model.parameters()} == {HALF}
    assert types == {torch.nn.Linear}
    assert watch.live[DEVICE] == before
    assert not watch.elsewhere
    assert watch.waits == ["copy to the host"]


def test_trimming_spares_the_last_layer_all_but_what_is_pooled(make_forward):
    forward = make_forward("gemma")
    n_rows = []
    for layer in forward.decoder.backbone.layers:
        layer.mlp.down_proj.register_forward_pre_hook(lambda _, given: n_rows.append(len(given[0])))
    ids, fields = draw_rows(2500)
    forward(ids, fields)
    assert n_rows[-1] == len(ids)
    assert set(n_rows[:-1]) == {sum(map(len, ids))}


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("n_tokens", [8_192, 8_300])  # a size of kernels, and one that is padded by half
@pytest.mark.parametrize(
    ("name", "pooling"), [("gemma", "response_spans"), ("gemma", "last_token"), ("llama", "last_token")]
)
def test_the_estimate_of_memory_is_a_tenth_above_what_is_taken(watch, make_forward, name, pooling, n_tokens, attention):
    forward = make_forward(name, pooling, attention)
    before = watch.live[DEVICE]
    ids, fields = draw_rows(n_tokens)
    n_tokens = sum(map(len, ids))
    forward(ids, fields)
    taken = watch.peak[DEVICE] - before
    estimate = 1.1 * shape_of(forward.model.config.to_dict()).activation_bytes(HALF.itemsize) * n_tokens
    assert taken <= estimate <= 1.2 * taken, f"{taken / n_tokens:.0f} bytes a token were taken"


@pytest.mark.parametrize("name", MODELS)
def test_the_largest_batch_fits_into_the_memory_that_is_free(watch, make_forward, name):
    forward = make_forward(name)
    assert forward.tokens_per_batch == MOST_TOKENS
    watch.room = FREE_BYTES
    listener = Listener()
    forward.score(encoded_rows(forward.tokens_per_batch), progress=listener)
    assert not listener.retries
    assert watch.peak[DEVICE] < FREE_BYTES


def test_where_memory_runs_out_batches_are_halved_and_nothing_of_them_is_kept(watch, make_forward):
    forward = make_forward("gemma", "response_spans")
    before = watch.live[DEVICE]
    watch.room = before + 2**29
    listener = Listener()
    logits = forward.score(encoded_rows(10_000), 10_000, listener)
    assert np.isfinite(logits).all()
    assert f"out of memory on {DEVICE}" in listener.retries[0]
    assert forward.limit < 10_000
    assert watch.live[DEVICE] == before
