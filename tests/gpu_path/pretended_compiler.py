"""PyTorch's compiler made to believe in a GPU of a given kind, up to the machine code of a kernel.

Changes torch for good: only for a process of its own.
"""

import contextlib
import types

import numpy as np
import torch
import triton
from torch._dynamo.device_interface import CudaInterface
from torch._inductor import config
from torch._inductor.async_compile import AsyncCompile, _load_triton_kernel_from_source
from torch._inductor.fx_passes import joint_graph, post_grad
from torch._inductor.runtime import triton_helpers
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils import _triton
from triton.backends.compiler import GPUTarget

from lmsys_ensemble.compute.attention import AttentionRule
from lmsys_ensemble.compute.flex import FlexAttention
from lmsys_ensemble.compute.packing import pack
from lmsys_ensemble.encoding.prefixes import find_families


class Generated(BaseException):
    """Carries a kernel's source out of the compiler, past everything that handles its errors."""

    def __init__(self, name, source):
        super().__init__(name)
        self.name, self.source = name, source


def pretend_card(capability, shared_memory, n_processors):
    """Let torch and Triton find one card of this kind, whose current device is always the first."""
    major, minor = capability
    properties = types.SimpleNamespace(
        name="pretended", major=major, minor=minor, warp_size=32, uuid="pretended", gcnArchName="", is_integrated=0,
        multi_processor_count=n_processors, regs_per_multiprocessor=65_536, max_threads_per_multi_processor=2048,
        max_threads_per_block=1024, total_memory=80 * 2**30, L2_cache_size=40 * 2**20,
        shared_memory_per_block=49_152, shared_memory_per_block_optin=shared_memory,
        shared_memory_per_multiprocessor=shared_memory + 1024,
    )  # fmt: skip
    answers = {
        "is_available": True, "device_count": 1, "current_device": 0, "get_device_name": "pretended",
        "get_device_capability": capability, "get_device_properties": properties, "is_bf16_supported": True,
        "synchronize": None, "set_device": None, "_lazy_init": None, "_exchange_device": 0,
        "_maybe_exchange_device": 0, "get_rng_state": torch.zeros(16, dtype=torch.uint8), "set_rng_state": None,
        "_DeviceGuard": contextlib.nullcontext(),
    }  # fmt: skip
    for name, answer in answers.items():
        setattr(torch.cuda, name, always(answer))
    interface = {
        "is_available": True, "device_count": 1, "current_device": 0, "get_device_properties": properties,
        "get_compute_capability": 10 * major + minor, "is_triton_capable": True, "get_raw_stream": 0,
        "raise_if_triton_unavailable": None,
    }  # fmt: skip
    for name, answer in interface.items():
        setattr(CudaInterface, name, staticmethod(always(answer)))
    CudaInterface.Worker.get_device_properties = staticmethod(always(properties))
    CudaInterface.Worker.current_device = staticmethod(always(0))
    torch._C._cuda_getCurrentRawStream = always(0)
    torch.Tensor.pin_memory = lambda tensor, *_: tensor
    _triton.has_triton = _triton.has_triton_package = always(True)
    joint_graph.lazy_init = post_grad.lazy_init = always(None)
    config.fallback_random = True
    config.compile_threads = 1
    config.use_static_triton_launcher = False
    triton_helpers.set_driver_to_gpu = always(None)
    target = GPUTarget("cuda", 10 * major + minor, 32)
    triton.runtime.driver.set_active(
        types.SimpleNamespace(
            get_current_target=always(target), get_current_device=always(0), get_current_stream=always(0),
            get_active_torch_device=always(torch.device("cuda:0")),
        )
    )  # fmt: skip


def always(answer):
    """Return a function that gives one answer to everything."""
    return lambda *_, **__: answer


def generate(name, source):
    """Stand in for the compilation of a kernel."""
    raise Generated(name, source)


def compile_attention(n_heads, n_key_heads, head_size, dtype, softcap, size):
    """Return Triton's compiled kernel of the library's attention over a batch with shared prefixes and padding."""
    beginning = np.arange(5, 205, dtype=np.int32)
    ids = [np.concatenate([beginning, np.full(size // 4, 300 + row, dtype=np.int32)]) for row in range(3)]
    fields = [np.zeros(len(row), dtype=np.int8) for row in ids]
    AsyncCompile.triton = lambda _, name, source, **__: generate(name, source)
    with FakeTensorMode(allow_non_fake_inputs=True), torch.inference_mode():
        packed = pack(ids, find_families(ids, fields, 10**9), "cuda:0")
        attention = FlexAttention(packed)
        query, key, value = (
            torch.empty(attention.n_tokens, heads, head_size, dtype=dtype, device="cuda:0")
            for heads in (n_heads, n_key_heads, n_key_heads)
        )
        try:
            attention(query, key, value, AttentionRule(head_size**-0.5, softcap, size // 2), False)
        except Generated as generated:
            tuner = _load_triton_kernel_from_source(generated.name, generated.source)
            return tuner._precompile_config(tuner.configs[0]).kernel
    raise RuntimeError("attention ran without a kernel of its own")
