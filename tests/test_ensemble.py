from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from lmsys_ensemble import (
    Blender,
    Ensemble,
    FakeScorer,
    FaultyScorer,
    SavedScorer,
    Scorer,
    build_submission,
    parse_battles,
    parse_labels,
)
from lmsys_ensemble.blending.blender import BlenderNotFittedError
from lmsys_ensemble.blending.members import MemberOrderWarning
from lmsys_ensemble.errors import ConfigError, InputError, ScoringError
from lmsys_ensemble.evaluation.evaluate import evaluate_models
from lmsys_ensemble.evaluation.metrics import log_loss
from lmsys_ensemble.probabilities import softmax
from lmsys_ensemble.runtime.combining import MemberChangedWarning
from lmsys_ensemble.schema import THREE_WAY

COLUMNS = list(THREE_WAY.columns)


class Watched(FakeScorer):
    """Remembers what was done with it."""

    def __init__(self, seed=0, *, name="watched", device="cpu"):
        super().__init__(seed, name=name, device=device)
        self.events = []

    def load(self, device=None):
        self.events.append("load")

    def score(self, battles):
        self.events.append(f"score {len(battles)}")
        return super().score(battles)

    def close(self):
        self.events.append("close")


def two_fakes():
    return [FakeScorer(0, name="one"), FakeScorer(1, name="two")]


# --- what happens to scorers ----------------------------------------------------------------------------------------


def test_every_prediction_loads_runs_and_frees_the_scorers(battles_table):
    scorers = [Watched(name="one"), Watched(name="two")]
    ensemble = Ensemble(scorers)
    assert all(not scorer.events for scorer in scorers)
    ensemble.predict(battles_table)
    ensemble.predict(battles_table[:2])
    for scorer in scorers:
        assert scorer.events == ["load", "score 5", "close", "load", "score 2", "close"]


@pytest.mark.parametrize("text_dtype", [object, "str"])
def test_no_rows_give_no_rows_and_nothing_is_loaded(battles_table, text_dtype):
    scorer = Watched()
    empty = battles_table[:0].astype(dict.fromkeys(("prompt", "response_a", "response_b"), text_dtype))
    ensemble = Ensemble([scorer])
    predictions = ensemble.predict(empty)
    assert predictions.columns.tolist() == ["id", *COLUMNS]
    assert len(predictions) == 0
    assert predictions["id"].dtype == "int64"
    assert ensemble.predict_proba(empty).shape == (0, 3)
    assert scorer.events == []


@pytest.mark.parametrize(
    ("change", "task", "error", "words"),
    [
        ({"name": "same"}, THREE_WAY, ConfigError, "same occurs more than once. Pass name="),
        ({"n_classes": 2}, THREE_WAY, ConfigError, r"scorer 'two': predicts \['model_a', 'model_b'\], the ensemble"),
    ],
)
def test_scorers_that_do_not_go_together_are_refused_before_anything_is_loaded(
    battles_table, change, task, error, words
):
    scorers = [Watched(name="same"), Watched(name="two")]
    for name, value in change.items():
        setattr(scorers[1], name, value)
    with pytest.raises(error, match=words):
        Ensemble(scorers, task=task).predict(battles_table)
    assert [scorer.events for scorer in scorers] == [[], []]


def test_an_ensemble_of_nothing_is_refused(battles_table):
    with pytest.raises(ConfigError, match="at least one scorer"):
        Ensemble([]).predict(battles_table)


@pytest.mark.parametrize(
    ("change", "words"),
    [({"prompt": [None] * 5}, "column 'prompt'"), ({"id": [1, 1, 2, 3, 4]}, "1 ids occur more than once")],
)
def test_a_bad_table_is_refused_before_anything_is_loaded(battles_table, change, words):
    scorer = Watched()
    with pytest.raises(InputError, match=words):
        Ensemble([scorer]).predict(battles_table.assign(**change))
    assert scorer.events == []


def test_infinite_logits_are_never_blended(battles_table):
    class Infinite(FakeScorer):
        def score(self, battles):
            logits = super().score(battles)
            logits[battles.ids == 4_294_967_299, 2] = np.inf
            return logits

    with pytest.raises(ScoringError, match=r"scorer 'bad' on cpu .* 1 of 5 rows \(ids 4294967299\)") as caught:
        Ensemble([FakeScorer(), Infinite(name="bad")]).predict(battles_table)
    assert caught.value.row_ids == (4_294_967_299,)


# --- configuration --------------------------------------------------------------------------------------------------


