"""Kernels of attention: sizes, limits of compilation in threads, options by device, and what counts as a failure."""

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch._dynamo.exc import FailOnRecompileLimitHit, Unsupported
from torch._inductor.exc import CppCompileError, InductorError

from lmsys_ensemble.compute import kernels
from lmsys_ensemble.compute.attention import AttentionRule, SequenceAttention
from lmsys_ensemble.compute.block_mask import BLOCK
from lmsys_ensemble.compute.flex import FlexAttention
from lmsys_ensemble.compute.kernels import Kernel, Verdicts, is_compilation_failure, kernel_options
from tests.compute.test_block_mask import packed_rows

# PyTorch's compiler imports modules of its own that it has itself deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")

CUDA = torch.device("cuda:1")


@pytest.fixture(autouse=True)
def no_verdicts(monkeypatch):
    """Begin without verdicts, and without what other tests compiled."""
    monkeypatch.setattr(kernels, "VERDICTS", Verdicts())
    compiled = kernels.compiled_attention
    compiled.cache_clear()
    yield
    compiled.cache_clear()


@pytest.fixture
def small_sizes(monkeypatch):
    """Attention by sequence, which is compared, takes its time."""
    monkeypatch.setattr(kernels, "LEAST_SIZE", 2 * BLOCK)


def in_a_thread(work, meanwhile=None):
    """Run in a thread of its own, and something else here until it ends; raise what it raises."""
    raised = []

    def guarded():
        try:
            work()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=guarded)
    thread.start()
    while meanwhile and thread.is_alive():
        meanwhile()
        thread.join(0.1)
    thread.join()
    if raised:
        raise raised[0]


def attend_both(n_tokens, head_size=16, softcap=50.0, window=None, run=None):
    """Return the difference between FlexAttention and attention by sequence on one batch."""
    packed = packed_rows([n_tokens - 60, 20], [40])
    generator = torch.Generator().manual_seed(0)
    n = len(packed.tokens)
    query, key, value = (torch.randn(n, heads, head_size, generator=generator) for heads in (2, 1, 1))
    rule = AttentionRule(0.25, softcap, window)
    with torch.inference_mode():
        got = FlexAttention(packed, run=run)(query, key, value, rule, False)
        return float((got - SequenceAttention(packed)(query, key, value, rule, False)).abs().max())


@given(st.integers(1, 300_000))
def test_few_sizes_serve_all_batches(n_tokens):
    size = kernels.rounded_up(n_tokens)
    assert n_tokens <= size
    assert size == kernels.LEAST_SIZE or 2 * size < 3 * n_tokens
    assert size % BLOCK == 0
    assert kernels.rounded_up(size) == size


def test_few_sizes_serve_every_batch_of_the_largest_budget():
    sizes = sorted({kernels.rounded_up(n_tokens) for n_tokens in range(1, 65_537)})
    assert sizes == [2048, 3072, 4096, 6144, 8192, 12288, 16384, 24576, 32768, 49152, 65536]
    assert 5 * len(sizes) < kernels.MOST_COMPILATIONS, "models with other numbers of heads share the limit"


@pytest.mark.skipif(shutil.which("g++") is None, reason="no g++: FlexAttention compiles to C++ here")
def test_attention_is_compiled_and_what_cannot_be_compiled_goes_by_sequence():
    """The library compiles attention for GPUs only.

    Compiled for the CPU, as here, it has crashed in processes that had run other tests before; why is not known.
    """
    checks = Path(__file__).with_name("check_kernels.py")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--noconftest", str(checks)]
    cheaper = {"OMP_NUM_THREADS": "1", "TORCHINDUCTOR_COMPILE_THREADS": "1", "TORCHINDUCTOR_VEC_ISA_OK": "1"}
    done = subprocess.run(command, env={**os.environ, **cheaper}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 passed" in done.stdout


def test_where_the_limit_is_a_setting_it_holds_in_every_thread():
    def double(tensor):
        return 2 * tensor

    compiled = kernels._with_limit(torch.compile(double, backend="eager", dynamic=False, fullgraph=True))

    def work():
        for n_values in range(2, 2 + 10):  # a thread begins with a limit of 8
            assert compiled(torch.ones(n_values)).sum() == 2 * n_values

    in_a_thread(work)
    in_a_thread(work)


class OutOfResources(Exception):
    """As Triton's own, which derives from no error that is there without Triton."""

    __module__ = "triton.runtime.errors"


def inner(error):
    """Wrap an error as PyTorch's compiler does."""
    return InductorError(error, None)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (Unsupported("no"), True),
        (FailOnRecompileLimitHit("limit"), True),
        (inner(OutOfResources("out of resource: shared memory, Required: 153600")), True),
        (OutOfResources("out of resource: shared memory, Required: 153600"), True),
        (CppCompileError(["g++"], "no"), True),
        (RuntimeError("No valid triton configs. OutOfResources: out of resource: shared memory"), True),
        (RuntimeError("Triton Error [CUDA]: invalid argument"), True),
        (RuntimeError("Failed to find C compiler. Please specify via CC environment variable"), True),
        (subprocess.CalledProcessError(1, ["gcc"]), True),
        (inner(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")), False),
        (inner(RuntimeError("Triton Error [CUDA]: out of memory")), False),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (ValueError("shapes"), False),
        (KeyError("layer"), False),
    ],
    ids=lambda value: f"{type(value).__name__}: {value}"[:50],
)
def test_only_what_compilers_say_counts_as_a_failure_of_theirs(error, expected):
    assert is_compilation_failure(error) is expected


def test_memory_that_runs_out_while_a_kernel_is_compiled_is_no_verdict(small_sizes):
    def fails(*tensors, **options):
        raise inner(torch.OutOfMemoryError("CUDA out of memory"))

    with pytest.raises(InductorError):
        attend_both(200, run=fails)
    assert not kernels.VERDICTS.failed


@pytest.mark.parametrize(
    ("properties", "expected"),
    [
        ({"shared_memory_per_block_optin": 166_912, "major": 8, "minor": 0}, None),
        ({"shared_memory_per_block_optin": 232_448, "major": 9, "minor": 0}, None),
        ({"shared_memory_per_block_optin": 101_376, "major": 8, "minor": 9}, {"num_stages": 2}),
        ({"major": 8, "minor": 0}, None),
        ({"major": 8, "minor": 6}, {"num_stages": 2}),
    ],
)
def test_where_shared_memory_is_small_fewer_stages_are_loaded_ahead(properties, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(**properties))
    kernels.shared_memory.cache_clear()
    assert kernel_options(Kernel(CUDA, 256, torch.bfloat16, 50.0)) == expected
    kernels.shared_memory.cache_clear()
    assert kernel_options(Kernel(torch.device("cpu"), 256, torch.bfloat16, 50.0)) is None


def test_float32_is_not_compiled_on_a_gpu():
    assert Kernel(CUDA, 128, torch.bfloat16).suits
    assert Kernel(CUDA, 128, torch.float16).suits
    assert not Kernel(CUDA, 128, torch.float32).suits
    assert Kernel(torch.device("cpu"), 128, torch.float32).suits


def test_what_does_not_suit_a_kernel_goes_by_sequence(small_sizes, monkeypatch):
    called = []
    monkeypatch.setattr(Kernel, "suits", property(lambda kernel: called.append(kernel)))
    assert attend_both(200, run=lambda *tensors, **options: pytest.fail("compiled")) == 0
    assert called == [Kernel(torch.device("cpu"), 16, torch.float32, 50.0)]
