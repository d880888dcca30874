import numpy as np
import pytest
import torch
from torch.nn.attention.flex_attention import flex_attention
from transformers import AutoModelForSequenceClassification

from lmsys_ensemble.compute import kernels
from lmsys_ensemble.compute.attention import SequenceAttention
from lmsys_ensemble.compute.flex import FlexAttention
from lmsys_ensemble.modeling import forward as forward_module
from lmsys_ensemble.modeling.forward import ForwardPass
from lmsys_ensemble.modeling.warming import common_sizes, warm_up
from lmsys_ensemble.scorers.llama import LlamaScorer
from tests.tiny import PAD, encode, make_battles, make_config

pytestmark = pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")


@pytest.fixture
def kernels_made(monkeypatch):
    """Return the inputs for which a kernel would be made, filled as attention is called; sizes are small."""
    monkeypatch.setattr(kernels, "LEAST_SIZE", 256)
    seen = []

    def run(query, key, value, **options):
        kernel = (
            query.shape,
            query.stride(),
            key.stride(),
            value.stride(),
            query.dtype,
            torch.is_inference_mode_enabled(),
        )
        seen.append((*kernel, options["score_mod"] is None))
        return flex_attention(query, key, value, **options)

    def attention(packed, wanted):
        return FlexAttention(packed, wanted, run=run)

    monkeypatch.setattr(forward_module, "attention_kind", lambda device: attention)
    return seen


@pytest.mark.parametrize("architecture", ["llama", "gemma2", "gemma3"])
def test_batches_of_common_sizes_find_their_kernels_made(kernels_made, architecture):
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(make_config(architecture, num_labels=3)).eval()
    forward = ForwardPass(model, "last_token", PAD)
    assert warm_up(forward, 1000) == common_sizes(1000) == [256, 512, 1024]
    made = set(kernels_made)
    kernels_made.clear()
    forward.score(encode(make_battles(12), 160), 1000)
    forward.score(encode(make_battles(1), 100), 1000)
    assert len(set(kernels_made)) > 1
    full = [kernel for kernel in set(kernels_made) if kernel[0][2] in common_sizes(1000)]
    assert full
    assert set(full) <= made


def test_loading_a_scorer_makes_the_kernels(kernels_made, checkpoints):
    scorer = LlamaScorer(str(checkpoints.classifier("llama")), device="cpu", tokens_per_batch=800, template="turns")
    with scorer:
        assert {kernel[0][2] for kernel in kernels_made} == set(common_sizes(800))


def test_where_memory_runs_out_in_warming_up_the_larger_sizes_are_left(kernels_made, monkeypatch):
    model = AutoModelForSequenceClassification.from_config(make_config("llama", num_labels=3)).eval()
    forward = ForwardPass(model, "last_token", PAD)
    attention = forward.attention

    def small_memory(packed, wanted):
        if len(packed.tokens) > 512:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return attention(packed, wanted)

    forward.attention = small_memory
    assert warm_up(forward, 1000) == [256, 512]
    forward.attention = lambda packed, wanted: (_ for _ in ()).throw(RuntimeError("device-side assert triggered"))
    with pytest.raises(RuntimeError, match="device-side assert"):
        warm_up(forward, 1000)


def test_what_is_not_compiled_is_not_warmed_up():
    model = AutoModelForSequenceClassification.from_config(make_config("llama", num_labels=3)).eval()
    assert warm_up(ForwardPass(model, "last_token", PAD, attention=SequenceAttention)) == []
    assert warm_up(ForwardPass(model, "last_token", PAD, packed=False)) == []


def test_common_sizes_are_few_whatever_the_budget():
    for budget in np.random.default_rng(0).integers(1, 70_000, 50):
        sizes = common_sizes(int(budget))
        assert len(sizes) <= 3
        assert max(sizes) >= budget