def test_a_saved_ensemble_predicts_the_same(battles_table, tmp_path):
    ensemble = Ensemble(two_fakes(), Blender(weights=[0.9, 0.1], temperature=1.3))
    ensemble.save(tmp_path / "run")
    assert_frame_equal(Ensemble.load(tmp_path / "run").predict(battles_table), ensemble.predict(battles_table))
    from_config = Ensemble.from_config(tmp_path / "run" / "ensemble.yaml")
    assert_frame_equal(from_config.predict(battles_table), ensemble.predict(battles_table))


# --- fitting and measuring ------------------------------------------------------------------------------------------


@pytest.fixture
def many_battles():
    """Two hundred battles that the scorer with seed 0 judges better than the one with seed 1."""
    table = pd.DataFrame({"id": range(200), "prompt": [f"question {i}" for i in range(200)]})
    table = table.assign(response_a="yes", response_b="no", group=np.arange(200) // 2)
    battles = parse_battles(table)
    truth = softmax(3 * FakeScorer(0).score(battles) + 1.5 * FakeScorer(1).score(battles))
    drawn = (np.random.default_rng(0).random((200, 1)) > truth.cumsum(axis=1)[:, :2]).sum(axis=1)
    return table.assign(winner=np.array(THREE_WAY.classes)[drawn])


def log_losses(figures):
    return figures[(figures["metric"] == "log_loss") & (figures["slice"] == "all")].set_index("model")["value"]


def test_fitting_gives_the_better_scorer_the_greater_weight_and_helps(many_battles):
    ensemble = Ensemble(two_fakes(), Blender(method="linear"))
    before = Ensemble(two_fakes()).evaluate(many_battles)
    after = ensemble.fit(many_battles).evaluate(many_battles)
    assert ensemble.blender.weights_[0] > ensemble.blender.weights_[1]
    assert log_losses(after)["blend"] < log_losses(before)["blend"]
    assert log_losses(after)["one"] == log_losses(before)["one"]


def test_a_fitted_ensemble_predicts_the_same_after_saving(many_battles, tmp_path):
    ensemble = Ensemble(two_fakes(), Blender(method="log", calibration="bias")).fit(many_battles)
    ensemble.save(tmp_path / "run")
    assert_frame_equal(Ensemble.load(tmp_path / "run").predict(many_battles), ensemble.predict(many_battles))


@pytest.mark.parametrize("blender", [None, Blender(weights=[3, 1]), Blender(temperature=1.1)])
def test_a_blender_that_learns_nothing_is_not_fitted_in_silence(many_battles, blender):
    scorer = Watched()
    with pytest.raises(ConfigError, match=r"nothing to fit: Blender\(.*learns nothing.*blender=Blender\('auto'\)"):
        Ensemble([scorer], blender).fit(many_battles)
    assert scorer.events == []


def test_weights_belong_to_scorers_by_name_in_whatever_order(many_battles, tmp_path):
    fitted = Ensemble(two_fakes(), Blender("log", "bias")).fit(many_battles)
    expected = fitted.predict_proba(many_battles)
    assert fitted.blender.member_names_ == ("one", "two")
    assert fitted.blender.fingerprints_["two"]["seed"] == 1
    Ensemble(two_fakes()[::-1], fitted.blender).save(tmp_path)
    for ensemble in (Ensemble(two_fakes()[::-1], fitted.blender), Ensemble.load(tmp_path)):
        assert [scorer.name for scorer in ensemble.scorers] == ["two", "one"]
        np.testing.assert_allclose(ensemble.predict_proba(many_battles), expected, atol=1e-12)
        measured = log_losses(ensemble.evaluate(many_battles))
        assert measured["blend"] == pytest.approx(log_losses(fitted.evaluate(many_battles))["blend"])


def test_a_blender_of_other_scorers_is_refused_before_anything_is_loaded(many_battles, tmp_path):
    blender = Ensemble(two_fakes(), Blender("log")).fit(many_battles).blender
    other = Watched()
    ensemble = Ensemble([two_fakes()[0], other], blender)
    words = f"fitted on 'one', 'two', got 'one', '{other.name}': 'two' is missing, '{other.name}' is unknown to it"
    for work in (ensemble.predict, ensemble.predict_proba, ensemble.evaluate):
        with pytest.raises(ConfigError, match=words):
            work(many_battles)
    assert other.events == []
    Ensemble([two_fakes()[0], FakeScorer(7, name="three")], blender).save(tmp_path)
    with pytest.raises(ConfigError, match="'two' is missing, 'three' is unknown to it"):
        Ensemble.load(tmp_path)
    # It can be fitted on the present ones, and their own probabilities are theirs whatever the blender.
    assert set(ensemble.member_probabilities(many_battles)) == {"one", other.name}
    assert ensemble.fit(many_battles).blender.member_names_ == ("one", other.name)


def test_a_scorer_that_has_changed_since_the_fit_is_named(many_battles):
    blender = Ensemble(two_fakes(), Blender("log")).fit(many_battles).blender
    with pytest.warns(MemberChangedWarning, match="scorer 'two': seed was 1, is 5. Fit it again"):
        Ensemble([FakeScorer(0, name="one"), FakeScorer(5, name="two")], blender).predict(many_battles[:3])


def test_a_blender_without_names_trusts_the_order_and_says_so(many_battles):
    members = Ensemble(two_fakes()).member_probabilities(many_battles)
    blender = Blender("log").fit(list(members.values()), many_battles["winner"])
    with pytest.warns(MemberOrderWarning, match="in the order 'one', 'two'"):
        predicted = Ensemble(two_fakes(), blender).predict_proba(many_battles)
    assert (predicted == blender.predict_proba(list(members.values()))).all()


def test_an_evaluation_with_a_blender_that_has_yet_to_learn_scores_nothing(labelled_table):
    scorer = Watched()
    with pytest.raises(BlenderNotFittedError):
        Ensemble([scorer], Blender("log")).evaluate(labelled_table)
    assert scorer.events == []


def test_an_evaluation_measures_every_scorer_the_blend_and_the_class_prior(labelled_table):
    ensemble = Ensemble(two_fakes())
    figures = ensemble.evaluate(labelled_table)
    measured = log_losses(figures)
    assert measured.index.tolist() == ["one", "two", "blend", "class prior"]
    labels = labelled_table[COLUMNS].to_numpy()
    for name, probabilities in ensemble.member_probabilities(labelled_table).items():
        assert measured[name] == pytest.approx(log_loss(labels, probabilities))
    assert measured["blend"] == pytest.approx(log_loss(labels, ensemble.predict_proba(labelled_table)))
    assert measured["class prior"] == pytest.approx(-(0.4 * np.log(0.4) * 2 + 0.2 * np.log(0.2)))


def test_an_evaluation_by_a_column_measures_each_value_apart(many_battles):
    ensemble = Ensemble(two_fakes())
    sources = np.where(np.arange(200) < 120, "x", "y")
    figures = ensemble.evaluate(many_battles.assign(source=sources), by="source")
    blend = figures[(figures["model"] == "blend") & (figures["metric"] == "log_loss")].set_index("slice")
    assert blend["n_rows"].to_dict() == {"all": 200, "x": 120, "y": 80}
    only_x = ensemble.evaluate(many_battles[sources == "x"])
    assert blend.loc["x", "value"] == pytest.approx(log_losses(only_x)["blend"])
    assert blend.loc["all", "value"] == pytest.approx(0.6 * blend.loc["x", "value"] + 0.4 * blend.loc["y", "value"])


class LongerWins(Scorer):
    """Consistent under a swap by nature."""

    name = "longer"

    def score(self, battles):
        rows = [(len("".join(b.response_a)), len("".join(b.response_b)), 0) for b in battles]
        return np.log1p(np.array(rows, dtype=np.float32))


def test_swap_consistency_is_measured_on_swapped_responses(labelled_table):
    figures = Ensemble([LongerWins(), FakeScorer()]).evaluate(labelled_table, swap=True)
    distances = figures[figures["metric"] == "swap_total_variation"].set_index("model")["value"]
    assert distances["longer"] == pytest.approx(0, abs=1e-9)
    assert distances["fake"] > 0.1
    assert "swap_total_variation" not in set(Ensemble([LongerWins()]).evaluate(labelled_table)["metric"])


def test_an_evaluation_of_both_passes_loads_every_scorer_once_and_measures_them_as_two_runs_would(
    many_battles, tmp_path
):
    scorers = [Watched(0, name="one"), Watched(1, name="two")]
    members = Ensemble(two_fakes()).member_probabilities(many_battles)
    ensemble = Ensemble(scorers, Blender("log").fit(members, many_battles["winner"]))
    figures = ensemble.evaluate(many_battles, swap=True, run_dir=tmp_path / "run")
    for scorer in scorers:
        assert [event for event in scorer.events if "score" not in event] == ["load", "close"]
    assert ensemble.summary_.swapped_rows == len(many_battles)
    battles, blender = parse_battles(many_battles), ensemble.blender
    passes = []
    for rows in (battles, battles.swapped()):
        members = {scorer.name: softmax(FakeScorer(seed).score(rows)) for seed, scorer in enumerate(scorers)}
        passes.append({**members, "blend": blender.predict_proba(list(members.values()))})
    labels = parse_labels(many_battles)
    expected = evaluate_models(labels, passes[0], many_battles["group"], passes[1])
    assert_frame_equal(figures[figures["model"] != "class prior"], expected, check_exact=True)
    for rows in (battles, battles.swapped()):  # what versions that ran twice have left
        ensemble.member_probabilities(rows, run_dir=tmp_path / "two runs")
    for run_dir in ("run", "two runs"):
        again = ensemble.evaluate(many_battles, swap=True, run_dir=tmp_path / run_dir)
        assert_frame_equal(again, figures, check_exact=True)
        assert [scorer.rows for scorer in ensemble.summary_.scorers] == [0, 0]


@pytest.mark.parametrize(
    ("change", "by", "words"),
    [
        ({}, "sorce", "no column 'sorce' to evaluate by"),
        ({"winner_tie": np.nan}, None, "not finite"),
        ({"prompt": 3}, None, "column 'prompt'"),
    ],
)
def test_what_cannot_be_evaluated_is_refused_before_anything_is_loaded(labelled_table, change, by, words):
    scorer = Watched()
    with pytest.raises(InputError, match=words):
        Ensemble([scorer]).evaluate(labelled_table.assign(**change), by=by)
    assert scorer.events == []


@pytest.mark.parametrize("work", ["evaluate", "fit"])
@pytest.mark.parametrize("blank", [None, ""])
def test_a_row_without_a_group_is_refused_before_anything_is_loaded(labelled_table, work, blank):
    scorer = Watched()
    with pytest.raises(InputError, match=r"column 'group'.* 1 of 5 rows have no group there, the first is row 4 "):
        getattr(Ensemble([scorer], Blender(weights=[1])), work)(labelled_table.assign(group=[*"aabb", blank]))
    assert scorer.events == []


@pytest.mark.parametrize("work", ["evaluate", "fit"])
def test_no_rows_cannot_be_learnt_from_or_measured(labelled_table, work):
    with pytest.raises(InputError):
        getattr(Ensemble(two_fakes(), Blender("auto")), work)(labelled_table[:0])


@pytest.mark.parametrize("name", ["blend", "class prior"])
def test_a_scorer_cannot_take_the_name_of_a_row_of_the_evaluation(labelled_table, name):
    with pytest.raises(ConfigError, match=name):
        Ensemble([FakeScorer(name=name)]).evaluate(labelled_table)


def test_two_real_models_are_better_together_than_each_alone(data_folder):
    path = data_folder / "lmsys_two_models_oof.csv"
    table = pd.read_csv(path)
    scorers = [
        SavedScorer(str(path), columns=[f"{name}_{kind}" for kind in ("a", "b", "tie")], name=name)
        for name in ("m1", "m2")
    ]
    winners = np.array(THREE_WAY.classes)[table["label"]]
    texts = dict.fromkeys(("prompt", "response_a", "response_b"), "not known")
    battles = pd.DataFrame({"id": table["id"], **texts, "winner": winners})[::-1]
    measured = log_losses(Ensemble(scorers).evaluate(battles))
    # The data's published figures are of twice as many rows.
    assert measured["m1"] == pytest.approx(0.9488, abs=0.02)
    assert measured["m2"] == pytest.approx(0.9389, abs=0.02)
    assert measured["blend"] == pytest.approx(0.9114, abs=0.02)
    assert measured["blend"] < min(measured["m1"], measured["m2"]) - 0.01


def test_swap_consistency_is_not_measured_on_probabilities_from_a_file(labelled_table, tmp_path):
    predictions = Ensemble([FakeScorer(1)]).predict(labelled_table)
    predictions.to_csv(tmp_path / "saved.csv", index=False)
    ensemble = Ensemble([FakeScorer(2, name="reads"), SavedScorer(str(tmp_path / "saved.csv"))])
    assert len(ensemble.evaluate(labelled_table))
    with pytest.raises(ConfigError, match="saved would give the same probabilities for swapped responses"):
        ensemble.evaluate(labelled_table, swap=True)


# --- what is handed in ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"scorers": "fast"}, r"a list of scorers, got 'fast'; .* write Ensemble.from_config\('fast'\)"),
        ({"scorers": Path("mine.yaml")}, r"Ensemble.from_config\('mine.yaml'\)"),
        ({"scorers": FakeScorer(name="one")}, r"got one scorer; write \[one\]"),
        ({"scorers": {"type": "fake"}}, r"a list of scorers, got \{'type': 'fake'\} \(dict\)"),
        ({"scorers": 7}, r"a list of scorers, got 7 \(int\)"),
        (
            {"scorers": [FakeScorer(), "gemma"]},
            r"scorers\[1\] must be a Scorer, got 'gemma' \(str\); write GemmaScorer",
        ),
        ({"scorers": [{"type": "fake"}]}, r"scorers\[0\] must be a Scorer, .* are read by Ensemble.from_config"),
        ({"scorers": [FakeScorer(), None]}, r"scorers\[1\] must be a Scorer, got None$"),
        ({"scorers": [FakeScorer]}, r"got the class FakeScorer; write FakeScorer\(...\)"),
        ({"blender": "log"}, r"blender must be a Blender, got 'log' \(str\); write Blender\(method='log'\)"),
        ({"blender": [0.5, 0.5]}, r"blender must be a Blender, got \[0.5, 0.5\] \(list\)$"),
        ({"task": "three_way"}, r"task must be a Task \(lmsys_ensemble.schema.TASKS"),
        ({"progress": "bar"}, r"progress must be one of auto, bars, lines, off, got 'bar'.*did you mean 'bars'"),
        ({"devices": "cuda:0"}, r"devices must be a list of names; write devices=\['cuda:0'\]"),
        ({"devices": [0, 1]}, r"devices must be a list of names such as 'cuda:0' and 'cpu', got \[0, 1\]"),
    ],
)
def test_an_argument_of_another_kind_is_refused_with_a_sentence(options, words):
    with pytest.raises(ConfigError, match=words):
        Ensemble(**{"scorers": [FakeScorer()], **options})


