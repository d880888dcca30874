import pytest
import torch
from transformers import Gemma2Config

from lmsys_ensemble.compute import hardware
from lmsys_ensemble.compute.capacity import shape_of
from lmsys_ensemble.compute.hardware import (
    LEAST_TOKENS,
    MOST_TOKENS,
    free_bytes,
    tokens_that_fit,
)


def test_what_the_allocator_keeps_for_reuse_is_free(monkeypatch):
    """Where 10 GiB of 16 are reserved and 6 of these taken, the driver says 5 (1 is somebody else's)."""
    gibi = 2**30
    for name, value in (("mem_get_info", (5 * gibi, 16 * gibi)), ("memory_reserved", 10 * gibi)):
        monkeypatch.setattr(torch.cuda, name, lambda device, value=value: value)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 6 * gibi)
    assert free_bytes("cuda:1") == 9 * gibi


@pytest.mark.parametrize("free", [0, 3 * 2**30, 9 * 2**30, 60 * 2**30])
def test_a_budget_keeps_to_the_free_memory_and_its_bounds(monkeypatch, free):
    monkeypatch.setattr(hardware, "free_bytes", lambda device: free)
    config = Gemma2Config(hidden_size=3584, intermediate_size=14336, num_attention_heads=16, num_key_value_heads=8)
    per_token = shape_of(config.to_dict()).activation_bytes(2)
    budgets = {
        kind: tokens_that_fit(config, torch.bfloat16, "cuda:1", **options)
        for kind, options in (("plain", {}), ("padded", {"packed": False}), ("int8", {"int8": True}))
    }
    for budget in budgets.values():
        assert LEAST_TOKENS <= budget <= MOST_TOKENS
        assert budget % 1024 == 0
    if LEAST_TOKENS < budgets["plain"] < MOST_TOKENS:
        assert 1.1 * per_token * budgets["plain"] < 0.9 * free < 1.1 * per_token * (budgets["plain"] + 1024) + 2**30
        assert budgets["padded"] < budgets["plain"]
        assert budgets["int8"] < budgets["plain"]
    assert tokens_that_fit(config, torch.float32, "cpu") == hardware.CPU_TOKENS
    assert (budgets["plain"], free) != (LEAST_TOKENS, 9 * 2**30)
