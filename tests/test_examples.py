"""The examples: their data, their script, and their notebooks, as committed and executed again."""

import json
import re
import runpy
import shutil
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
from jupyter_client.kernelspec import KernelSpecManager
from nbclient import NotebookClient

from lmsys_ensemble import parse_battles, read_table
from lmsys_ensemble.errors import EnsembleError
from lmsys_ensemble.schema import TEXT_COLUMNS

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
NOTEBOOKS = ["quickstart.ipynb", "two_gpus.ipynb"]
ABSOLUTE_PATH = re.compile(r"""(?:^|[\s'"(=])(?:/\w[\w.-]*){2,}|\b[A-Z]:\\\w""", re.MULTILINE)
SETTINGS = ("TEST", "SAMPLE", "OUT", "GEMMA", "GEMMA_ADAPTER", "LLAMA", "LLAMA_ADAPTER")


@pytest.fixture(scope="module")
def table():
    return read_table(EXAMPLES / "data" / "battles.csv")


@pytest.fixture
def environment(tmp_path, monkeypatch):
    """Settings of the user of these tests must not reach the examples, nor his Jupyter's configuration."""
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "jupyter"))


def execute(name, folder):
    """Execute a copy of a notebook with the interpreter that runs the tests, and return it with its outputs."""
    shutil.copytree(EXAMPLES / "data", folder / "data")
    notebook = nbformat.read(EXAMPLES / name, as_version=4)
    client = NotebookClient(notebook, kernel_name="python3", timeout=600, resources={"metadata": {"path": str(folder)}})
    # Without folders, "python3" is this interpreter, whatever kernels are installed.
    client.create_kernel_manager().kernel_spec_manager = KernelSpecManager(kernel_dirs=[])
    return client.execute()


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def output_texts(notebook):
    """Return the text of every output, by its kind."""
    for cell in code_cells(notebook):
        for output in cell.outputs:
            if output.output_type == "stream":
                yield output.name, output.text
            else:
                yield from output.get("data", {}).items()


def printed(notebook):
    return "".join(text for kind, text in output_texts(notebook) if kind == "stdout")


def check_submission(path, table):
    submission = pd.read_csv(path)
    assert submission.columns.tolist() == ["id", "winner_model_a", "winner_model_b", "winner_tie"]
    assert submission["id"].dtype == np.int64
    assert submission["id"].tolist() == table["id"].tolist()
    probabilities = submission.drop(columns="id").to_numpy()
    assert (probabilities > 0).all()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-9)
    assert len(np.unique(probabilities.round(6), axis=0)) == len(table)


class TestData:
    def test_battles_parse(self, table):
        battles = parse_battles(table)
        assert len(battles) == 24
        assert battles.ids.dtype == np.int64
        assert battles.ids.max() > np.iinfo(np.int32).max
        assert battles.n_replaced_surrogates == 0
        assert {1, 2, 3, 4} == {len(prompt) for prompt in battles.prompts}

    def test_battles_hold_the_difficult_cases(self, table):
        raw = (EXAMPLES / "data" / "battles.csv").read_text(encoding="ascii")
        assert r"\ud83c\udf4d" in raw
        cells = [json.loads(cell) for name in TEXT_COLUMNS for cell in table[name]]
        turns = [turn for cell in cells for turn in cell]
        assert None in turns
        assert [""] in cells
        texts = [turn for turn in turns if turn]
        for part in ("\U0001f34d", "<eos>", "null", '"', ",", "\n", "```python", "¿"):
            assert any(part in text for text in texts), part
        assert max(len(text.split()) for text in texts) > 900

    def test_sample_submission_belongs_to_the_battles(self, table):
        sample = read_table(EXAMPLES / "data" / "sample_submission.csv")
        assert sample["id"].tolist() == table["id"].tolist()
        np.testing.assert_allclose(sample.drop(columns="id").sum(axis=1), 1, atol=1e-12)


@pytest.mark.parametrize("name", NOTEBOOKS)
class TestCommittedNotebooks:
    def test_is_executed_from_top_to_bottom(self, name):
        cells = code_cells(nbformat.read(EXAMPLES / name, as_version=4))
        assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
        assert sum(bool(cell.outputs) for cell in cells) >= 5

    def test_outputs_hold_no_errors_warnings_widgets_or_paths(self, name):
        notebook = nbformat.read(EXAMPLES / name, as_version=4)
        assert "error" not in {output.output_type for cell in code_cells(notebook) for output in cell.outputs}
        for kind, text in output_texts(notebook):
            assert kind in {"stdout", "text/plain", "text/html"}
            assert "Warning" not in text
            assert not ABSOLUTE_PATH.findall(text)


def test_two_gpus_notebook_runs_on_tiny_models(tmp_path, environment, table):
    notebook = execute("two_gpus.ipynb", tmp_path)
    assert "MEANINGLESS" in printed(notebook)
    assert "recipe.json, golden.json" in printed(notebook)
    assert "stderr" not in {kind for kind, _ in output_texts(notebook)}
    check_submission(tmp_path / "submission.csv", table)


@pytest.mark.bundled
def test_quickstart_notebook_runs(tmp_path, environment, table):
    notebook = execute("quickstart.ipynb", tmp_path)
    assert "the blend is their average: True" in printed(notebook)
    assert "same predictions: True" in printed(notebook)
    assert "stderr" not in {kind for kind, _ in output_texts(notebook)}
    check_submission(tmp_path / "submission.csv", table)


@pytest.fixture
def run_script(environment, monkeypatch):
    """Return a function that runs the script as the main module, from the root of the repository."""

    def run(**settings):
        for name, value in settings.items():
            monkeypatch.setenv(name, str(value))
        monkeypatch.chdir(ROOT)
        runpy.run_path(str(EXAMPLES / "build_submission.py"), run_name="__main__")

    return run


@pytest.mark.bundled
def test_build_submission_script_runs_with_the_bundled_ensemble(tmp_path, run_script, excerpt, capfd):
    run_script(TEST=excerpt / "battles.csv", OUT=tmp_path / "submission.csv")
    captured = capfd.readouterr()
    assert "wrote 6 rows" in captured.out
    assert "Warning" not in captured.err
    check_submission(tmp_path / "submission.csv", read_table(excerpt / "battles.csv"))


@pytest.mark.skipif(torch.cuda.device_count() >= 2, reason="this machine has two GPUs")
def test_build_submission_script_does_not_fall_back_without_a_word(tmp_path, run_script):
    with pytest.raises(EnsembleError, match="not on this machine"):
        run_script(GEMMA="g", GEMMA_ADAPTER="ga", LLAMA="l", LLAMA_ADAPTER="la", OUT=tmp_path / "out.csv")
    assert not (tmp_path / "out.csv").exists()