def test_an_option_that_was_mistyped_is_named(battles_table, labelled_table):
    with pytest.raises(TypeError, match="'blendr'"):
        Ensemble([FakeScorer()], blendr=Blender())
    with pytest.raises(TypeError, match="'device'"):
        Ensemble.from_config("default", device="cpu")
    with pytest.raises(TypeError, match="'swp'"):
        Ensemble([FakeScorer()]).evaluate(labelled_table, swp=True)
    with pytest.raises(ConfigError, match=r"a run has no option 'swp'.*did you mean 'swap'"):
        Ensemble([FakeScorer()]).predict(battles_table, swp="all")


def test_any_iterable_of_scorers_will_do(battles_table):
    expected = Ensemble(two_fakes()).predict_proba(battles_table)
    for scorers in (tuple(two_fakes()), iter(two_fakes()), (scorer for scorer in two_fakes())):
        assert np.array_equal(Ensemble(scorers).predict_proba(battles_table), expected)


@pytest.mark.parametrize(
    "index", [list("edcba"), [3, 3, 1, 2, 3], pd.MultiIndex.from_product([["x"], range(5)], names=["a", "b"])]
)
def test_a_prediction_keeps_the_index_of_the_table(battles_table, index):
    ensemble = Ensemble(two_fakes())
    plain = ensemble.predict(battles_table)
    indexed = battles_table.set_axis(index)
    predictions = ensemble.predict(indexed)
    assert predictions.index.equals(indexed.index)
    assert_frame_equal(predictions.reset_index(drop=True), plain)
    assert ensemble.predict(indexed[:0]).index.equals(indexed[:0].index)


