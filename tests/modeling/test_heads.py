import pytest
import torch
from safetensors.torch import load_file, save_file

from lmsys_ensemble.errors import ConfigError, ModelError
from lmsys_ensemble.modeling.heads import is_head_key, missing_head, read_head, restore_head
from tests.tiny import plain_model


def test_a_head_is_told_by_the_first_part_of_its_name():
    assert is_head_key("score.weight")
    assert not is_head_key("model.layers.0.score.weight")


def test_the_head_that_a_folder_holds_is_read_and_restored_with_all_digits(checkpoints):
    folder = checkpoints.classifier("llama")
    found = read_head(folder)
    assert list(found) == ["score.weight"]
    model = plain_model(folder)
    torch.nn.init.zeros_(model.score.weight)
    restore_head(model, folder, "last_token")
    assert torch.equal(model.score.weight, found["score.weight"])


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda weight: weight[:2], ModelError, r"of another shape: score\.weight \(got \(2, .*\), expected \(3, "),
        (lambda weight: weight * float("nan"), ModelError, r"a head on last_token .* 1 not finite: score\.weight$"),
        (None, ConfigError, "has no trained classification head"),
    ],
)
def test_a_head_that_does_not_fit_is_named(checkpoints, tmp_path, change, error, words):
    tensors = load_file(checkpoints.classifier("llama") / "model.safetensors")
    weight = tensors.pop("score.weight")
    if change is not None:
        tensors["score.weight"] = change(weight).contiguous()
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(error, match=words):
        restore_head(plain_model(checkpoints.classifier("llama")), tmp_path, "last_token")


def test_the_cure_for_a_head_that_is_not_there_depends_on_its_kind(tmp_path):
    assert "is kept beside an adapter" in missing_head(tmp_path, "response_spans")
    assert "give adapter=" in missing_head(tmp_path, "last_token")
