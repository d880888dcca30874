import pytest
import torch
from torch._dynamo.exc import TorchDynamoException

from lmsys_ensemble.memory import is_out_of_memory


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
