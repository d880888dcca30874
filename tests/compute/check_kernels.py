"""Attention that is compiled, to C++ as there is no GPU: limits on sizes, and kernels that cannot be compiled.

Collected only where they are named: `test_kernels.py` starts a process for them.
"""

import pytest
import torch

from lmsys_ensemble.compute import kernels
from lmsys_ensemble.compute.block_mask import BLOCK
from lmsys_ensemble.compute.kernels import Kernel, Verdicts
from tests.compute.test_kernels import attend_both, in_a_thread

# PyTorch's compiler imports modules of its own that it has itself deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")


@pytest.fixture(autouse=True)
def small_sizes_without_verdicts(monkeypatch):
    """A kernel is compiled for each size, and only once in a process unless it is forgotten."""
    monkeypatch.setattr(kernels, "LEAST_SIZE", 2 * BLOCK)
    monkeypatch.setattr(kernels, "VERDICTS", Verdicts())
    compiled = kernels.compiled_attention
    compiled.cache_clear()
    yield
    compiled.cache_clear()


def test_every_thread_compiles_more_sizes_than_its_own_limit_allows():
    """Settings of the compiler are each thread's: a limit that one thread set did not hold in the next."""
    graphs = torch._dynamo.utils.counters["stats"]

    def reuse():
        assert attend_both(200) < 1e-5, "kernels that are there run while others are compiled"

    def work():
        with torch._dynamo.config.patch(recompile_limit=1):
            assert attend_both(500) < 1e-5
            assert attend_both(500, window=64) < 1e-5

    before = graphs["unique_graphs"]
    reuse()
    in_a_thread(work, meanwhile=reuse)
    assert not kernels.VERDICTS.failed
    assert graphs["unique_graphs"] - before == 2, "a window needs no kernel of its own"


def test_beyond_the_limit_nothing_runs_uncompiled_and_other_sizes_keep_their_kernels(monkeypatch, caplog):
    monkeypatch.setattr(kernels, "MOST_COMPILATIONS", 1)
    assert attend_both(200, softcap=None) < 1e-5
    assert attend_both(500, softcap=None) < 1e-5
    kernel = Kernel(torch.device("cpu"), 16, torch.float32)
    assert kernels.VERDICTS.why_not(kernel, 512)
    assert kernels.VERDICTS.why_not(kernel, 256) is None
    assert "at 512 tokens" in caplog.text
    assert attend_both(190, softcap=None) < 1e-5
    assert kernels.VERDICTS.why_not(kernel, 256) is None


def test_a_kernel_whose_compiler_fails_leaves_the_others_alone(caplog):
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
