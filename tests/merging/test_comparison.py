import numpy as np
import pytest
from peft import LoraConfig

from lmsys_ensemble.data.corpus import as_labelled
from lmsys_ensemble.errors import InputError
from lmsys_ensemble.merging.comparison import compare, read_rows
from lmsys_ensemble.merging.parts import Part
from lmsys_ensemble.modeling.adapters import Adapter
from lmsys_ensemble.schema import THREE_WAY
from tests.tiny import make_recipe
from tests.training.synthetic import make_preferences

DATA = as_labelled(make_preferences(40), THREE_WAY)


def test_figures_are_those_of_the_rows_and_their_differences_are_paired():
    sure, unsure = 0.7 * DATA.labels + 0.1, 0.4 * DATA.labels + 0.2
    unsure[:8] = np.roll(unsure[:8], 1, axis=1)
    figures = compare(DATA, {"sure": sure, "unsure": unsure}, "sure", "unsure")
    losses = [-np.log((DATA.labels * values).sum(axis=1)) for values in (sure, unsure)]
    assert figures["rows"] == 40
    assert list(figures["log_loss"].values()) == pytest.approx([loss.mean() for loss in losses], abs=1e-4)
    assert figures["accuracy"] == {"sure": 1.0, "unsure": 0.8}
    assert figures["accuracy_interval"]["sure"] == [1.0, 1.0]
    assert figures["difference"] == pytest.approx((losses[0] - losses[1]).mean(), abs=1e-5)
    assert figures["difference_interval"][0] < figures["difference"] < figures["difference_interval"][1] < 0
    assert figures["accuracy_difference"] == pytest.approx(0.2)
    assert figures["largest_difference"] == pytest.approx(0.6)
    other = compare(DATA, {"sure": sure, "unsure": unsure}, "unsure", "sure")
    assert other["difference"] == -figures["difference"]


def test_without_files_there_is_nothing_to_measure_and_a_wrong_file_is_named(tmp_path):
    assert read_rows([], []) is None
    (tmp_path / "held.csv").write_text("id,prompt,response_a,response_b\n1,a,b,c\n")
    part = Part("one", Adapter(tmp_path, LoraConfig(), {}), make_recipe(), 1.0)
    with pytest.raises(InputError, match=r"held\.csv: no labels found"):
        read_rows([tmp_path / "held.csv"], [part])
