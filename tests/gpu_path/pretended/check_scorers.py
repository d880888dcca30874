"""Whole scorers on pretended GPUs: loading, warming up, scoring and closing, each in the thread of its device."""

import numpy as np
import pytest
import torch

from lmsys_ensemble.compute import hardware, kernels
from lmsys_ensemble.modeling import assembly
from lmsys_ensemble.modeling import forward as forward_module
from lmsys_ensemble.runtime.run import Run
from lmsys_ensemble.scorers.llama import LlamaScorer
from tests.gpu_path.pretend import Watch
from tests.gpu_path.pretended.conftest import CAPABILITY, attend
from tests.tiny import make_battles, save_classifier

HALF = torch.float16 if CAPABILITY < (8, 0) else torch.bfloat16


@pytest.fixture
def base(tmp_path):
    """Return a checkpoint, made without pretence."""
    return save_classifier("llama", tmp_path / "base", dtype=torch.bfloat16, initializer_range=0.02)


class Pretending(LlamaScorer):
    """A scorer whose every call is watched in the thread that makes it."""

    def __init__(self, model, *, current, name=None, device="auto"):
        super().__init__(model, name=name, device=device)
        self.current = current
        self.seen = Watch(current)

    def load(self, device=None):
        with self.seen.in_this_thread():
            super().load(device)

    def score_prepared(self, prepared):
        with self.seen.in_this_thread():
            return super().score_prepared(prepared)

    def close(self):
        with self.seen.in_this_thread():
            super().close()


@pytest.fixture
def gpus(base, watch, monkeypatch):
    monkeypatch.setattr(hardware, "list_devices", lambda: ["cuda:0", "cuda:1"])
    monkeypatch.setattr(forward_module, "find_spec", lambda name: name)
    monkeypatch.setattr(kernels, "compiled_attention", lambda kernel: attend)
    monkeypatch.setattr(assembly, "restore_head", lambda *_: None)  # pretended tensors have no digits to restore
    return base, watch.current


def test_each_scorer_touches_its_own_gpu_only(gpus):
    base, current = gpus
    scorers = [Pretending(str(base), current=current, name=f"on {index}", device=f"cuda:{index}") for index in (1, 0)]
    outcome = Run(scorers, make_battles(30), display="off").execute()
    assert all(np.isfinite(probabilities).all() for probabilities in outcome.members)
    for index, scorer in zip((1, 0), scorers, strict=True):
        assert scorer.seen.devices == {f"cuda:{index}"}
        assert scorer.seen.pinned_for == {index}
        assert not scorer.seen.elsewhere
        assert not +scorer.seen.live, "closing frees all"


def test_a_scorer_on_the_second_gpu_leaves_the_callers_device_as_it_was(gpus):
    base, current = gpus
    scorer = Pretending(str(base), current=current, device="cuda:1")
    with scorer:
        model = scorer._forward.model
        assert {str(tensor.device) for tensor in (*model.parameters(), *model.buffers())} == {"cuda:1"}
        assert {tensor.dtype for tensor in model.base_model.parameters()} == {HALF}
        assert model.score.weight.dtype == torch.float32
        assert scorer._forward.tokens_per_batch > 20_000
        assert scorer.score(make_battles(5)).shape == (5, 3)
        assert current.device == 0
        del model
    assert not scorer.seen.elsewhere
    assert not +scorer.seen.live
