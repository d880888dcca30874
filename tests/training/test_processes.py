import pytest

from lmsys_ensemble.errors import ConfigError, DeviceError
from lmsys_ensemble.training.processes import is_main, own_device


@pytest.mark.parametrize("variable", ["ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED"])
def test_launchers_that_would_shard_the_model_are_refused(monkeypatch, variable):
    monkeypatch.setenv(variable, "true")
    with pytest.raises(ConfigError, match=r"is not supported: .* Launch with data parallelism"):
        own_device("auto")


def test_every_process_of_a_launcher_has_its_own_device(monkeypatch):
    monkeypatch.setattr("lmsys_ensemble.compute.hardware.list_devices", lambda: ["cuda:0", "cuda:1"])
    assert (own_device("auto"), is_main()) == ("cuda:0", True)
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("RANK", "1")
    assert (own_device("auto"), is_main()) == ("cuda:1", False)
    with pytest.raises(DeviceError, match="cuda:7"):
        own_device("cuda:7")
