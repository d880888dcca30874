import numpy as np
import pytest

from tests.predicted import battle_table
from tests.report.conftest import QUICK, findings_of


def test_the_worst_rows_come_first_and_as_a_table_cannot_act_as_formulas(tmp_path, given):
    members, labels, _ = given
    table = battle_table(400, prompt="=HYPERLINK")
    table["id"] = ["@" + str(value) for value in table["id"]]
    findings = findings_of(tmp_path, members, labels, battles=table, n_worst=25, blender=QUICK)
    rows = findings.worst_rows()
    assert len(rows) == 25
    assert rows["log_loss"].is_monotonic_decreasing
    assert rows["log_loss"].iloc[0] == pytest.approx(
        -np.log(findings.blend.probabilities[np.arange(400), labels].min())
    )
    assert rows["id"].str.startswith("'@").all()
    assert rows["prompt"].str.startswith("'=HYPERLINK").all()
    assert rows["response_a"].str.startswith("response_a").all()
