import pytest
from peft import LoraConfig
from safetensors import safe_open

from lmsys_ensemble.errors import ModelError
from lmsys_ensemble.modeling.adapter_config import read_lora_config
from lmsys_ensemble.modeling.adapters import shapes_of
from lmsys_ensemble.modeling.skeleton import adapter_skeleton
from tests.tiny import ARCHITECTURES, make_recipe


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_skeleton_has_the_tensors_that_peft_saves_and_no_memory(checkpoints, architecture):
    folder = checkpoints.adapter(architecture)
    tensors = adapter_skeleton(checkpoints.base(architecture), make_recipe(), read_lora_config(folder))
    assert {tensor.device.type for tensor in tensors.values()} == {"meta"}
    with safe_open(folder / "adapter_model.safetensors", "pt") as file:
        assert shapes_of(tensors) == {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118


def test_an_adapter_for_modules_that_are_not_there_has_no_skeleton(checkpoints):
    config = LoraConfig(task_type="SEQ_CLS", target_modules=["nowhere"])
    with pytest.raises(ModelError, match="does not fit"):
        adapter_skeleton(checkpoints.base("llama"), make_recipe(), config)
