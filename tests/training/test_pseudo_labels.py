import json

import numpy as np
import pandas as pd
import pytest

from lmsys_ensemble.data.corpus import as_labelled
from lmsys_ensemble.errors import InputError
from lmsys_ensemble.probabilities import softmax
from lmsys_ensemble.schema import THREE_WAY, TWO_WAY
from lmsys_ensemble.training.dataset import split
from lmsys_ensemble.training.labelling_report import REASONS
from lmsys_ensemble.training.pseudo_labels import PseudoLabelSettings, pseudo_label
from lmsys_ensemble.training.settings import DataSettings

SAID = np.array(
    [
        [0.9, 0.05, 0.05], [0.5, 0.3, 0.2], [0.7, 0.2, 0.1], [0.97, 0.02, 0.01],
        [0.1, 0.8, 0.1], [0.2, 0.6, 0.2], [0.3, 0.3, 0.4], [0.2, 0.2, 0.6],
    ]
)  # fmt: skip
"""Four rows whose likeliest class is A, two of B, two of ties."""

TABLE = pd.DataFrame(
    {
        "id": np.arange(8) + 10,
        "prompt": [json.dumps([f"prompt {row}"]) for row in range(8)],
        "response_a": [json.dumps([f"yes {row}"]) for row in range(8)],
        "response_b": [json.dumps([f"no {row}"]) for row in range(8)],
        "language": "en",
    }
)


def label(table=TABLE, said=SAID, evaluation=None, incomplete=None, task=THREE_WAY, **settings):
    chosen = PseudoLabelSettings.model_validate(settings)
    return pseudo_label(
        table, said, chosen, labelled_by="gemma:abc", incomplete=incomplete, evaluation=evaluation, task=task
    )


def test_all_rows_get_soft_labels_as_training_reads_them():
    labelled, report = label(TABLE.assign(source="arena"))
    assert labelled.columns.tolist() == [
        "id", "prompt", "response_a", "response_b", "language", "origin", *THREE_WAY.columns, "source",
        "pseudo_confidence", "labelled_by",
    ]  # fmt: skip
    data = as_labelled(labelled, THREE_WAY)
    np.testing.assert_allclose(data.labels, SAID)
    assert data.battles.ids.tolist() == TABLE["id"].tolist()
    assert set(data.sources) == {"pseudo"}
    assert set(labelled["origin"]) == {"arena"}
    assert set(labelled["labelled_by"]) == {"gemma:abc"}
    np.testing.assert_allclose(labelled["pseudo_confidence"], SAID.max(axis=1))
    assert report.counts() == {"kept": 8}
    learn, held = split(data, DataSettings(holdout={"pseudo": 0.0, "default": 0.5}), 0)
    assert (len(learn), len(held)) == (8, 0)


def test_hard_labels_are_of_the_likeliest_class():
    labelled, _ = label(hard=True, source="mine")
    np.testing.assert_array_equal(labelled[list(THREE_WAY.columns)], np.eye(3)[SAID.argmax(axis=1)])
    assert set(labelled["source"]) == {"mine"}
    np.testing.assert_allclose(labelled["pseudo_confidence"], SAID.max(axis=1))


def test_a_temperature_flattens_labels_and_the_confidence_that_rows_are_chosen_by():
    labelled, report = label(temperature=2.0, min_confidence=0.7)
    expected = softmax(np.log(SAID), 2.0)
    kept = expected.max(axis=1) >= 0.7
    assert 0 < kept.sum() < (SAID.max(axis=1) >= 0.7).sum()
    np.testing.assert_allclose(labelled[list(THREE_WAY.columns)], expected[kept])
    assert report.counts() == {"kept": kept.sum(), "confidence": 8 - kept.sum()}


