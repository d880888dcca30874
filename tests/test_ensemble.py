import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from lmsys_ensemble import Blender, Ensemble, FakeScorer, SavedScorer, Scorer, parse_battles
from lmsys_ensemble.errors import ConfigError, InputError, ScoringError
from lmsys_ensemble.metrics import log_loss
from lmsys_ensemble.probabilities import softmax
from lmsys_ensemble.schema import THREE_WAY, TWO_WAY

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


class TwoWay(FakeScorer):
    task = TWO_WAY


def two_fakes():
    return [FakeScorer(0, name="one"), FakeScorer(1, name="two")]


# --- predictions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("blender", "weights"), [(None, [0.5, 0.5]), (Blender(weights=[3, 1]), [0.75, 0.25])], ids=["average", "weighted"]
)
def test_a_prediction_is_the_blend_of_the_scorers_probabilities(battles_table, blender, weights):
    battles = parse_battles(battles_table)
    members = [softmax(scorer.score(battles)) for scorer in two_fakes()]
    expected = np.average(members, axis=0, weights=weights)
    ensemble = Ensemble(two_fakes(), blender)
    assert ensemble.predict_proba(battles_table) == pytest.approx(expected, abs=1e-12)
    named = ensemble.member_probabilities(battles_table)
    assert list(named) == ["one", "two"]
    assert np.array_equal(list(named.values()), members)


def test_a_prediction_is_a_table_with_the_ids_and_the_order_of_the_battles(battles_table):
    ensemble = Ensemble(two_fakes())
    predictions = ensemble.predict(battles_table)
    assert predictions.columns.tolist() == ["id", *COLUMNS]
    assert predictions["id"].tolist() == battles_table["id"].tolist()
    assert predictions["id"].dtype == "int64"
    assert predictions[COLUMNS].sum(axis=1).to_numpy() == pytest.approx(np.ones(5), abs=1e-12)
    assert np.array_equal(predictions[COLUMNS], ensemble.predict_proba(battles_table))
    assert ensemble.classes_ == ("model_a", "model_b", "tie")


def test_rows_in_another_order_get_the_same_predictions(battles_table):
    ensemble = Ensemble(two_fakes())
    shuffled = ensemble.predict(battles_table.sample(frac=1, random_state=1)).set_index("id")
    assert_frame_equal(shuffled.loc[battles_table["id"]], ensemble.predict(battles_table).set_index("id"))


def test_battles_that_are_parsed_already_give_the_same(battles_table):
    ensemble = Ensemble(two_fakes())
    assert_frame_equal(ensemble.predict(parse_battles(battles_table)), ensemble.predict(battles_table))


def test_ids_that_are_texts_stay_texts(battles_table):
    predictions = Ensemble([FakeScorer()]).predict(battles_table.assign(id=["007", "7", "07", "a", "b"]))
    assert predictions["id"].tolist() == ["007", "7", "07", "a", "b"]


def test_a_task_of_two_classes_gives_two_columns(battles_table):
    predictions = Ensemble([TwoWay()], task=TWO_WAY).predict(battles_table)
    assert predictions.columns.tolist() == ["id", "winner_model_a", "winner_model_b"]
    assert predictions.iloc[:, 1:].sum(axis=1).to_numpy() == pytest.approx(np.ones(5), abs=1e-12)


def test_saved_probabilities_and_a_scorer_that_runs_blend_by_id(battles_table, tmp_path):
    path = tmp_path / "saved.csv"
    fake = Ensemble([FakeScorer(3)])
    fake.predict(battles_table)[::-1].to_csv(path, index=False)
    blended = Ensemble([SavedScorer(str(path)), FakeScorer(3)]).predict_proba(battles_table)
    assert blended == pytest.approx(fake.predict_proba(battles_table), abs=1e-6)


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


def test_swap_consistency_is_measured_on_exchanged_responses(labelled_table):
    figures = Ensemble([LongerWins(), FakeScorer()]).evaluate(labelled_table, swap=True)
    distances = figures[figures["metric"] == "swap_total_variation"].set_index("model")["value"]
    assert distances["longer"] == pytest.approx(0, abs=1e-9)
    assert distances["fake"] > 0.1
    assert "swap_total_variation" not in set(Ensemble([LongerWins()]).evaluate(labelled_table)["metric"])


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
def test_no_rows_cannot_be_learnt_from_or_measured(labelled_table, work):
    with pytest.raises(InputError):
        getattr(Ensemble(two_fakes()), work)(labelled_table[:0])


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
    with pytest.raises(ConfigError, match="saved would give the same probabilities for exchanged responses"):
        ensemble.evaluate(labelled_table, swap=True)
