"""Imports go down only. What a module may import is decided by the floor that its room is on.

A room is a package below ``lmsys_ensemble``, or a module that stands by itself. Rooms on one floor do not import each
other, and the files inside a room do not import each other in a circle.
"""

import ast
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import lmsys_ensemble

PACKAGE = "lmsys_ensemble"
FOLDER = Path(lmsys_ensemble.__file__).parent

FLOORS = (
    ("schema", "errors", "progress", "terminal", "memory", "cache", "flags", "notices", "_version"),
    ("documents", "probabilities", "settings", "streams"),
    ("files",),
    ("data", "evaluation", "journal"),
    ("encoding", "blending", "cleaning"),
    ("compute",),
    ("modeling", "report", "lexical"),
    ("bases",),
    ("scorers", "training", "merging"),
    ("hosting", "config", "testing"),
    ("runtime",),
    ("ensemble", "arguments"),
    ("commands",),
    ("cli",),
    ("__main__",),
)
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}

HEAVY = {"torch", "transformers", "peft", "bitsandbytes"}
HEAVY_ROOMS = {"bases", "compute", "merging", "modeling", "training"}


def room_of(module: str) -> str:
    """Return ``scorers`` for ``lmsys_ensemble.scorers.base``."""
    return module.split(".")[1] if module != PACKAGE else ""


def imported_modules(source: str, module: str, is_package: bool = False) -> Iterator[tuple[int, str]]:
    """Yield line and name of every module that a source imports: at its top, in functions, for type checkers."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, name.name) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = module.split(".")
                parents = parents[: len(parents) - node.level + is_package]
                base = ".".join([*parents, *([node.module] if node.module else [])])
            if base == PACKAGE:
                yield from ((node.lineno, exported_from(name.name)) for name in node.names)
            else:
                yield from ((node.lineno, submodule(base, name.name)) for name in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in {"import_module", "__import__"}:
                yield node.lineno, str(node.args[0].value)


def exported_from(name: str) -> str:
    """Return the module that ``from lmsys_ensemble import name`` reaches."""
    if name.startswith("__"):
        return PACKAGE
    return lmsys_ensemble._EXPORTS.get(name, f"{PACKAGE}.{name}")


def submodule(base: str, name: str) -> str:
    """Return the module that ``from base import name`` reaches: `base`, or a module inside it."""
    inside = FOLDER.parent.joinpath(*base.split("."), f"{name}.py")
    return f"{base}.{name}" if base.startswith(f"{PACKAGE}.") and inside.is_file() else base


def faults(source: str, module: str, is_package: bool = False) -> list[str]:
    """Return what a module imports and must not."""
    room, found = room_of(module), []
    if room not in FLOOR_OF:
        return [f"{module} is on no floor: enter {room!r} into FLOORS of this test, where the design wants it"]
    for line, imported in dict.fromkeys(imported_modules(source, module, is_package)):
        where = f"{module}, line {line}: imports {imported}"
        if imported.split(".")[0] in HEAVY and room not in HEAVY_ROOMS:
            found.append(f"{where}; only {', '.join(sorted(HEAVY_ROOMS))} may")
        if imported.split(".")[0] != PACKAGE:
            continue
        if imported == PACKAGE:
            found.append(f"{where}, which stands above all: take the version from {PACKAGE}._version")
            continue
        other = room_of(imported)
        if other not in FLOOR_OF:
            found.append(f"{where}, which is on no floor: enter {other!r} into FLOORS of this test")
        elif FLOOR_OF[other] > FLOOR_OF[room]:
            found.append(f"{where}, which is on floor {FLOOR_OF[other]}, above its own, {FLOOR_OF[room]}")
        elif FLOOR_OF[other] == FLOOR_OF[room] and other != room:
            found.append(f"{where}, a neighbour on floor {FLOOR_OF[room]}")
    return found


def find_circle(imports: Mapping[str, set[str]]) -> list[str]:
    """Return modules that import each other in a circle, the first one again at the end; empty where there is none."""
    finished: set[str] = set()

    def visit(module: str, path: list[str]) -> list[str]:
        if module in path:
            return [*path[path.index(module) :], module]
        if module in finished:
            return []
        for other in sorted(imports.get(module, ())):
            if circle := visit(other, [*path, module]):
                return circle
        finished.add(module)
        return []

    for module in sorted(imports):
        if circle := visit(module, []):
            return circle
    return []


def modules() -> list[tuple[str, Path]]:
    """Return name and file of every module but the package's own, which only re-exports."""
    named = []
    for path in sorted(FOLDER.rglob("*.py")):
        parts = path.relative_to(FOLDER).with_suffix("").parts
        name = ".".join([PACKAGE, *(part for part in parts if part != "__init__")])
        if name != PACKAGE:
            named.append((name, path))
    return named


@pytest.mark.parametrize(("module", "path"), modules(), ids=[name for name, _ in modules()])
def test_a_module_imports_only_from_lower_floors_and_torch_only_where_models_are(module, path):
    assert faults(path.read_text(encoding="utf-8"), module, path.name == "__init__.py") == []


def without_typing(source: str) -> str:
    """Return a source without what only type checkers read."""

    class Strip(ast.NodeTransformer):
        def visit_If(self, node):
            return None if ast.unparse(node.test) == "TYPE_CHECKING" else self.generic_visit(node)

    return ast.unparse(Strip().visit(ast.parse(source)))


