"""The guide to training says what is so: its complete recipe is the settings' defaults, its commands are commands."""

import re
import shlex
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from lmsys_ensemble.commands.table import make_parser
from lmsys_ensemble.settings import parse_settings
from lmsys_ensemble.training.settings import TrainSettings
from lmsys_ensemble.training.teacher_settings import DistillationSettings

GUIDE = (Path(__file__).parents[1] / "docs" / "training.md").read_text(encoding="utf-8")
RECIPES = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", GUIDE, flags=re.DOTALL)]
COMMANDS = [
    re.sub(r"^(torchrun .* -m lmsys_ensemble|lmsys-ensemble) | +#.*", "", line)
    for block in re.findall(r"```bash\n(.*?)```", GUIDE, flags=re.DOTALL)
    for line in block.splitlines()
]


def keys(settings: BaseModel, within: str = "") -> set[str]:
    """Return all keys of settings and of their sections."""
    found = set()
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        found |= keys(value, f"{within}{name}.") if isinstance(value, BaseModel) else {f"{within}{name}"}
    return found


def keys_of(values: dict, within: str = "") -> set[str]:
    found = set()
    for name, value in values.items():
        is_section = isinstance(value, dict) and bool(value) and name not in {"holdout"}
        found |= keys_of(value, f"{within}{name}.") if is_section else {f"{within}{name}"}
    return found


def test_the_complete_recipe_names_every_key_with_its_default():
    _, complete, _ = RECIPES
    settings = parse_settings(TrainSettings, complete, "guide")
    required = {name: complete[name] for name in ("name", "scorer", "base_model")}
    assert settings == TrainSettings.model_validate({**required, "data": {"files": complete["data"]["files"]}})
    assert keys_of(complete) == keys(settings)


def test_the_section_on_teachers_names_every_key_with_its_default():
    *_, teachers = RECIPES
    settings = parse_settings(DistillationSettings, teachers, "guide")
    assert settings == DistillationSettings(teachers=[{"file": teachers["teachers"][0]["file"]}])
    assert keys_of(teachers) == keys(settings)
    assert set(teachers["teachers"][0]) == {"file", "values", "weight", "unseen"}


def test_the_small_recipe_is_one():
    parse_settings(TrainSettings, RECIPES[0], "guide")


@pytest.mark.parametrize("command", COMMANDS)
def test_its_commands_are_understood(command):
    make_parser().parse_args(shlex.split(command))


def test_there_are_commands():
    assert len(COMMANDS) > 10
