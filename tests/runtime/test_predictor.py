import numpy as np
import pytest
from pandas.testing import assert_frame_equal

from lmsys_ensemble import Blender, Ensemble, FakeScorer, SavedScorer, parse_battles
from lmsys_ensemble.probabilities import softmax
from lmsys_ensemble.schema import THREE_WAY, TWO_WAY

COLUMNS = list(THREE_WAY.columns)


class TwoWay(FakeScorer):
    task = TWO_WAY


def two_fakes():
    return [FakeScorer(0, name="one"), FakeScorer(1, name="two")]


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
