import time

import torch

from lmsys_ensemble.compute import speed


def test_what_else_runs_for_a_moment_does_not_make_a_device_slow(monkeypatch):
    calls = []

    def finish(product):
        calls.append(product)
        time.sleep(0.1 if len(calls) <= 9 else 0.002)

    for name, value in (("_finish", finish), ("_SECONDS", 1.0), ("_ROWS", 8), ("_SIZE", 16)):
        monkeypatch.setattr(speed, name, value)
    found = speed.forward_flops_per_s("cpu", torch.float32, 1)
    assert found > speed.EFFICIENCY * 2.0 * 8 * 16**2 / 0.006
