"""What is told without loading; damaged folders are in tests/scorers/test_identity.py."""

import pytest

from lmsys_ensemble.modeling.inspection import adapter_faults, base_faults, setting_faults
from lmsys_ensemble.modeling.settings import ComputeSettings
from tests.tiny import make_recipe

RIGHT = {
    "device": "cuda:1", "dtype": "auto", "quantization": "none", "attn_implementation": "auto", "merge": None,
    "tokens_per_batch": None,
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, []),
        ({"device": "gpu"}, ["unknown device 'gpu'"]),
        ({"dtype": "float23"}, ["unknown dtype 'float23' (did you mean"]),
        ({"quantization": "nf5"}, ["unknown quantization 'nf5' (did you mean"]),
        ({"attn_implementation": "evil/kernel"}, ["names code on the Hub"]),
        ({"merge": True, "quantization": "nf4"}, ["would round the update away"]),
        ({"tokens_per_batch": 0, "device": "tpu"}, ["unknown device 'tpu'", "must be a whole number above 0, got 0"]),
    ],
)
def test_every_wrong_setting_is_told(changes, words):
    faults = list(setting_faults(ComputeSettings(**{**RIGHT, **changes})))
    assert len(faults) == len(words)
    assert all(word in fault for word, fault in zip(words, faults, strict=True))


def test_a_base_needs_a_head_unless_an_adapter_brings_one(checkpoints):
    base = checkpoints.base("llama")
    assert list(base_faults(base, make_recipe(), head_follows=True)) == []
    (fault,) = base_faults(base, make_recipe(), head_follows=False)
    assert "has no trained classification head" in fault
    (fault,) = base_faults(base, make_recipe(head={"layers": 9}), head_follows=True)
    assert "has 4 layers, 9 are asked for" in fault


def test_an_adapter_is_held_against_its_base(checkpoints):
    adapter = checkpoints.adapter("llama")
    assert list(adapter_faults(adapter, None, None)) == []
    assert list(adapter_faults(adapter, checkpoints.base("llama"), make_recipe())) == []
    (fault,) = adapter_faults(adapter, checkpoints.base("llama"), make_recipe(head={"layers": 2}))
    assert "unexpected" in fault