def test_no_modules_import_each_other_in_a_circle():
    known = dict(modules())
    imports = {
        module: {
            other
            for _, other in imported_modules(
                without_typing(path.read_text("utf-8")), module, path.name == "__init__.py"
            )
        }
        & known.keys() - {module}
        for module, path in known.items()
    }
    assert sum(map(len, imports.values())) > 300
    assert find_circle(imports) == []


def test_only_imports_that_are_carried_out_make_a_circle():
    source = "import a\nif TYPE_CHECKING:\n    import b\ndef load():\n    import c"
    assert [name for _, name in imported_modules(without_typing(source), "d")] == ["a", "c"]


def test_a_circle_is_found():
    assert find_circle({"a": {"b"}, "b": {"c"}, "c": {"d", "b"}, "d": set()}) == ["b", "c", "b"]
    assert find_circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_every_room_of_the_house_was_looked_at_and_is_there():
    assert {room_of(name) for name, _ in modules()} == set(FLOOR_OF)


@pytest.mark.parametrize("package", sorted(path.parent for path in FOLDER.glob("*/__init__.py")), ids=lambda p: p.name)
def test_every_room_opens_with_a_map_that_names_its_modules(package):
    text = ast.get_docstring(ast.parse((package / "__init__.py").read_text(encoding="utf-8"))) or ""
    named = [line.split()[0].strip("`") for line in text.splitlines() if line.startswith("`")]
    assert sorted(named) == sorted(path.stem for path in package.glob("*.py") if path.stem != "__init__")


def mirror_of(path: Path) -> Path:
    """Return the file of tests that belongs to a module."""
    return Path(__file__).parent / path.parent.relative_to(FOLDER) / f"test_{path.stem.strip('_')}.py"


@pytest.mark.parametrize("room", ["", *sorted(path.parent.name for path in FOLDER.glob("*/__init__.py"))])
def test_every_module_is_mirrored_by_a_file_of_tests_of_its_name(room):
    modules = [path for path in (FOLDER / room).glob("*.py") if path.stem != "__init__"]
    assert modules
    without = {path.stem for path in modules if not mirror_of(path).is_file()}
    assert not without, f"write {room or 'tests'}/test_<module>.py"


@pytest.mark.parametrize(
    ("module", "source", "words"),
    [
        ("data.battles", "import lmsys_ensemble.ensemble", "floor 11, above its own, 3"),
        ("data.battles", "from lmsys_ensemble.encoding import tokens", "floor 4"),
        ("data.battles", "from lmsys_ensemble import Ensemble", "imports lmsys_ensemble.ensemble"),
        ("data.battles", "from lmsys_ensemble import ensemble", "imports lmsys_ensemble.ensemble"),
        ("data.battles", "from lmsys_ensemble import __version__", "_version"),
        ("data.battles", "from lmsys_ensemble.evaluation import folds", "a neighbour on floor 3"),
        ("scorers.base", "def load():\n    from lmsys_ensemble.runtime.workers import score_all", "line 2"),
        ("scorers.base", "if TYPE_CHECKING:\n    from lmsys_ensemble.ensemble import Ensemble", "floor 11"),
        ("scorers.base", "from ..runtime import workers", "imports lmsys_ensemble.runtime"),
        ("scorers.base", "from importlib import import_module\nimport_module('lmsys_ensemble.cli')", "floor 13"),
        ("scorers.base", "__import__('lmsys_ensemble.cli')", "floor 13"),
        ("scorers.base", "from lmsys_ensemble.training.run import train", "a neighbour on floor 8"),
        ("training.run", "from lmsys_ensemble.scorers.base import Scorer", "a neighbour on floor 8"),
        ("encoding.tokens", "from lmsys_ensemble.blending.blender import Blender", "a neighbour on floor 4"),
        ("journal.journal", "from lmsys_ensemble.runtime.jobs import Job", "floor 10, above its own, 3"),
        ("data.submission", "from lmsys_ensemble.commands.scoring import submit", "floor 12, above its own, 3"),
        ("data.battles", "from lmsys_ensemble.attic import old", "'attic'"),
        ("attic", "import json", "enter 'attic' into FLOORS"),
        ("scorers.base", "def load():\n    import torch", "only bases, compute, merging, modeling, training may"),
        (
            "hosting.devices",
            "from transformers.utils import logging",
            "only bases, compute, merging, modeling, training may",
        ),
    ],
)
def test_a_forbidden_import_is_found(module, source, words):
    (fault,) = faults(textwrap.dedent(source), f"{PACKAGE}.{module}")
    assert words in fault


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("data.battles", "from lmsys_ensemble.probabilities import softmax"),
        ("scorers.classifier", "def load():\n    from lmsys_ensemble.modeling.loading import load"),
        ("scorers.gemma", "from .base import Scorer\nfrom lmsys_ensemble.scorers.classifier import ClassifierScorer"),
        ("commands", "from lmsys_ensemble.data.submission import build_submission"),
        ("cli", "from lmsys_ensemble import commands\nfrom lmsys_ensemble._version import __version__"),
        ("modeling.loading", "import torch\nfrom peft import LoraConfig"),
    ],
)
def test_a_permitted_import_is_permitted(module, source):
    assert faults(source, f"{PACKAGE}.{module}") == []
