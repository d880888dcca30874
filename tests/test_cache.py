from pathlib import Path

import pytest

from lmsys_ensemble.cache import CACHE_VARIABLE, cache_folder


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({CACHE_VARIABLE: "/fast/disk", "XDG_CACHE_HOME": "/other"}, "/fast/disk"),
        ({CACHE_VARIABLE: "", "XDG_CACHE_HOME": "/other"}, "/other/lmsys_ensemble"),
        ({"XDG_CACHE_HOME": ""}, "/home/me/.cache/lmsys_ensemble"),
        ({}, "/home/me/.cache/lmsys_ensemble"),
    ],
)
def test_a_variable_names_the_folder_else_it_is_in_the_users_cache(variables, folder, monkeypatch):
    for name in (CACHE_VARIABLE, "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/me")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert cache_folder() == Path(folder)
