"""Folds replace others together, though they are killed on the way; folders that hold nothing are none."""

import json
from pathlib import Path

import pytest

from lmsys_ensemble.errors import ConfigError
from lmsys_ensemble.training.fold_places import (
    check_runs,
    holds_nothing_yet,
    is_whole,
    mark,
    place,
    present,
    replace,
    replacements,
    take_places,
)
from lmsys_ensemble.training.locks import in_turn, reserved

OLD, NEW = {"n_splits": 3, "seed": 0}, {"n_splits": 2, "seed": 1}


def make_fold(folder, number, run):
    mark(folder, number, run)
    (folder / "scorer.yaml").touch()
    (folder / "oof.parquet").touch()


@pytest.fixture
def folder(tmp_path):
    """Return a folder with three folds of a run, and what was made of them."""
    for number in (1, 2, 3):
        make_fold(tmp_path / f"fold-{number}", number, OLD)
    (tmp_path / "oof.parquet").touch()
    return tmp_path


def runs(folder):
    found = {path.parent.name: json.loads(path.read_text())["run"]["seed"] for path in folder.glob("*/fold.json")}
    return dict(sorted(found.items()))


def test_folds_that_are_replaced_stay_until_all_replacements_are_whole(folder):
    check_runs(folder, OLD, 3)
    replace(folder, (1, 2), NEW)
    assert (present(folder), replacements(folder)) == ({1, 2, 3}, {1, 2})
    assert [place(folder, number).name for number in (1, 2, 3)] == ["next-fold-1", "next-fold-2", "fold-3"]
    check_runs(folder, NEW, 2)
    with pytest.raises(ConfigError, match=r"next-fold-1 is of another run: n_splits is 3, was 2; seed is 0, was 1"):
        check_runs(folder, OLD, 3)
    make_fold(folder / "next-fold-1", 1, NEW)
    take_places(folder, 2)
    assert not is_whole(place(folder, 2))
    assert runs(folder) == {"fold-1": 0, "fold-2": 0, "fold-3": 0, "next-fold-1": 1, "next-fold-2": 1}
    assert (folder / "oof.parquet").exists()
    replace(folder, (1, 2), NEW)
    assert not is_whole(place(folder, 1)), "begun anew"
    replace(folder, (1,), {**NEW, "n_splits": 1})
    assert replacements(folder) == {1}, "a second fold is of no use for one"


@pytest.mark.parametrize("moves", range(6))
def test_they_take_the_places_though_they_are_killed_on_the_way(folder, monkeypatch, moves):
    for number in (1, 2):
        make_fold(folder / f"next-fold-{number}", number, NEW)
    rename, done = Path.rename, []

    def rename_or_die(path, target):
        if len(done) == moves:
            raise KeyboardInterrupt
        done.append(target)
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", rename_or_die)
        if moves < 5:
            with pytest.raises(KeyboardInterrupt):
                take_places(folder, 2)
    take_places(folder, 2)
    assert runs(folder) == {"fold-1": 1, "fold-2": 1}
    assert not (folder / "oof.parquet").exists()
    check_runs(folder, NEW, 2)


def test_a_folder_with_anything_but_locks_and_folds_that_say_nothing_is_no_new_one(tmp_path):
    assert not holds_nothing_yet(tmp_path / "none")
    assert not holds_nothing_yet(tmp_path)
    with reserved(tmp_path, [1]), in_turn(tmp_path):
        (tmp_path / "fold-1").mkdir()
        (tmp_path / "fold-1" / ".fold.json.1f").touch()
        assert holds_nothing_yet(tmp_path)
        assert present(tmp_path) == set()
    (tmp_path / "fold-1" / "mine").touch()
    assert not holds_nothing_yet(tmp_path)
    with pytest.raises(ConfigError, match=r"fold-1 holds no fold\.json: it is not of a training with folds"):
        present(tmp_path)
