import shutil

import huggingface_hub.constants
import pytest

from lmsys_ensemble.errors import CheckError
from lmsys_ensemble.modeling import assembly
from lmsys_ensemble.scorers.reward import RewardScorer
from tests.reward_models import save_reward_adapter, save_reward_model


@pytest.fixture(autouse=True)
def _nothing_is_loaded(monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(assembly, "load_classifier", lambda *_, **__: pytest.fail("weights were loaded"))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_reward_model("llama", tmp_path_factory.mktemp("rewards") / "llama")


@pytest.fixture(scope="module")
def adapter(model, tmp_path_factory):
    return save_reward_adapter(model, tmp_path_factory.mktemp("rewards") / "adapter")


def make(model, **settings):
    return RewardScorer(str(model), **{"device": "cpu", "max_tokens": 150, **settings})


def test_what_is_right_passes_and_what_has_not_been_fetched_is_left_out(model, adapter):
    make(model, quantization="nf4", device="cuda:7", link="rao-kupper").check()
    make(model, adapter=str(adapter)).check()
    make("some/reward-model", revision="abc123").check()


def test_all_that_is_wrong_is_listed_at_once(checkpoints, tmp_path):
    settings = {"link": "davison", "dtype": "float61", "adapter": str(tmp_path / "nowhere"), "merge": True}
    with pytest.raises(CheckError) as caught:
        make(checkpoints.base("llama"), quantization="int8", **settings).check()
    faults = "\n".join(caught.value.faults)
    assert len(caught.value.faults) == 4
    for words in ("did you mean 'davidson'", "float61", "there is no adapter folder", "leave merge out"):
        assert words in faults


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"scale": -1.0}, "scale must be a number above 0"),
        ({"chat": True}, "no chat template"),
        ({"max_tokens": 10}, "max_tokens=10 is too short"),
        ({"max_tokens": 0}, "max_tokens must be a whole number from 1 to 131,072, got 0"),
    ],
)
def test_what_does_not_fit_is_found_without_weights(model, settings, words):
    with pytest.raises(CheckError) as caught:
        make(model, **settings).check()
    (fault,) = caught.value.faults
    assert words in fault


def test_a_head_for_classes_is_no_head_for_rewards(checkpoints):
    with pytest.raises(CheckError, match="is for 3 classes, expected 1"):
        make(checkpoints.classifier("llama")).check()
    with pytest.raises(CheckError, match="score"):
        make(checkpoints.base("llama"), adapter=str(checkpoints.adapter("llama"))).check()
    with pytest.raises(CheckError, match="no trained classification head"):
        make(checkpoints.base("llama")).check()


def test_the_fingerprint_tells_what_changes_a_result(model, adapter, tmp_path):
    fingerprints = [
        make(model, **settings).fingerprint()
        for settings in (
            {},
            {"link": "rao-kupper"},
            {"scale": 2.0},
            {"tie": 0.5},
            {"max_tokens": 149},
            {"bos": False},
            {"eos": False},
            {"adapter": str(adapter)},
            {"soft_capping": False},
            {"dtype": "bfloat16"},
        )
    ]
    assert len({str(one) for one in fingerprints}) == len(fingerprints)
    moved = shutil.copytree(model, tmp_path / "moved")
    assert make(moved, name="other", tokens_per_batch=77).fingerprint() == fingerprints[0]
