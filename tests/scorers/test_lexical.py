"""The scorer of what can be counted."""

import json

import numpy as np
import pytest

import lmsys_ensemble
from lmsys_ensemble import Ensemble, check_scorer
from lmsys_ensemble.data.battles import parse_battles
from lmsys_ensemble.errors import IntegrityError
from lmsys_ensemble.lexical.features import CHUNK_ROWS
from lmsys_ensemble.lexical.files import save_model
from lmsys_ensemble.schema import TASKS
from lmsys_ensemble.scorers.lexical import LexicalScorer
from tests.lexical.longer import fitted, make_table, odd_battles


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Return the folders of a three-way and a two-way model."""
    made = {}
    for task in TASKS:
        made[task] = tmp_path_factory.mktemp("lexical") / task
        made[task].mkdir()
        settings, rows, model = fitted(task=task)
        save_model(made[task], model, settings, rows.battles[:3])
    return made


@pytest.mark.parametrize("task", TASKS)
def test_it_keeps_the_contract_on_any_text(folders, task):
    scorer = LexicalScorer(str(folders[task]))
    assert scorer.task == TASKS[task]
    assert scorer.name == task
    scorer.check()
    check_scorer(scorer)
    check_scorer(scorer, parse_battles(odd_battles()), tolerance=1e-7)


def test_it_is_exported_and_registered(folders):
    assert lmsys_ensemble.LexicalScorer is LexicalScorer
    config = folders["three_way"].parent / "ensemble.yaml"
    config.write_text("version: 1\nscorers:\n  - {type: lexical, path: three_way, name: counted}\n")
    table = make_table(20, seed=2)
    predicted = Ensemble.from_config(config).predict(table)
    with LexicalScorer(str(folders["three_way"])) as scorer:
        logits = scorer.score(parse_battles(table))
        assert scorer.importances()["share"].sum() == pytest.approx(1)
    likeliest = predicted.drop(columns="id").to_numpy().argmax(axis=1)
    np.testing.assert_array_equal(likeliest, logits.argmax(axis=1))


def test_rows_of_several_chunks_come_in_order(folders):
    scorer = LexicalScorer(str(folders["three_way"]))
    table = make_table(CHUNK_ROWS + 3, seed=3)
    with scorer:
        whole = scorer.score(parse_battles(table))
        np.testing.assert_allclose(whole[CHUNK_ROWS:], scorer.score(parse_battles(table[CHUNK_ROWS:])), rtol=1e-5)


def test_the_fingerprint_follows_the_model_not_its_place_or_name(folders, tmp_path):
    settings, rows, model = fitted()
    save_model(tmp_path, model, settings, rows.battles[:2])
    one, moved = LexicalScorer(str(folders["three_way"])), LexicalScorer(str(tmp_path), name="other")
    assert one.fingerprint() == moved.fingerprint()
    assert one.fingerprint() != LexicalScorer(str(folders["two_way"])).fingerprint()
    json.dumps(one.fingerprint())
    (tmp_path / "vocabulary.json").write_text("[]")
    with pytest.raises(IntegrityError):
        moved.check()