def test_unsure_rows_are_dropped_and_counted_by_class_and_by_confidence():
    labelled, report = label(min_confidence=0.6)
    assert labelled["id"].tolist() == [10, 12, 13, 14, 15, 17]  # 0.6 is enough
    values = report.to_dict()
    assert values["dropped"] == {"confidence": [11, 16]}
    assert values["by_class"] == {
        "model_a": {"rows": 4, "kept": 3, "dropped": {"confidence": 1}},
        "model_b": {"rows": 2, "kept": 2, "dropped": {}},
        "tie": {"rows": 2, "kept": 1, "dropped": {"confidence": 1}},
    }
    assert {name: (part["rows"], part["kept"]) for name, part in values["by_confidence"].items()} == {
        "0.40 to 0.50": (1, 0), "0.50 to 0.60": (1, 0), "0.60 to 0.70": (2, 2), "0.70 to 0.80": (1, 1),
        "0.80 to 0.90": (1, 1), "0.90 to 0.95": (1, 1), "0.95 and above": (1, 1),
    }  # fmt: skip
    text = report.to_text()
    assert "8 rows, 6 kept, 2 dropped" in text
    assert f"2  {REASONS['confidence']}: 11, 16" in text
    assert json.loads(json.dumps(values)) == values


def test_the_most_confident_rows_of_a_class_are_kept():
    labelled, report = label(max_per_class=2)
    assert labelled["id"].tolist() == [10, 13, 14, 15, 16, 17]
    assert report.to_dict()["dropped"] == {"max_per_class": [11, 12]}
    equal, _ = label(said=np.tile([0.6, 0.2, 0.2], (8, 1)), max_per_class=3)
    assert equal["id"].tolist() == [10, 11, 12]  # of equally confident ones the first


def test_classes_are_balanced_to_the_rarest_of_the_rows_that_are_left():
    labelled, report = label(balance=True, min_confidence=0.6)
    assert labelled["id"].tolist() == [13, 14, 17]
    assert report.to_dict()["dropped"] == {"confidence": [11, 16], "balance": [10, 12, 15]}


def test_rows_of_the_evaluation_set_get_no_label_in_either_order():
    other = TABLE.iloc[[0, 1]].assign(
        prompt=[json.dumps(["PROMPT  0"]), json.dumps(["another"])],
        response_a=TABLE["response_b"].iloc[:2],
        response_b=TABLE["response_a"].iloc[:2],
    )
    labelled, report = label(evaluation=other)
    assert labelled["id"].tolist() == [11, 12, 13, 14, 15, 16, 17]
    assert report.to_dict()["dropped"] == {"overlap": [10]}
    with pytest.raises(InputError, match="all are in the evaluation set"):
        label(evaluation=TABLE)


def test_rows_that_a_model_has_not_scored_are_dropped():
    _, report = label(incomplete=[True] + [False] * 7, min_confidence=0.6)
    assert report.to_dict()["dropped"] == {"incomplete": [10], "confidence": [11, 16]}


def test_without_ties_there_are_two_labels():
    labelled, _ = label(said=np.tile([0.75, 0.25], (8, 1)), task=TWO_WAY)
    assert "winner_tie" not in labelled
    np.testing.assert_allclose(as_labelled(labelled, TWO_WAY).labels[0], [0.75, 0.25])


@pytest.mark.parametrize(
    ("table", "settings", "message"),
    [
        (TABLE.assign(winner="tie"), {}, r"labels already \(winner\).*name the models as teachers in the recipe"),
        (label()[0], {}, "labels already"),
        (TABLE, {"min_confidence": 0.99}, r"8: confidence below the least .* largest confidence is 0\.970"),
        (TABLE.drop(columns="prompt"), {}, "prompt"),
        (TABLE.iloc[:3], {}, "has 8 rows, expected 3"),
    ],
)
def test_what_cannot_be_labelled_is_refused(table, settings, message):
    with pytest.raises(InputError, match=message):
        label(table, **settings)


def test_a_class_that_nothing_is_of_is_named_where_balance_leaves_nothing():
    with pytest.raises(InputError, match="no row's likeliest class is model_b or tie"):
        label(said=np.tile([0.75, 0.25, 0.0], (8, 1)), balance=True)


def test_battles_that_are_all_in_the_evaluation_set_are_told_as_such():
    with pytest.raises(InputError, match=r"none of 8 rows is left: all are in the evaluation set; give other battles"):
        label(evaluation=TABLE)
    with pytest.raises(InputError, match=r"none of 8 rows is left \(4: prompt and responses are in .*; 4: conf"):
        label(evaluation=TABLE.iloc[:4], min_confidence=0.99)
    with pytest.raises(InputError, match=r"the evaluation set: .*response_b"):
        label(evaluation=TABLE.drop(columns="response_b"))
