import pytest

from lmsys_ensemble import Ensemble
from lmsys_ensemble.compute import hardware
from lmsys_ensemble.errors import ConfigError, DeviceError
from lmsys_ensemble.hosting.devices import assign_devices, reachable
from lmsys_ensemble.testing.fake import FakeScorer


class Model(FakeScorer):
    """A fake that asks for a device as a model does."""

    needs_device = True
    loaded = False

    def load(self, device=None):
        self.loaded = True


@pytest.fixture
def machine(monkeypatch):
    """Return a function that gives the machine as many GPUs as asked for."""

    def build(n_gpus):
        devices = [f"cuda:{index}" for index in range(n_gpus)] or ["cpu"]
        monkeypatch.setattr(hardware, "list_devices", lambda: devices)

    return build


@pytest.mark.parametrize(
    ("n_gpus", "asked", "expected"),
    [
        (0, ["auto", "auto"], ["cpu", "cpu"]),
        (0, ["cpu", "auto"], ["cpu", "cpu"]),
        (2, ["cuda:0", "cuda:1"], ["cuda:0", "cuda:1"]),
        (2, ["cuda:1", "cuda:0", "cpu"], ["cuda:1", "cuda:0", "cpu"]),
        (2, ["auto", "auto", "auto"], ["cuda:0", "cuda:1", "cuda:0"]),
        (2, ["auto", "cuda:0"], ["cuda:1", "cuda:0"]),
        (2, ["cpu", "auto", "auto"], ["cpu", "cuda:0", "cuda:1"]),
        (1, ["cpu", "auto", "auto"], ["cpu", "cuda:0", "cuda:0"]),
        (1, ["cuda"], ["cuda:0"]),
    ],
)
def test_pinned_scorers_stay_and_the_others_go_where_the_fewest_are(machine, n_gpus, asked, expected):
    machine(n_gpus)
    assert assign_devices([Model(device=device) for device in asked]) == expected


def test_scorers_that_compute_next_to_nothing_need_no_device(machine):
    machine(1)
    scorers = [FakeScorer(device="auto"), Model(device="auto"), FakeScorer()]
    assert assign_devices(scorers) == ["cpu", "cuda:0", "cpu"]
    assert assign_devices([]) == []


@pytest.mark.parametrize("n_gpus", [0, 1])
@pytest.mark.parametrize("device", ["cuda:7", "mps", "gpu", "cuda:x", ""])
def test_a_device_that_is_not_there_is_refused_before_anything_is_loaded(machine, battles_table, n_gpus, device):
    machine(n_gpus)
    scorers = [Model(name="first", device="auto"), Model(name="second", device=device)]
    there = "cuda:0, cpu" if n_gpus else "cpu"
    expected = (
        f"scorer 'second': device '{device}' is not on this machine, which has {there}. Set device to one of these"
    )
    with pytest.raises(DeviceError, match=expected):
        Ensemble(scorers).predict(battles_table)
    assert not any(scorer.loaded for scorer in scorers)


def test_this_machine_has_what_it_lists():
    for device in (*hardware.list_devices(), "cpu"):
        assert hardware.check_device(device) == device
    with pytest.raises(DeviceError):
        hardware.check_device("cuda:77")


@pytest.mark.parametrize(
    ("allowed", "asked", "expected"),
    [
        (["cuda:1"], ["auto", "auto"], ["cuda:1", "cuda:1"]),
        (["cuda:0", "cuda:1"], ["auto", "cuda"], ["cuda:1", "cuda:0"]),
        (["cuda"], ["auto"], ["cuda:0"]),
        (["cpu", "cpu"], ["auto", "cpu"], ["cpu", "cpu"]),
        (["cpu", "cuda:1"], ["auto", "auto"], ["cuda:1", "cuda:1"]),
    ],
)
def test_a_run_keeps_to_the_devices_that_it_may_use(machine, allowed, asked, expected):
    machine(2)
    assert assign_devices([Model(device=device) for device in asked], allowed) == expected


@pytest.mark.parametrize(
    ("allowed", "device", "error", "words"),
    [
        (["cuda:0"], "cuda:1", DeviceError, "'fake' is pinned to cuda:1, but the run may only use cuda:0"),
        (["cuda:9"], "auto", DeviceError, "'cuda:9' is not on this machine"),
        ([], "auto", ConfigError, "names no device"),
    ],
)
def test_devices_that_cannot_be_used_are_refused(machine, allowed, device, error, words):
    machine(2)
    with pytest.raises(error, match=words):
        assign_devices([Model(device=device)], allowed)


def test_other_devices_may_help_only_where_a_scorer_is_not_pinned():
    everywhere = ["cuda:0", "cuda:1", "cpu"]
    assert reachable(Model(device="cuda:1"), "cuda:1", everywhere) == {"cuda:1"}
    assert reachable(Model(device="auto"), "cuda:1", everywhere) == {"cuda:0", "cuda:1"}
    assert reachable(Model(device="auto"), "cpu", ["cpu"]) == {"cpu"}
    assert reachable(FakeScorer(device="auto"), "cpu", everywhere) == {"cpu"}


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "cpu:0", ""])
def test_names_that_no_device_has_are_refused_even_where_no_scorer_needs_one(name):
    with pytest.raises(ConfigError, match="a device is called cpu, cuda:0"):
        assign_devices([FakeScorer()], ["cpu", name])
