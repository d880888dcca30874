"""Kernels of attention: sizes, limits of compilation in threads, options by device, and what counts as a failure."""

import functools
import os
import shutil
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch._dynamo.exc import FailOnRecompileLimitHit, Unsupported
from torch._inductor.exc import CppCompileError, InductorError

from lmsys_ensemble.modeling import kernels
from lmsys_ensemble.modeling.attention import AttentionRule, SequenceAttention
from lmsys_ensemble.modeling.block_mask import BLOCK
from lmsys_ensemble.modeling.flex import FlexAttention
from lmsys_ensemble.modeling.kernels import Kernel, Verdicts, is_compilation_failure, kernel_options
from tests.modeling.test_block_mask import packed_rows

# PyTorch's compiler imports modules of its own that it has itself deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")

CUDA = torch.device("cuda:1")

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="no g++: FlexAttention compiles to C++ here")


APART = "LMSYS_ENSEMBLE_TEST_APART"


def in_a_process_of_its_own(test):
    """Run a test in a new process.

    The library compiles attention for GPUs only. Compiled for the CPU, as here, it has crashed in processes that had
    run other tests before; why is not known.
    """

    @functools.wraps(test)
    def apart(*arguments, **fixtures):
        if APART in os.environ:
            return test(*arguments, **fixtures)
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"{__file__}::{test.__name__}"]
        environment = {**os.environ, APART: "1", "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "1 passed" in done.stdout

    return apart


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
    """The C++ kernel is compiled for each size too."""
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


@needs_compiler
@in_a_process_of_its_own
def test_every_thread_compiles_more_sizes_than_its_own_limit_allows(small_sizes):
    """Settings of the compiler are each thread's: a limit that one thread set did not hold in the next."""
    graphs = torch._dynamo.utils.counters["stats"]

    def reuse():
        assert attend_both(200) < 1e-5, "kernels that are there run while others are compiled"

    def work():
        with torch._dynamo.config.patch(recompile_limit=1):
            for n_tokens in (500, 700):
                assert attend_both(n_tokens) < 1e-5
                assert attend_both(n_tokens, window=64) < 1e-5

    before = graphs["unique_graphs"]
    reuse()
    in_a_thread(work, meanwhile=reuse)
    assert not kernels.VERDICTS.failed
    assert graphs["unique_graphs"] - before == 3, "a window needs no kernel of its own"


def test_where_the_limit_is_a_setting_it_holds_in_every_thread():
    def double(tensor):
        return 2 * tensor

    compiled = kernels._with_limit(torch.compile(double, backend="eager", dynamic=False, fullgraph=True))

    def work():
        for n_values in range(2, 2 + 10):  # a thread begins with a limit of 8
            assert compiled(torch.ones(n_values)).sum() == 2 * n_values

    in_a_thread(work)
    in_a_thread(work)


@needs_compiler
@in_a_process_of_its_own
def test_beyond_the_limit_nothing_runs_uncompiled_and_other_sizes_keep_their_kernels(small_sizes, monkeypatch, caplog):
    monkeypatch.setattr(kernels, "MOST_COMPILATIONS", 1)
    assert attend_both(200, softcap=None) < 1e-5
    assert attend_both(500, softcap=None) < 1e-5
    kernel = Kernel(torch.device("cpu"), 16, torch.float32)
    assert kernels.VERDICTS.why_not(kernel, 512)
    assert kernels.VERDICTS.why_not(kernel, 256) is None
    assert "at 512 tokens" in caplog.text
    assert attend_both(190, softcap=None) < 1e-5
    assert kernels.VERDICTS.why_not(kernel, 256) is None


@needs_compiler
@in_a_process_of_its_own
def test_a_kernel_whose_compiler_fails_leaves_the_others_alone(small_sizes, caplog):
    with torch._inductor.config.patch({"cpp.cxx": ("false",), "fx_graph_cache": False}):
        assert attend_both(200, head_size=32) < 1e-5
        assert attend_both(200, head_size=32) < 1e-5
    failed = Kernel(torch.device("cpu"), 32, torch.float32, 50.0)
    assert "C++" in kernels.VERDICTS.why_not(failed, 256)
    assert list(kernels.VERDICTS.failed) == [(failed, 0)]
    assert caplog.text.count("head size 32 in float32 with soft-capping at 50 on cpu") == 1
    called = []
    assert attend_both(200, head_size=32, run=lambda *tensors, **options: called.append(tensors)) < 1e-5
    assert not called, "a verdict holds for all sizes"
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert attend_both(200, head_size=16) < 1e-5
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == graphs + 1
    assert list(kernels.VERDICTS.failed) == [(failed, 0)]


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
