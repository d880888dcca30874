"""What can be found wrong before anything is loaded."""

import pytest

from lmsys_ensemble import Blender, FakeScorer, SavedScorer
from lmsys_ensemble.blending.blender import BlenderNotFittedError
from lmsys_ensemble.errors import CheckError, ConfigError, DeviceError
from lmsys_ensemble.runtime.readiness import check_ensemble, check_names, check_swappable
from lmsys_ensemble.schema import THREE_WAY, TWO_WAY


class Unready(FakeScorer):
    """Has something wrong with it."""

    def check(self, battles=None):
        raise ConfigError("has no head" if battles is None else f"cannot score {len(battles)} rows")


class Gpu(FakeScorer):
    """Runs only on a GPU that is not there."""

    needs_device = True

    def __init__(self, seed=0, *, name="gpu"):
        super().__init__(seed, name=name, device="cuda:99")


def test_scorers_that_fit_together_pass():
    check_ensemble([FakeScorer(0, name="one"), FakeScorer(1, name="two")], THREE_WAY, Blender(weights=[1, 2]))
    check_ensemble([FakeScorer(n_classes=2)], TWO_WAY)


@pytest.mark.parametrize(
    ("scorers", "blender", "error", "words"),
    [
        ([], None, ConfigError, "at least one scorer"),
        ([FakeScorer()], Blender(weights=[1, 2]), ConfigError, "2 weights for 1 scorers"),
        ([FakeScorer()], Blender("linear"), BlenderNotFittedError, "has to learn first"),
        ([Gpu()], None, DeviceError, "cuda:99"),
        ([FakeScorer(n_classes=2)], None, CheckError, "scorer 'fake': predicts .*, the ensemble"),
        ([Unready()], None, CheckError, "scorer 'fake': has no head"),
    ],
)
def test_one_thing_that_is_wrong_is_its_own_error(scorers, blender, error, words):
    with pytest.raises(error, match=words) as caught:
        check_ensemble(scorers, THREE_WAY, blender)
    assert type(caught.value) is error


def test_all_that_is_wrong_is_in_one_list(make_battles):
    scorers = [Unready(name="twin"), FakeScorer(name="twin", n_classes=2), Gpu()]
    with pytest.raises(CheckError, match="4 things are wrong") as caught:
        check_ensemble(scorers, THREE_WAY, battles=make_battles(("q", "a", "b")))
    names, device, unready, narrow = caught.value.faults
    assert "twin occurs more than once" in names
    assert "cuda:99" in device
    assert unready == "scorer 'twin': cannot score 1 rows"
    assert narrow.startswith("scorer 'twin': predicts")


def test_devices_are_looked_for_only_where_the_ensemble_is_to_run():
    check_ensemble([Gpu()], THREE_WAY, here=False)


@pytest.mark.parametrize("name", ["two\nlines", "\x1b[31m", "n\udce4h"])
def test_names_that_cannot_be_shown_are_refused(name):
    with pytest.raises(ConfigError, match="cannot be shown or stored"):
        check_names([FakeScorer(name=name)])


def test_scorers_that_read_no_texts_have_no_swapped_pass():
    check_swappable([FakeScorer()])
    with pytest.raises(ConfigError, match="swap= needs scorers that read the texts; saved would give"):
        check_swappable([FakeScorer(), SavedScorer("saved.csv")])
