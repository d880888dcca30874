"""What importing the library costs: nothing that is not used."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import lmsys_ensemble

HEAVY = ("torch", "transformers", "peft", "bitsandbytes", "pandas", "numpy", "tokenizers", "sklearn")
MODELS = ("torch", "transformers", "peft", "bitsandbytes")


def loaded_by(code: str, names: tuple[str, ...]) -> list[str]:
    """Return which of `names` are imported after `code` has run in a fresh interpreter."""
    report = f"import sys\n{code}\nprint(*[name for name in {names!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", report], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split("\n")[-2].split()


@pytest.mark.parametrize("code", ["import lmsys_ensemble", "import lmsys_ensemble; dir(lmsys_ensemble)"])
def test_importing_the_library_imports_nothing_heavy(code):
    assert loaded_by(code, HEAVY) == []


def test_help_and_the_reading_of_a_command_line_import_nothing_heavy():
    words = ["submit", "--test", "a.csv", "--run-dir", "run", "--retry-failed"]
    code = f"from lmsys_ensemble import cli; arguments = cli.make_parser().parse_args({words!r})"
    used = "cli.make_parser().format_help(); cli.COMMANDS['submit'].read(arguments)"
    assert loaded_by(f"{code}; {used}", (*HEAVY, "pydantic", "yaml")) == []


USES = {
    "listing scorers": "from lmsys_ensemble.scorers.registry import list_scorers; assert len(list_scorers()) > 4",
    "every public name": "from lmsys_ensemble import *",
    "making an ensemble": "from lmsys_ensemble import Ensemble, GemmaScorer; Ensemble([GemmaScorer('gemma-2-9b-it')])",
    "every command": "from lmsys_ensemble.cli import COMMANDS; [command.load() for command in COMMANDS.values()]",
}


def test_nothing_but_loading_a_model_imports_torch():
    found = f"print({{what!r}}, *[name for name in {MODELS!r} if name in sys.modules], sep=': ')"
    code = "\n".join(f"{code}\n{found.format(what=what)}" for what, code in USES.items())
    done = subprocess.run([sys.executable, "-c", f"import sys\n{code}"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.splitlines()) == (0, list(USES)), done.stderr


def test_what_is_looked_for_would_be_found():
    assert loaded_by("import lmsys_ensemble.compute.hardware", ("torch", "json", "no_such_module")) == [
        "torch",
        "json",
    ]


def test_every_public_name_resolves_and_is_listed():
    for name in lmsys_ensemble.__all__:
        assert getattr(lmsys_ensemble, name) is not None
    assert dir(lmsys_ensemble) == sorted(lmsys_ensemble.__all__)


def test_all_is_complete_what_is_exported_is_listed_and_known_to_type_checkers():
    public = {name for name in lmsys_ensemble.__all__ if not name.startswith("__")}
    assert public == set(lmsys_ensemble._EXPORTS)
    tree = ast.parse(Path(lmsys_ensemble.__file__).read_text(encoding="utf-8"))
    (for_checkers,) = [node for node in tree.body if isinstance(node, ast.If)]
    declared = {alias.name: node.module for node in for_checkers.body for alias in node.names}
    assert declared == lmsys_ensemble._EXPORTS


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'Ensembel'"):
        lmsys_ensemble.Ensembel  # noqa: B018


_WATCH = """
import importlib, logging, os, sys

class Watch:
    def find_spec(self, name, path=None, target=None):
        if name in ("torch", "bitsandbytes"):  # nothing imports the second before the first
            print(logging.getLogger("bitsandbytes").getEffectiveLevel() >= logging.ERROR, flush=True)
            os._exit(0)

sys.meta_path.insert(0, Watch())
importlib.import_module(sys.argv[1])
"""
MODULES = ("modeling.assembly", "modeling.importing", "bases.convert", "training.run", "merging.export")


@pytest.mark.parametrize("module", MODULES)
def test_bitsandbytes_is_quiet_before_it_is_imported(module):
    command = [sys.executable, "-c", _WATCH, f"lmsys_ensemble.{module}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\n", "")


def test_everything_that_imports_bitsandbytes_is_imported_without_a_word():
    code = f"import sys, {', '.join(f'lmsys_ensemble.{module}' for module in MODULES)}"
    command = [sys.executable, "-c", f"{code}; print('bitsandbytes' in sys.modules)"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\n", "")
