"""Weights go to GPUs beside each other; what `from_pretrained` changes for the whole process stays under its lock."""

import threading

import pytest
import torch

from lmsys_ensemble.modeling import transfer as transfer_module
from lmsys_ensemble.modeling.building import LOAD_LOCK
from lmsys_ensemble.modeling.loading import LoadSettings, load_classifier
from lmsys_ensemble.modeling.transfer import can_follow
from tests.tiny import make_config, save_classifier

WAIT_SECONDS = 60


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Return the folder of a checkpoint in every number format."""
    root = tmp_path_factory.mktemp("formats")
    formats = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    return {dtype: save_classifier("llama", root / name, dtype=dtype) for name, dtype in formats.items()}


def load(folder, dtype, device="cpu"):
    return load_classifier(folder, LoadSettings(3, device, dtype), head_follows=False)


def test_two_loads_copy_their_weights_at_the_same_time_and_get_their_own_formats(folders, monkeypatch):
    """Neither copy ends before the other has begun. The device holds no numbers; the copies are kept aside."""
    serial = {dtype: load(folder, dtype).state_dict() for dtype, folder in folders.items()}
    both, copies, errors = threading.Barrier(len(folders)), {}, []
    real = transfer_module.transfer

    def copied(tensor, device):
        assert not LOAD_LOCK._is_owned()
        return tensor.clone()

    def meet(model, device):
        both.wait(WAIT_SECONDS)
        assert torch.get_default_dtype() == torch.float32, "no load has changed it meanwhile"
        both.wait(WAIT_SECONDS)
        real(model, device)

    def work(dtype):
        try:
            for _ in range(5):
                copies[dtype] = load(folders[dtype], dtype, "meta").state_dict()
        except BaseException as error:
            both.abort()
            errors.append(error)

    monkeypatch.setattr(transfer_module, "_copied", copied)
    monkeypatch.setattr("lmsys_ensemble.modeling.loading.transfer", meet)
    threads = [threading.Thread(target=work, args=(dtype,)) for dtype in folders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    for dtype, weights in serial.items():
        assert weights.keys() == copies[dtype].keys()
        for name, tensor in weights.items():
            assert tensor.dtype == copies[dtype][name].dtype
            assert torch.equal(tensor, copies[dtype][name])


def test_every_weight_and_buffer_is_copied(folders):
    model = load(folders[torch.bfloat16], torch.bfloat16, "meta")
    tensors = [*model.parameters(), *model.buffers()]
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    assert {tensor.dtype for tensor in model.parameters()} == {torch.bfloat16}
    assert {tensor.dtype for tensor in model.buffers()} == {torch.float32}, "rotary positions"
    assert model.device.type == "meta"


@pytest.mark.parametrize(
    ("stored", "wanted", "device", "quantization", "expected"),
    [
        (torch.bfloat16, torch.bfloat16, "cuda:1", "none", True),
        (torch.bfloat16, torch.float16, "cuda:1", "none", False),
        (None, torch.bfloat16, "cuda:1", "none", False),
        (torch.bfloat16, torch.bfloat16, "cuda:1", "nf4", False),
        (torch.bfloat16, torch.bfloat16, "cpu", "none", False),
    ],
)
def test_what_loading_changes_on_its_way_is_not_kept_in_the_hosts_memory(
    stored, wanted, device, quantization, expected
):
    assert can_follow(make_config("llama", dtype=stored), wanted, device, quantization) == expected
