"""FlexAttention without compilation; what the compiler makes of it is in tests/gpu_path."""

import numpy as np
import pytest
import torch
from torch.nn.attention.flex_attention import flex_attention

from lmsys_ensemble.compute import kernels
from lmsys_ensemble.compute.attention import AttentionRule, SequenceAttention
from lmsys_ensemble.compute.flex import FlexAttention
from lmsys_ensemble.compute.packing import pack
from lmsys_ensemble.encoding.prefixes import Family

pytestmark = pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")


@pytest.mark.parametrize("rule", [AttentionRule(0.25), AttentionRule(0.25, softcap=2.0), AttentionRule(0.25, window=7)])
def test_one_kernel_gives_what_attention_by_sequence_gives(rule, monkeypatch):
    monkeypatch.setattr(kernels, "LEAST_SIZE", 128)
    ids = [np.arange(length, dtype=np.int32) for length in (50, 45, 20)]
    packed = pack(ids, [Family((0, 1), 40), Family((2,), 0)], "cpu")
    torch.manual_seed(0)
    query, key, value = (torch.randn(len(packed.tokens), heads, 16) for heads in (4, 2, 2))
    expected = SequenceAttention(packed)(query, key, value, rule, False)
    got = FlexAttention(packed, run=flex_attention)(query, key, value, rule, False)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)
