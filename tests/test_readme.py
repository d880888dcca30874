"""The README's commands, code and configuration are what the library takes."""

import ast
import re
import shlex
from pathlib import Path

import pandas as pd
import pytest
import yaml

import lmsys_ensemble
from lmsys_ensemble.cli import main, make_parser
from lmsys_ensemble.config import read_config

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def commands():
    shell = "\n".join(blocks("bash")).replace("\\\n", " ")
    lines = [line.split("#")[0].strip() for line in shell.splitlines()]
    in_tables = re.findall(r"^\| `(lmsys-ensemble [^`]*)`", README, flags=re.MULTILINE)
    return [line for line in [*lines, *in_tables] if line.startswith("lmsys-ensemble")]


def test_there_are_commands_to_check():
    assert {"submit", "predict", "evaluate", "train"} <= {shlex.split(command)[1] for command in commands()}


@pytest.mark.parametrize("command", commands())
def test_every_command_is_one_that_the_parser_takes(command):
    words = shlex.split(command)[1:]
    if words == ["import-checkpoint"]:
        pytest.skip("named without its arguments")
    make_parser().parse_args(words)


@pytest.mark.parametrize("code", blocks("python"))
def test_python_imports_only_what_there_is(code):
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and node.module == "lmsys_ensemble":
            for name in node.names:
                assert hasattr(lmsys_ensemble, name.name)


@pytest.mark.parametrize("text", blocks("yaml"))
def test_configurations_are_valid(text, tmp_path):
    (tmp_path / "ensemble.yaml").write_text(text)
    scorers, blender, _ = read_config(tmp_path / "ensemble.yaml")
    assert len(scorers) == len(yaml.safe_load(text)["scorers"])
    assert len(blender.weights) == len(scorers)


def test_links_lead_somewhere():
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link]
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_two_commands_are_targets_of_the_makefile():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)", "\n".join(blocks("bash")), flags=re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE)
    assert "make test" in (ROOT / ".ci" / "run").read_text()


@pytest.mark.bundled
def test_make_submissions_command_writes_a_submission(tmp_path, capsys, excerpt):
    recipe = re.search(r"^submission:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)[1]
    words = shlex.split(recipe.replace("\\\n", " "))[1:]
    paths = {
        "models/default.yaml": ROOT / "models/default.yaml",
        "examples/data/battles.csv": excerpt / "battles.csv",
        "examples/data/sample_submission.csv": excerpt / "sample_submission.csv",
        "submission.csv": tmp_path / "submission.csv",
    }
    assert set(paths) <= set(words)
    assert main([str(paths.get(word, word)) for word in words]) == 0
    written = pd.read_csv(tmp_path / "submission.csv")
    assert written["id"].tolist() == pd.read_csv(excerpt / "battles.csv")["id"].tolist()
    assert str(tmp_path / "submission.csv") in capsys.readouterr().out


@pytest.fixture
def stand_ins(tmp_path, monkeypatch):
    """The files that the README names, and fake scorers for the models, as few people have all of those."""
    battles = pd.read_csv(ROOT / "examples/data/battles.csv")
    battles.to_csv(tmp_path / "test.csv", index=False)
    battles.to_parquet(tmp_path / "more.parquet")
    labelled = battles.assign(winner=[["model_a", "model_b", "tie"][row % 3] for row in range(len(battles))])
    for name in ("labelled.csv", "holdout.csv"):
        labelled.to_csv(tmp_path / name, index=False)
    fake = lmsys_ensemble.FakeScorer

    def named(name):
        return lambda model, adapter, device, quantization: fake(len(name), name=name)

    def bundled(*arguments, **keywords):
        return lmsys_ensemble.ensemble.Ensemble(
            *(arguments or [[fake(1, name="one"), fake(2, name="two")]]), **keywords
        )

    bundled.load = lmsys_ensemble.ensemble.Ensemble.load
    monkeypatch.setattr(lmsys_ensemble, "Ensemble", bundled)
    monkeypatch.setattr(lmsys_ensemble, "GemmaScorer", named("gemma"))
    monkeypatch.setattr(lmsys_ensemble, "LlamaScorer", named("llama"))
    monkeypatch.setattr(fake, "encode", lambda self, battles: pd.Series({"retention": len(battles)}), raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_python_runs_from_top_to_bottom(stand_ins, capsys):
    names = {}
    for code in blocks("python"):
        exec(compile(code, "README.md", "exec"), names)
    table = pd.read_csv("test.csv")
    for predicted in ("probabilities", "first", "second"):
        assert names[predicted]["id"].tolist() == table["id"].tolist()
    assert (stand_ins / "runs/friday").is_dir()
    assert (stand_ins / "ensembles/friday/ensemble.yaml").is_file()
    assert "equal" in capsys.readouterr().out
