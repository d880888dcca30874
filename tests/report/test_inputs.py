import numpy as np
import pandas as pd
import pytest

from lmsys_ensemble.errors import InputError
from lmsys_ensemble.schema import TWO_WAY
from tests.predicted import battle_table
from tests.report.conftest import findings_of


def test_texts_are_matched_by_id(whole, given):
    findings, _ = whole
    for row in findings.worst:
        assert findings.inputs.battles[row].prompt[0] == f"prompt {row}"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ids": [1, 2]}, "got 2 ids for 400 rows"),
        ({"battles": battle_table(10)}, "got 10 battles for 400 rows; pass ids"),
        ({"battles": pd.DataFrame({"prompt": []})}, "no column 'id'"),
        ({"battles": battle_table(10), "ids": range(400)}, "the battles have no texts for 400 of 400 ids"),
        ({"swapped": {"m0": np.full((400, 3), 1 / 3)}}, "swapped is of m0, members are m0, m1"),
        ({"swapped": dict.fromkeys(("m0", "m1"), np.full((9, 3), 1 / 3))}, "swapped m0 has 9 rows, expected 400"),
        ({"groups": np.zeros(400)}, "at least two groups"),
        ({"task": TWO_WAY}, "probabilities have 3 classes, the task 'two_way' 2"),
    ],
)
def test_wrong_input_is_refused_before_anything_is_written(tmp_path, given, change, message):
    members, labels, _ = given
    with pytest.raises(InputError, match=message):
        findings_of(tmp_path, members, labels, **change)
    assert list(tmp_path.iterdir()) == []
