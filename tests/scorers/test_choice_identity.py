import shutil

import huggingface_hub.constants
import pytest

from lmsys_ensemble.errors import CheckError
from lmsys_ensemble.modeling import choices
from lmsys_ensemble.scorers.choice import ChoiceScorer


@pytest.fixture(autouse=True)
def _nothing_is_loaded(monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(choices, "load_language_model", lambda *_, **__: pytest.fail("weights were loaded"))


def make(model, **settings):
    return ChoiceScorer(str(model), **{"device": "cpu", "labels": ["A", "B", "C"], "max_tokens": 150, **settings})


def test_what_is_right_passes(checkpoints):
    make(checkpoints.base("gemma2"), prompts="brackets", max_tokens=400, quantization="nf4", device="cuda:7").check()


def test_what_has_not_been_fetched_is_left_out():
    make("google/gemma-2-9b-it", revision="abc123").check()


def test_all_that_is_wrong_is_listed_at_once(checkpoints, tmp_path):
    settings = {"prompts": "verdikt", "dtype": "float61", "adapter": str(tmp_path / "nowhere"), "merge": True}
    with pytest.raises(CheckError) as caught:
        make(checkpoints.classifier("llama"), quantization="int8", **settings).check()
    faults = "\n".join(caught.value.faults)
    assert len(caught.value.faults) == 5
    for words in (
        "unknown prompt 'verdikt'",
        "float61",
        "there is no adapter folder",
        "leave merge out",
        "a classifier",
    ):
        assert words in faults


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"labels": ["A", "B", "neither"]}, "the label 'neither' is"),
        ({"labels": ["A", "B", "A"]}, "must differ"),
        ({"chat": True}, "no chat template"),
        ({"max_tokens": 30}, "max_tokens=30 is too short"),
        ({"max_tokens": 0}, "max_tokens must be a whole number from 1 to 131,072, got 0"),
        ({"truncation": "middle"}, "unknown truncation 'middle'; known: tail, per_field, balanced"),
        ({"calibration": "batch"}, "unknown calibration 'batch'"),
        ({"prompts": {"question": "{who}?"}}, "nothing to put in for {who}"),
        ({"model": "bundled:smollm"}, "no bundled model 'smollm'"),
    ],
)
def test_what_does_not_fit_the_tokenizer_is_found_without_weights(checkpoints, settings, words):
    with pytest.raises(CheckError) as caught:
        make(**{"model": checkpoints.base("llama"), **settings}).check()
    (fault,) = caught.value.faults
    assert words in fault


def test_the_fingerprint_follows_the_folders_content_not_its_place(checkpoints, tmp_path):
    base = checkpoints.base("llama")
    moved = shutil.copytree(base, tmp_path / "moved")
    assert make(moved).fingerprint() == make(base).fingerprint()
    text = (moved / "tokenizer_config.json").read_text()
    (moved / "tokenizer_config.json").write_text(
        text.replace("{", '{"chat_template": "x{{ messages[-1].content }}y",', 1)
    )
    assert make(moved).fingerprint()["encoding"] != make(base).fingerprint()["encoding"]