def test_the_rows_that_lack_something_keep_their_index_too(battles_table):
    scorers = [FakeScorer(), FaultyScorer(raise_at=0)]
    with pytest.warns(UserWarning, match="lack"):
        predictions = Ensemble(scorers).predict(battles_table.set_axis(list("edcba")), on_failure="reweight")
    assert predictions.index.tolist() == list("edcba")
    assert (predictions["fallback"] != "").all()


def test_a_submission_does_not_hold_the_index(battles_table):
    predictions = Ensemble(two_fakes()).predict(battles_table.set_axis(list("edcba")))
    submission = build_submission(predictions, predictions[::-1])
    assert submission.index.tolist() == list(range(5))
    assert submission["id"].tolist() == battles_table["id"].tolist()[::-1]


def test_fitting_and_measuring_go_by_position_whatever_the_index(many_battles):
    shifted = many_battles.assign(source="x").set_axis(np.arange(200) // 2)
    assert_frame_equal(
        Ensemble(two_fakes()).evaluate(shifted, by="source"),
        Ensemble(two_fakes()).evaluate(shifted.reset_index(drop=True), by="source"),
    )
    fitted = [Ensemble(two_fakes(), Blender(method="linear")).fit(table) for table in (many_battles, shifted)]
    assert np.array_equal(fitted[0].blender.weights_, fitted[1].blender.weights_)
