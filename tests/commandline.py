"""The command line in tests: a working folder, and a call that returns what was printed."""

import json

import numpy as np
import pandas as pd
import pytest
import yaml

from lmsys_ensemble.cli import main
from lmsys_ensemble.schema import THREE_WAY


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Return a working folder with test.csv, labelled.csv, sample.csv and ensemble.yaml."""
    monkeypatch.chdir(tmp_path)
    ids = [2**31 + row for row in range(12)]
    texts = {name: [json.dumps([f"{name} {row}"]) for row in ids] for name in ("prompt", "response_a", "response_b")}
    table = pd.DataFrame({"id": ids, **texts})
    table.to_csv("test.csv", index=False)
    labels = np.eye(3)[np.arange(12) % 3]
    labelled = table.assign(source=["one", "two"] * 6)
    labelled[list(THREE_WAY.columns)] = labels
    labelled.to_csv("labelled.csv", index=False)
    sample = pd.DataFrame({"id": ids[::-1], **dict.fromkeys(THREE_WAY.columns, 1 / 3)})
    sample.to_csv("sample.csv", index=False)
    scorers = [{"type": "fake", "seed": 1, "name": "one"}, {"type": "fake", "seed": 2, "name": "two"}]
    write_config(scorers)
    return tmp_path


def write_config(scorers, blender=None):
    with open("ensemble.yaml", "w") as file:
        yaml.safe_dump({"version": 1, "scorers": scorers, "blender": blender or {"weights": [3, 1]}}, file)


def run(capsys, *arguments):
    capsys.readouterr()  # what fixtures have printed
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err
