import dataclasses
import weakref

import numpy as np
import pytest
import yaml

from lmsys_ensemble.config import read_config
from lmsys_ensemble.ensemble import Ensemble
from lmsys_ensemble.errors import ConfigError, InputError, ScoringError
from lmsys_ensemble.probabilities import log_softmax, softmax
from lmsys_ensemble.progress import NoProgress
from lmsys_ensemble.schema import THREE_WAY, TWO_WAY
from lmsys_ensemble.scorers.choice import ChoiceScorer
from lmsys_ensemble.testing.check import check_scorer
from tests.language_models import LABELS, plain_answers, save_language_adapter
from tests.tiny import make_battles


@pytest.fixture(scope="module")
def base(checkpoints):
    return checkpoints.base("llama")


@pytest.fixture(scope="module")
def trained(base, tmp_path_factory):
    return save_language_adapter(base, tmp_path_factory.mktemp("trained") / "adapter")


@pytest.fixture
def make_scorer(base):
    def make(**settings):
        return ChoiceScorer(str(base), **{"device": "cpu", "labels": LABELS[0], "max_tokens": 150, **settings})

    return make


@dataclasses.dataclass
class Listener(NoProgress):
    done: tuple = (0, 0)
    failed: list = dataclasses.field(default_factory=list)

    def advance(self, *amounts):
        self.done = tuple(map(sum, zip(self.done, amounts, strict=True)))

    def row_failed(self, row, why):
        self.failed.append(row)


def test_it_keeps_the_contract(make_scorer):
    check_scorer(make_scorer(labels=LABELS, calibration="contextual"))


def test_probabilities_are_the_models_own_renormalised_over_the_labels(make_scorer, base, trained):
    battles = make_battles(5)
    scorer = make_scorer(adapter=str(trained), labels=LABELS)
    with scorer:
        logits = scorer.score(battles)
    encoder = scorer.encoder(base)
    raw = plain_answers(base, scorer.encode(battles).ids, encoder.label_ids, adapter=trained)
    by_question = [log_softmax(raw[number::2][:, columns]) for number, columns in enumerate(encoder.columns)]
    np.testing.assert_allclose(softmax(logits), softmax(np.mean(by_question, axis=0)), atol=1e-5)
    np.testing.assert_allclose(np.exp(logits).sum(axis=1), 1, atol=1e-6)
    assert np.ptp(softmax(logits), axis=0).max() > 0.05


def test_two_labels_make_a_two_way_task(make_scorer):
    assert (make_scorer(labels=["A", "B"]).task, make_scorer().task) == (TWO_WAY, THREE_WAY)
    probabilities = Ensemble([make_scorer(labels=["A", "B"])], task=TWO_WAY).predict_proba(make_battles(3))
    assert probabilities.shape == (3, 2)


def test_contextual_calibration_divides_by_the_answers_without_content(make_scorer):
    battles = make_battles(4)
    plain, calibrated = make_scorer(), make_scorer(calibration="contextual")
    with plain, calibrated:
        before, after = plain.score(battles), calibrated.score(battles)
        prior = calibrated._prior[0]
    np.testing.assert_allclose(softmax(after), softmax(before - prior), atol=1e-6)
    assert np.abs(softmax(after) - softmax(before)).max() > 1e-3


def test_both_orders_of_a_battle_are_averaged_on_request(make_scorer):
    battles = make_battles(4)
    with make_scorer() as scorer:
        one = softmax(scorer.score(battles))
        other = softmax(scorer.score(battles.swapped()))[:, [1, 0, 2]]
    got = Ensemble([make_scorer()]).predict_proba(battles, swap="all", swap_space="probability")
    np.testing.assert_allclose(got, (one + other) / 2, atol=1e-6)
    assert np.abs(one - other).max() > 0.02


def test_a_configuration_file_names_it(base, tmp_path):
    entry = {"type": "choice", "model": str(base), "labels": ["A", "B", "C"], "device": "cpu", "max_tokens": 150}
    entry["prompts"] = ["verdict", {"system": "Choose.", "plain_cue": "\n\nVerdict:"}]
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"version": 1, "scorers": [entry]}))
    (scorer,), _, _ = read_config(path)
    assert isinstance(scorer, ChoiceScorer)
    scorer.check()
    assert len(scorer.encode(make_battles(2))) == 4


def test_however_long_a_row_is_it_gets_probabilities(make_scorer):
    battles = make_battles(3)
    battles.prompts[0] = ("kettle " * 5000,)
    battles.responses_a[1] = battles.responses_b[1] = ("",) * len(battles.prompts[1])
    with make_scorer(labels=LABELS) as scorer:
        logits = scorer.score(battles)
        costs = scorer.costs(battles)
    assert np.isfinite(logits).all()
    assert (costs.tokens <= 300).all()
    assert (costs.flops > 0).all()
    assert costs.weight_bytes > 0
    assert 1 <= costs.n_truncated <= 3


def test_progress_counts_battles_not_questions(make_scorer):
    battles = make_battles(5)
    with make_scorer(labels=LABELS, tokens_per_batch=200) as scorer:
        scorer.progress = listener = Listener()
        scorer.score(battles)
        assert listener.done == (5, scorer.encode(battles).lengths.sum())
        forward = scorer._forward
        forward.model.score.get_buffer("weight").fill_(np.nan)
        logits = scorer.score(battles)
    assert sorted(listener.failed) == [0, 1, 2, 3, 4]
    assert np.isnan(logits).all()


def test_the_fingerprint_tells_what_changes_a_result(make_scorer, trained):
    fingerprints = [
        make_scorer(**settings).fingerprint()
        for settings in (
            {},
            {"labels": LABELS[1]},
            {"prompts": {"question": "\n\n{a}, {b}, {tie}?"}},
            {"prompts": {"system": "Choose."}},
            {"calibration": "contextual"},
            {"max_tokens": 149},
            {"bos": False},
            {"adapter": str(trained)},
            {"soft_capping": False},
            {"truncation": "per_field"},
            {"dtype": "bfloat16"},
            {"quantization": "nf4"},
        )
    ]
    assert len({str(one) for one in fingerprints}) == len(fingerprints)
    assert make_scorer(name="other", tokens_per_batch=77).fingerprint() == fingerprints[0]


def test_closing_frees_the_model(make_scorer):
    scorer = make_scorer()
    with pytest.raises(ScoringError, match="is not loaded"):
        scorer.score(make_battles(1))
    scorer.load()
    assert scorer.shareable
    alive = [weakref.ref(tensor) for tensor in scorer._forward.model.parameters()]
    scorer.close()
    scorer.close()  # twice does no harm
    assert len(alive) > 20
    assert not any(reference() is not None for reference in alive)


def test_what_cannot_be_is_said_when_it_is_loaded_and_encoded(make_scorer):
    with pytest.raises(ConfigError, match=r"unknown calibration 'contextul' .did you mean 'contextual'"):
        make_scorer(calibration="contextul").load()
    with pytest.raises(ConfigError, match="the label 'neither' is"):
        make_scorer(labels=["A", "B", "neither"]).load()
    with pytest.raises(InputError, match=r"write encode\(parse_battles\(table\)\)"):
        make_scorer().encode([("a", "b", "c")])
