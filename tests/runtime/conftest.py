"""What tests of runs share: a table of sixty rows, chunks of few, a log, and a GPU that is not there."""

import threading
from collections import defaultdict

import pandas as pd
import pytest

from lmsys_ensemble.compute import hardware
from lmsys_ensemble.runtime import items
from tests.hosting.watched import Heavy


@pytest.fixture
def log():
    return []


@pytest.fixture
def gpu(monkeypatch):
    """Pretend that there is one GPU with 8 GiB."""
    taken = defaultdict(int)
    monkeypatch.setattr(Heavy, "gpu", taken)
    monkeypatch.setattr(hardware, "list_devices", lambda: ["cuda:0"])
    monkeypatch.setattr(hardware, "allocated_bytes", taken.__getitem__)
    monkeypatch.setattr(hardware, "peak_bytes", lambda device: 0)
    return taken


@pytest.fixture
def no_thread_is_left():
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(items, "MIN_CHUNK", 60)


@pytest.fixture
def table():
    rows = range(60)
    return pd.DataFrame(
        {
            "id": [1000 + row for row in rows],
            "prompt": [f"question {row}" for row in rows],
            "response_a": ["yes " * (row % 5) for row in rows],
            "response_b": "no",
        }
    )
