import numpy as np
import pandas as pd
import pytest

from lmsys_ensemble import parse_battles
from lmsys_ensemble.data.labelled import parse_labelled
from lmsys_ensemble.data.tables import parse_groups
from lmsys_ensemble.errors import InputError


@pytest.mark.parametrize("blank", [None, np.nan, pd.NA, "", " \t"])
@pytest.mark.parametrize("dtype", ["object", "category"])
def test_a_blank_is_no_group(blank, dtype):
    groups = pd.Series(["x", "y", blank], dtype=dtype, index=[7, 8, 9])
    with pytest.raises(InputError, match=r"'group'.* 1 of 3 rows have no group there, the first is row 2 "):
        parse_groups(pd.DataFrame({"group": groups}))


def test_groups_stay_as_they_are_and_need_not_be_there():
    assert parse_groups(pd.DataFrame({"group": [1, 1, 2]})).tolist() == [1, 1, 2]
    assert parse_groups(pd.DataFrame({"other": [1]})) is None
    assert parse_groups(pd.DataFrame({"group": []})).tolist() == []
    with pytest.raises(InputError, match="more than one column 'group'"):
        parse_groups(pd.DataFrame([["x", "y"]], columns=["group", "group"]))


def test_battles_labels_and_groups_are_read_together(labelled_table):
    data = parse_labelled(labelled_table.assign(group=list("aabbc"), source="x"))
    assert data.battles.ids.tolist() == labelled_table["id"].tolist()
    assert data.labels.sum(axis=1).tolist() == [1] * 5
    assert data.groups.tolist() == list("aabbc")
    assert data.slices("source")["source"].tolist() == ["x"] * 5
    assert data.slices(None) is None


def test_battles_have_no_labels(battles_table):
    with pytest.raises(InputError, match="Battles hold no labels"):
        parse_labelled(parse_battles(battles_table))


def test_script_is_told_from_the_prompts_unless_the_table_has_such_a_column(labelled_table):
    data = parse_labelled(labelled_table)
    assert set(data.slices("script")["script"]) == {"latin"}
    given = parse_labelled(labelled_table.assign(script="runes"))
    assert set(given.slices("script")["script"]) == {"runes"}
    with pytest.raises(InputError, match="there is no column 'scripts'"):
        data.slices("scripts")
