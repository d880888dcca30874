"""The third-party package of the examples, built and installed by pip, is a scorer like any other."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lmsys_ensemble import Ensemble, check_scorer, parse_battles
from lmsys_ensemble.cli import main
from lmsys_ensemble.scorers.registry import get_scorer_class

FOLDER = Path(__file__).parents[1] / "examples" / "plugin"


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Install a copy of the package into a folder of its own: a build writes beside its sources."""
    root = tmp_path_factory.mktemp("plugin")
    for name in ("pyproject.toml", "novelty_scorer.py"):
        (root / name).write_bytes((FOLDER / name).read_bytes())
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--target", str(root / "site"), str(root)], check=True)
    return root / "site"


@pytest.fixture
def novelty(installed, monkeypatch):
    monkeypatch.syspath_prepend(installed)
    return get_scorer_class("novelty")


def test_it_is_two_files():
    assert {path.name for path in FOLDER.iterdir() if path.suffix in {".py", ".toml"}} == {
        "pyproject.toml",
        "novelty_scorer.py",
    }


def test_it_keeps_the_contract(novelty):
    check_scorer(novelty(steepness=0.7), tolerance=0)


def test_it_prefers_what_adds_more(novelty, make_battles):
    battles = make_battles(("Name three rivers.", "Name three rivers.", "Danube, Amazon and Mekong."))
    logits = novelty().score(battles)
    assert logits[0].argmax() == 1


def test_it_is_listed_with_its_package_and_its_first_line(novelty, capsys):
    assert main(["scorers"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("novelty")]
    assert "Prefers the response that adds more to the prompt" in line
    assert line.endswith("[novelty-scorer 1.0]")


def test_files_may_name_it_and_a_run_takes_it(novelty, tmp_path, battles_table):
    (tmp_path / "mine.yaml").write_text("scorers:\n- {type: novelty, tie: -1.0}\n- {type: fake, seed: 3}\n")
    battles_table.to_csv(tmp_path / "battles.csv", index=False)
    arguments = ["--input", str(tmp_path / "battles.csv"), "--output", str(tmp_path / "p.csv")]
    assert main(["predict", "--config", str(tmp_path / "mine.yaml"), *arguments]) == 0
    assert len(pd.read_csv(tmp_path / "p.csv")) == len(battles_table)
    scorer = Ensemble.from_config(tmp_path / "mine.yaml").scorers[0]
    assert scorer.tie == -1.0
    assert np.isfinite(scorer.score(parse_battles(battles_table))).all()
