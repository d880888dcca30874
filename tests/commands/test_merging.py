"""Merging adapters, and an adapter with its base, on the command line."""

import json

import pytest

from lmsys_ensemble.cli import main
from lmsys_ensemble.modeling.adapters import read_adapter
from tests.merging.test_adapters import make_fold
from tests.merging.test_export import finish
from tests.tiny import save_adapter
from tests.training.synthetic import make_preferences


@pytest.fixture
def folds(checkpoints, tmp_path):
    """Return two adapters of one base, as folds leave them."""
    base = checkpoints.base("llama")
    return [make_fold(base, tmp_path / f"fold-{seed}", seed) for seed in (1, 2)]


def test_the_command_line_merges_to_a_smaller_rank(folds, tmp_path, capsys):
    target = tmp_path / "small"
    assert main(["merge-adapters", *map(str, folds), "--output", str(target), "--rank", "2", "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    assert "rank 2, " in said
    assert "0.00% of the update lost" not in said
    assert read_adapter(target).config.r == 2
    assert "lost" in (target / "README.md").read_text()
    assert main(["merge-adapters", *map(str, folds), "--output", str(target), "--device", "cpu"]) == 2
    assert "is not empty; give a new folder, or --overwrite" in " ".join(capsys.readouterr().err.split())
    (tmp_path / "empty").mkdir()
    for name, words in (("empty", "holds no adapter_config.json"), ("none", "there is no adapter folder")):
        assert main(["merge-adapters", str(folds[0]), str(tmp_path / name), "--output", str(tmp_path / "out")]) == 2
        assert words in " ".join(capsys.readouterr().err.split())


def test_the_command_line_merges_and_refuses_what_it_must(checkpoints, tmp_path, capsys):
    base = checkpoints.base("llama")
    adapter = finish(base, save_adapter(base, tmp_path / "adapter", seed=3))
    command = ["merge", "--adapter", str(adapter), "--output", str(tmp_path / "merged"), "--device", "cpu"]
    held = tmp_path / "held.csv"
    make_preferences(12).to_csv(held, index=False)
    assert main([*command, "--input", str(held), "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["files"] == ["model.safetensors"]
    assert values["golden_difference"] < 1e-5
    assert values["figures"]["rows"] == 12
    assert values["figures"]["difference"] == pytest.approx(0, abs=1e-4)
    assert main(command) == 2
    assert "is not empty" in " ".join(capsys.readouterr().err.split())
