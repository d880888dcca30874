"""What a classifier's constructor is told of computing reaches loading in one object."""

import inspect
from dataclasses import FrozenInstanceError, fields, replace

import pytest
import torch

from lmsys_ensemble import ClassifierScorer
from lmsys_ensemble.modeling import assembly
from lmsys_ensemble.modeling.settings import ComputeSettings
from tests.tiny import make_recipe

CHOSEN = {
    "device": "cpu", "dtype": "bfloat16", "quantization": "int8", "attn_implementation": "eager", "merge": False,
    "unpack": True, "tokens_per_batch": 7,
}  # fmt: skip


def test_every_setting_is_an_argument_of_the_scorer_with_the_same_default():
    parameters = inspect.signature(ClassifierScorer).parameters
    assert {field.name: parameters[field.name].default for field in fields(ComputeSettings)} == {
        field.name: field.default for field in fields(ComputeSettings)
    }
    assert ClassifierScorer("model").compute == ComputeSettings()


def test_what_the_scorer_is_told_is_passed_on_and_read_back():
    assert CHOSEN.keys() == {field.name for field in fields(ComputeSettings)}
    scorer = ClassifierScorer("model", **CHOSEN)
    assert scorer.compute == ComputeSettings(**CHOSEN)
    assert scorer.settings().items() >= CHOSEN.items()
    assert scorer.replica().compute == scorer.compute


def test_what_was_passed_on_does_not_change_when_a_setting_is_assigned():
    scorer = ClassifierScorer("model")
    passed_on = scorer.compute
    with pytest.raises(FrozenInstanceError):
        passed_on.dtype = "float16"
    scorer.dtype = "float16"
    assert (passed_on.dtype, scorer.compute.dtype) == ("auto", "float16")


@pytest.mark.parametrize("asked", ["auto", "cpu"])
def test_loading_takes_the_object_itself_with_the_device_that_was_found(checkpoints, monkeypatch, asked):
    taken = []

    def stop(base, recipe, settings, **others):
        taken.append(settings)
        raise InterruptedError

    monkeypatch.setattr(assembly, "assemble", stop)
    scorer = ClassifierScorer(str(checkpoints.classifier("llama")), **{**CHOSEN, "device": asked})
    with pytest.raises(InterruptedError):
        scorer.load("cpu")
    assert taken == [replace(scorer.compute, device="cpu")]


def test_a_base_is_loaded_by_settings_and_recipe():
    recipe = make_recipe(classes=("model_a", "model_b"), head={"layers": 2}, soft_capping=False)
    load = assembly.LoadSettings.of(ComputeSettings(**CHOSEN), recipe)
    assert load == assembly.LoadSettings(2, "cpu", torch.bfloat16, "int8", "eager", 2, soft_capping=False)
