"""Imports go down only. What a module may import is decided by the floor that its room is on."""

import ast
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

import lmsys_ensemble

PACKAGE = "lmsys_ensemble"
FOLDER = Path(lmsys_ensemble.__file__).parent

FLOORS = (
    ("schema", "errors"),
    (
        "files",
        "frames",
        "documents",
        "terminal",
        "memory",
        "arguments",
        "probabilities",
        "metrics",
        "tables",
        "formats",
        "delimited",
        "json_lines",
        "battles",
        "folds",
        "intervals",
        "regression",
        "evaluation",
        "predictions",
        "progress",
    ),
    ("encoding", "blending"),
    ("modeling", "crossfit", "explanation"),
    ("scorers", "training"),
    ("runtime", "config"),
    ("ensemble",),
    ("submission", "commands", "distributed", "report", "parser", "streams"),
    ("cli",),
)
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}

NEIGHBOURS = {1}
"""Floors whose rooms may import each other."""

DOORS = {("commands", "submission"), ("commands", "distributed"), ("commands", "report")}
"""Pairs of rooms on one floor of which the first may import the second: commands only call what the others do."""

HEAVY = {"torch", "transformers", "peft", "bitsandbytes"}
HEAVY_ROOMS = {"modeling", "training"}


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
                yield node.lineno, base
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in {"import_module", "__import__"}:
                yield node.lineno, str(node.args[0].value)


def exported_from(name: str) -> str:
    """Return the module that ``from lmsys_ensemble import name`` reaches."""
    if name.startswith("__"):
        return PACKAGE
    return lmsys_ensemble._EXPORTS.get(name, f"{PACKAGE}.{name}")


def faults(source: str, module: str, is_package: bool = False) -> list[str]:
    """Return what a module imports and must not."""
    room, found = room_of(module), []
    if room not in FLOOR_OF:
        return [f"{module} is on no floor: enter {room!r} into FLOORS of this test, where the design wants it"]
    for line, imported in imported_modules(source, module, is_package):
        where = f"{module}, line {line}: imports {imported}"
        if imported.split(".")[0] in HEAVY and room not in HEAVY_ROOMS:
            found.append(f"{where}; only {' and '.join(sorted(HEAVY_ROOMS))} may")
        if imported.split(".")[0] != PACKAGE or imported == PACKAGE:
            continue
        other = room_of(imported)
        if other not in FLOOR_OF:
            found.append(f"{where}, which is on no floor: enter {other!r} into FLOORS of this test")
        elif FLOOR_OF[other] > FLOOR_OF[room]:
            found.append(f"{where}, which is on floor {FLOOR_OF[other]}, above its own, {FLOOR_OF[room]}")
        elif (
            FLOOR_OF[other] == FLOOR_OF[room]
            and other != room
            and FLOOR_OF[room] not in NEIGHBOURS
            and (room, other) not in DOORS
        ):
            found.append(f"{where}, a neighbour on floor {FLOOR_OF[room]}")
    return found


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


def test_every_room_of_the_house_was_looked_at():
    seen = {room_of(name) for name, _ in modules()}
    assert {"battles", "encoding", "modeling", "scorers", "training", "runtime", "ensemble", "submission"} <= seen


@pytest.mark.parametrize(
    ("module", "source", "words"),
    [
        ("battles", "import lmsys_ensemble.ensemble", "floor 6, above its own, 1"),
        ("battles", "from lmsys_ensemble.encoding import tokens", "floor 2"),
        ("battles", "from lmsys_ensemble import Ensemble", "imports lmsys_ensemble.ensemble"),
        ("battles", "from lmsys_ensemble import ensemble", "imports lmsys_ensemble.ensemble"),
        ("scorers.base", "def load():\n    from lmsys_ensemble.runtime.workers import score_all", "line 2"),
        ("scorers.base", "if TYPE_CHECKING:\n    from lmsys_ensemble.ensemble import Ensemble", "floor 6"),
        ("scorers.base", "from ..runtime import workers", "imports lmsys_ensemble.runtime"),
        ("scorers.base", "from importlib import import_module\nimport_module('lmsys_ensemble.cli')", "floor 8"),
        ("scorers.base", "from lmsys_ensemble.training.run import train", "a neighbour on floor 4"),
        ("training.run", "from lmsys_ensemble.scorers.base import Scorer", "a neighbour on floor 4"),
        ("encoding.tokens", "from lmsys_ensemble.blending.blender import Blender", "a neighbour on floor 2"),
        ("submission", "from lmsys_ensemble.commands import submit", "a neighbour on floor 7"),
        ("battles", "from lmsys_ensemble.attic import old", "'attic'"),
        ("attic", "import json", "enter 'attic' into FLOORS"),
        ("scorers.base", "def load():\n    import torch", "only modeling and training may"),
        ("runtime.devices", "from transformers.utils import logging", "only modeling and training may"),
    ],
)
def test_a_forbidden_import_is_found(module, source, words):
    (fault,) = faults(textwrap.dedent(source), f"{PACKAGE}.{module}")
    assert words in fault


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("battles", "from lmsys_ensemble.probabilities import softmax"),
        ("scorers.classifier", "def load():\n    from lmsys_ensemble.modeling.loading import load"),
        ("scorers.gemma", "from .base import Scorer\nfrom lmsys_ensemble.scorers.classifier import ClassifierScorer"),
        ("commands", "from lmsys_ensemble.submission import build_submission"),
        ("cli", "from lmsys_ensemble import __version__, commands"),
        ("modeling.loading", "import torch\nfrom peft import LoraConfig"),
    ],
)
def test_a_permitted_import_is_permitted(module, source):
    assert faults(source, f"{PACKAGE}.{module}") == []
