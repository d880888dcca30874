import numpy as np
import pytest

from lmsys_ensemble.compute import attention as attention_module
from lmsys_ensemble.modeling.forward import ForwardPass
from tests.tiny import DECODERS, PAD, encode, make_battles


@pytest.mark.parametrize("queries_per_block", [1, 7, 64])
@pytest.mark.parametrize("architecture", DECODERS)
def test_the_size_of_a_block_of_queries_changes_nothing(models, architecture, queries_per_block, monkeypatch):
    encoded = encode(make_battles(5))
    forward = ForwardPass(models[architecture], "last_token", PAD)
    expected = forward.score(encoded, 500)
    monkeypatch.setattr(attention_module, "QUERIES_PER_BLOCK", queries_per_block)
    np.testing.assert_allclose(forward.score(encoded, 500), expected, atol=1e-5)
