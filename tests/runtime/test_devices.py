import pytest

from lmsys_ensemble import Ensemble
from lmsys_ensemble.errors import DeviceError
from lmsys_ensemble.modeling import hardware
from lmsys_ensemble.runtime.devices import assign_devices, threads_per_worker
from lmsys_ensemble.scorers.fake import FakeScorer


class Model(FakeScorer):
    """A fake that asks for a device as a model does."""

    needs_device = True
    loaded = False

    def load(self, device=None):
        self.loaded = True


@pytest.fixture
def machine(monkeypatch):
    """Return a function that gives the machine as many GPUs and cores as asked for."""

    def build(n_gpus, n_cores=2):
        devices = [f"cuda:{index}" for index in range(n_gpus)] or ["cpu"]
        monkeypatch.setattr(hardware, "list_devices", lambda: devices)
        monkeypatch.setattr(hardware, "usable_cores", lambda: n_cores)

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
    ("devices", "n_cores", "expected"),
    [
        (["cpu", "cpu"], 8, 4),
        (["cpu", "cpu", "cpu"], 8, 2),
        (["cpu", "cpu", "cpu"], 2, 1),
        (["cpu", "cuda:0"], 8, 8),
        (["cuda:0", "cuda:1"], 8, 0),
    ],
)
def test_scorers_on_the_cpu_use_each_core_once(machine, devices, n_cores, expected):
    machine(2, n_cores)
    scorers = [Model(name=str(position)) for position in range(len(devices))]
    assert threads_per_worker(scorers, devices) == expected
    # Scorers that need no device take no share of the cores.
    assert threads_per_worker([*scorers, FakeScorer()], [*devices, "cpu"]) == expected
