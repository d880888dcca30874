import pytest
import torch
from torch._dynamo.exc import TorchDynamoException
from transformers import Gemma2Config

from lmsys_ensemble.modeling import hardware
from lmsys_ensemble.modeling.capacity import shape_of
from lmsys_ensemble.modeling.hardware import (
    LEAST_TOKENS,
    MOST_TOKENS,
    free_bytes,
    is_out_of_memory,
    tokens_that_fit,
)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.50 GiB. GPU 1 has 14.74 GiB"),
        MemoryError(),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be reported later"),
        torch.AcceleratorError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("CUDA driver error: out of memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory: you tried to"),
        RuntimeError("std::bad_alloc"),
    ],
    ids=lambda error: f"{type(error).__name__}: {str(error)[:40]}",
)
def test_out_of_memory_is_known_in_all_its_clothes(error):
    assert is_out_of_memory(error)


def test_out_of_memory_is_known_inside_what_was_raised_from_it():
    wrapped = ValueError("no kernel")
    wrapped.__cause__ = torch.OutOfMemoryError("CUDA out of memory")
    assert is_out_of_memory(wrapped)
    compiler = TorchDynamoException("backend failed")
    compiler.inner_exception = RuntimeError("Triton Error [CUDA]: out of memory")
    assert is_out_of_memory(compiler)
    circle = RuntimeError("one")
    circle.__cause__ = circle
    assert not is_out_of_memory(circle)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        torch.AcceleratorError("CUDA error: device-side assert triggered"),
        RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmEx`"),
        RuntimeError("mat1 and mat2 must have the same dtype, but got BFloat16 and Float"),
        ValueError("out of memory"),
        KeyboardInterrupt("out of memory"),
    ],
    ids=lambda error: f"{type(error).__name__}: {str(error)[:40]}",
)
def test_another_fault_of_a_device_is_not_taken_for_it(error):
    assert not is_out_of_memory(error)


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
