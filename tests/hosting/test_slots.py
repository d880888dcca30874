import os

import pytest

from lmsys_ensemble.compute import hardware
from lmsys_ensemble.hosting import slots
from lmsys_ensemble.hosting.devices import assign_devices
from lmsys_ensemble.hosting.slots import Slot, make_slots
from lmsys_ensemble.testing.fake import FakeScorer


class Model(FakeScorer):
    """A fake that asks for a device as a model does."""

    needs_device = True


@pytest.fixture
def machine(monkeypatch):
    """Return a function that gives the machine as many GPUs and cores as asked for."""

    def build(n_gpus, n_cores):
        devices = [f"cuda:{index}" for index in range(n_gpus)] or ["cpu"]
        monkeypatch.setattr(hardware, "list_devices", lambda: devices)
        monkeypatch.setattr(slots, "usable_cores", lambda: list(range(n_cores)))

    return build


def slots_of(scorers, allowed=None):
    return [(slot.device, slot.cores) for slot in make_slots(scorers, assign_devices(scorers, allowed), allowed)]


@pytest.mark.parametrize(
    ("n_cores", "expected"),
    [
        (1, [(0,)]),
        (2, [(0,), (1,)]),
        (8, [(core,) for core in range(8)]),
        (20, [(0, 1), (2, 3, 4), (5, 6), (7, 8, 9), (10, 11), (12, 13, 14), (15, 16), (17, 18, 19)]),
    ],
)
def test_models_on_the_cpu_have_a_slot_a_core_and_at_most_eight_that_share_all_cores(machine, n_cores, expected):
    machine(0, n_cores)
    assert slots_of([Model(device="auto")]) == [("cpu", cores) for cores in expected]


def test_every_gpu_that_somebody_can_use_is_a_slot(machine):
    machine(2, 1)
    gpus = [("cuda:0", ()), ("cuda:1", ())]
    assert slots_of([Model(device="auto")]) == gpus
    assert slots_of([Model(device="cuda:1")]) == gpus[1:]
    assert slots_of([Model(device="auto"), FakeScorer(), FakeScorer()]) == [*gpus, ("cpu", ()), ("cpu", ())]
    assert slots_of([Model(device="cpu"), Model(device="auto")]) == [*gpus, ("cpu", (0,))]


def test_a_device_that_is_named_several_times_has_several_slots(machine):
    machine(2, 2)
    assert slots_of([Model(device="auto")], ["cuda:1", "cuda:1"]) == [("cuda:1", ())] * 2
    assert slots_of([FakeScorer()], ["cpu"] * 4) == [("cpu", ())] * 4
    assert slots_of([Model(device="cpu")], ["cpu"] * 3) == [("cpu", (0,)), ("cpu", (1,)), ("cpu", (0,))]
    assert slots_of([FakeScorer()], ["cuda:0"]) == [("cpu", ())]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="threads cannot be kept on cores here")
def test_a_slot_keeps_its_thread_on_its_cores_only_while_it_computes():
    before = os.sched_getaffinity(0)
    core = min(before)
    with Slot(0, "cpu", (core,)).pinned():
        assert os.sched_getaffinity(0) == {core}
    assert os.sched_getaffinity(0) == before
    with Slot(0, "cpu", (100_000,)).pinned():  # which is not there: then the system decides
        assert os.sched_getaffinity(0) == before
