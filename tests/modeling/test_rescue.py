import logging

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification

from lmsys_ensemble.encoding.batches import pack_batches
from lmsys_ensemble.modeling.forward import ForwardPass
from lmsys_ensemble.modeling.rescue import score_rows
from lmsys_ensemble.progress import NoProgress
from tests.tiny import PAD, encode, make_battles, make_config, plain_logits


class Listener(NoProgress):
    """Keeps what it is told."""

    def __init__(self):
        self.retries, self.failed = [], {}

    def retried(self, why):
        self.retries.append(why)

    def row_failed(self, row, why):
        self.failed[row] = why


@pytest.fixture
def model():
    torch.manual_seed(0)
    return AutoModelForSequenceClassification.from_config(make_config("llama", num_labels=3)).eval()


@pytest.fixture(scope="module")
def encoded():
    result = encode(make_battles(12), 1000)
    assert np.sort(result.lengths)[-2] < result.lengths.max()
    return result


def run_out_of_memory(model, above, error=torch.OutOfMemoryError, says="out of memory"):
    """Let the model's memory end above a number of tokens; return the sizes of the batches that were tried."""
    tried = []

    def check(_, arguments):
        tried.append(arguments[0].numel())
        if tried[-1] > above:
            raise error(says)

    model.get_input_embeddings().register_forward_pre_hook(check)
    return tried


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (torch.OutOfMemoryError, "out of memory"),
        (MemoryError, ""),
        (RuntimeError, "DefaultCPUAllocator: can't allocate memory"),
        (RuntimeError, "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        (torch.AcceleratorError, "CUDA error: out of memory"),
    ],
)
def test_a_batch_that_does_not_fit_is_halved_and_so_are_those_after_it(model, error, says):
    encoded = encode(make_battles(40), 1000)
    expected = plain_logits(model, encoded.ids)
    above = int(encoded.lengths.max())
    budget = 3 * above
    n_batches = len(pack_batches(encoded.lengths, budget))
    tried = run_out_of_memory(model, above, error, says)
    listener = Listener()
    np.testing.assert_allclose(ForwardPass(model, "last_token", PAD).score(encoded, budget), expected, atol=1e-5)
    assert not listener.failed
    n_failed = sum(size > above for size in tried)
    assert 0 < n_failed < n_batches / 2, "a size that failed must not be tried for every batch"

    forward = ForwardPass(model, "last_token", PAD)
    forward.score(encoded, budget, listener)
    assert listener.retries
    assert "out of memory on cpu" in listener.retries[0]
    assert "halving" in listener.retries[0]


def test_a_row_that_does_not_fit_on_its_own_is_left_out_and_the_others_finish(model, encoded, caplog):
    expected = plain_logits(model, encoded.ids)
    longest = int(encoded.lengths.argmax())
    run_out_of_memory(model, int(encoded.lengths[longest]) - 1)
    listener = Listener()
    with caplog.at_level(logging.WARNING):
        logits = ForwardPass(model, "last_token", PAD).score(encoded, 10**6, listener)
    assert list(listener.failed) == [longest]
    assert f"{encoded.lengths[longest]} tokens" in listener.failed[longest]
    assert np.isnan(logits[longest]).all()
    others = np.arange(len(encoded)) != longest
    np.testing.assert_allclose(logits[others], expected[others], atol=1e-5)


def test_another_error_of_the_device_is_not_retried(model, encoded):
    tried = run_out_of_memory(model, 0, ValueError)
    with pytest.raises(ValueError, match="out of memory"):
        ForwardPass(model, "last_token", PAD).score(encoded, 300)
    assert len(tried) == 1


def overflow(model):
    """Let a layer's output grow beyond what float16 holds; norms bring it back."""
    with torch.no_grad():
        mlp = model.base_model.layers[0].mlp
        mlp.up_proj.weight *= 1000
        mlp.down_proj.weight *= 1000
    return model


def test_what_overflows_in_half_precision_is_computed_again_in_float32(model, encoded):
    expected = plain_logits(overflow(model), encoded.ids)
    assert np.isfinite(expected).all()
    half = ForwardPass(model.half(), "last_token", PAD)
    assert not np.isfinite(half(encoded.ids[:1], encoded.fields[:1])).all()
    listener = Listener()
    logits = half.score(encoded, 300, listener)
    assert "computing them again in float32" in listener.retries[0]
    assert not listener.failed
    np.testing.assert_allclose(logits, expected, atol=0.05)
    assert next(model.base_model.parameters()).dtype == torch.float16, "the model must stay as it was"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_row_that_is_not_finite_in_float32_either_fails_alone(model, dtype):
    encoded = encode(make_battles(5))
    poisoned = int(encoded.ids[2][3])
    with torch.no_grad():
        model.base_model.embed_tokens.weight[poisoned] = float("nan")
    struck = [row for row, ids in enumerate(encoded.ids) if poisoned in ids]
    listener = Listener()
    logits = ForwardPass(model.to(dtype), "last_token", PAD).score(encoded, 10**6, listener)
    assert sorted(listener.failed) == struck
    assert set(listener.failed.values()) == {"NaN or infinite logits"}
    assert np.flatnonzero(np.isnan(logits).any(axis=1)).tolist() == struck
    assert bool(listener.retries) == (dtype == torch.float16), "float32 once more would give the same"


def test_the_copies_of_a_failed_row_fail_too():
    class Broken:
        device, n_classes, limit, can_upcast = torch.device("cpu"), 3, None, False

        def __call__(self, ids, fields, families=None, *, upcast=False):
            return np.array([[np.inf, 0, 0]] * len(ids), dtype=np.float32)

    logits, failed = score_rows(Broken(), [np.array([1])] * 2, [np.array([0])] * 2, NoProgress())
    assert list(failed) == [0, 1]
    assert np.isnan(logits).all()
