"""Scorers that write down what is done with them, for tests of what stays loaded."""

from collections import defaultdict
from typing import ClassVar

from lmsys_ensemble import FakeScorer


class Watched(FakeScorer):
    """Writes what is done with it, and with its replicas, into a log."""

    def __init__(self, seed=0, *, log, name="watched", device="cpu", seconds_per_row=0.0):
        super().__init__(seed, name=name, device=device, seconds_per_row=seconds_per_row)
        self.needs_device = device != "cpu"
        self.log = log

    def load(self, device=None):
        self.log.append((self.name, "load"))

    def score(self, battles):
        self.log.append((self.name, "score"))
        return super().score(battles)

    def close(self):
        self.log.append((self.name, "close"))


class Single(Watched):
    """One slot each."""

    shareable = False


class Failing(Watched):
    """Fails to do what it is told to."""

    def __init__(self, seed=0, *, log, failing="", error=RuntimeError, name="failing", device="cpu"):
        super().__init__(seed, log=log, name=name, device=device)
        self.failing = failing
        self.error = error

    def load(self, device=None):
        super().load(device)
        if self.failing == "load":
            raise self.error("told to")

    def score(self, battles):
        if self.failing == "score":
            raise self.error("told to")
        return super().score(battles)

    def close(self):
        super().close()
        if self.failing == "close":
            raise self.error("told to")

    def fingerprint(self):
        return {"seed": self.seed}


class Heavy(Watched):
    """Takes memory of a GPU that is not there, and raises where there is not enough."""

    gpu: ClassVar = defaultdict(int)

    def __init__(self, seed=0, *, log, n_bytes=6 * 2**30, leak=0, name="heavy", device="cuda:0"):
        super().__init__(seed, log=log, name=name, device=device)
        self.n_bytes = n_bytes
        self.leak = leak
        self._device = None

    def load(self, device=None):
        super().load(device)
        if self.gpu[device] + self.n_bytes > 8 * 2**30:
            raise RuntimeError("CUDA error: out of memory")
        self._device = device
        self.gpu[device] += self.n_bytes

    def close(self):
        super().close()
        if self._device is not None:
            self.gpu[self._device] -= self.n_bytes - self.leak
            self._device = None


def events(log, name=None):
    return [event for scorer, event in log if name in (None, scorer)]


def count(log, event, name=None):
    return events(log, name).count(event)
