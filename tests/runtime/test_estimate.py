import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmsys_ensemble.data.battles import parse_battles
from lmsys_ensemble.errors import ConfigError
from lmsys_ensemble.hosting.slots import Slot, usable_cores
from lmsys_ensemble.runtime import estimate
from lmsys_ensemble.runtime.estimate import (
    ScorerProjection,
    makespan,
    parse_machine,
    project,
    project_elsewhere,
)
from lmsys_ensemble.runtime.sampling import guess_load
from lmsys_ensemble.scorers.base import Costs
from lmsys_ensemble.testing.fake import FakeScorer

TWO = [Slot(0, "cuda:0"), Slot(1, "cuda:1")]


def part(seconds, *devices, load=0.0):
    return ScorerProjection("one", list(devices), 0, 0, load, seconds, None, 0)


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([part(10, "cuda:0"), part(4, "cuda:1")], 10),
        ([part(10, "cuda:0", "cuda:1"), part(4, "cuda:0", "cuda:1")], 7),
        ([part(10, "cuda:0", "cuda:1"), part(4, "cuda:1")], 7),
        ([part(2, "cuda:0", "cuda:1"), part(10, "cuda:1")], 10),
        ([part(4, "cuda:0", load=3)], 7),
        ([part(4, "cuda:0", "cuda:1", load=3)], 5),  # the second device can only wait for the load
        ([part(0, "cuda:0", load=3), part(0, "cuda:1", load=3)], 6),  # loads come one after the other
        ([], 0),
    ],
)
def test_tied_scorers_fill_their_devices_and_the_others_what_is_left(parts, expected):
    assert makespan(parts, TWO) == pytest.approx(expected)


@given(st.lists(st.tuples(st.floats(0, 100), st.booleans()), max_size=6))
def test_a_run_is_never_shorter_than_its_work_shared_out_nor_longer_than_all_of_it(work):
    parts = [part(seconds, *(["cuda:0"] if tied else ["cuda:0", "cuda:1"])) for seconds, tied in work]
    total = sum(seconds for seconds, _ in work)
    assert total / 2 - 1e-6 <= makespan(parts, TWO) <= total + 1e-6


class Counting(FakeScorer):
    """Costs what its rows have of characters, and counts who calls."""

    def __init__(self, *, name="counting", device="cpu", log=None):
        super().__init__(name=name, device=device)
        self.log = [] if log is None else log

    def costs(self, battles):
        characters = battles.characters()
        return Costs(characters, characters * 1e9, 3, 10 * 2**30)

    def score(self, battles):
        self.log.append((threading.get_ident(), len(battles)))
        return super().score(battles)


@pytest.fixture
def battles(make_battles):
    return make_battles(*[(f"question {'x' * i}", "yes", "no") for i in range(40)])


def test_every_slot_scores_the_sample_at_the_same_time_and_the_whole_is_scaled_up(battles):
    scorer = Counting()
    projection = project([scorer], battles, n_timed=10, devices=["cpu", "cpu"])
    assert sorted(n_rows for _, n_rows in scorer.log) == [1, 1, 10, 10]
    assert len({thread for thread, _ in scorer.log}) == 2
    (row,) = projection.scorers
    assert (row.n_tokens, row.n_truncated, row.n_timed) == (battles.characters().sum(), 3, 10)
    assert projection.seconds == pytest.approx(row.slot_seconds / 2 + row.load_seconds)  # both slots wait for the load
    assert projection.slots == ["cpu", "cpu"]


def test_scorers_that_tell_no_costs_are_scaled_by_characters(battles_table):
    projection = project([FakeScorer(seconds_per_row=0.001)], parse_battles(battles_table), n_timed=100)
    assert projection.scorers[0].n_timed == len(battles_table)
    assert projection.seconds > 0


class Modelled(Counting):
    """Says what it costs, and notes loads."""

    n_loads = 0

    def load(self, device=None):
        type(self).n_loads += 1


def test_a_table_that_is_too_small_to_time_is_arithmetic_and_nothing_is_loaded(battles, monkeypatch):
    monkeypatch.setattr(estimate, "_speed", lambda *_: 1e12)
    scorer = Modelled()
    projection = project([scorer], battles, devices=["cpu", "cpu"])
    (row,) = projection.scorers
    work = battles.characters().sum() * 1e9
    assert (scorer.n_loads, scorer.log, row.n_timed) == (0, [], 0)
    assert row.slot_seconds == pytest.approx(work / 1e12)
    assert row.load_seconds > 10  # ten gigabytes
    assert projection.seconds == pytest.approx(row.load_seconds + row.slot_seconds / 2)
    projection = project([scorer], battles, n_timed=3, devices=["cpu"])
    assert (scorer.n_loads, projection.scorers[0].n_timed) == (1, 3)


def test_a_long_run_is_timed(battles, monkeypatch):
    monkeypatch.setattr(estimate, "_speed", lambda *_: 1e8)
    scorer = Modelled()
    projection = project([scorer], battles, devices=["cpu"])
    work = battles.characters().sum() * 1e9 / 1e8
    spent = guess_load(10 * 2**30) + (projection.scorers[0].n_timed + 1) / 40 * work
    assert projection.scorers[0].n_timed >= 1
    assert spent <= 0.1 * (work + guess_load(10 * 2**30))


def test_the_speed_of_this_machine_is_of_its_order():
    """A core multiplies between 0.1 and 100,000 billion numbers a second; the unit is not off by a thousand twice."""
    assert 1e8 < estimate._speed("auto", Slot(0, "cpu", (usable_cores()[0],))) < 1e14


def test_other_devices_are_arithmetic_and_memory_is_checked(battles):
    projection = project_elsewhere([Counting(), Counting(name="two")], battles, "2xt4")
    work = battles.characters().sum() * 1e9
    assert projection.slots == ["T4:0", "T4:1"]
    assert projection.seconds == pytest.approx(2 * work / (65e12 / 3) / 2)
    assert projection.too_large == []
    with pytest.raises(ConfigError, match="'fake' does not say"):
        project_elsewhere([FakeScorer()], battles, "T4")


def test_a_scorer_that_is_larger_than_a_device_is_named(battles):
    class Large(Counting):
        def costs(self, battles):
            return Costs(np.ones(len(battles)), np.ones(len(battles)), 0, 14 * 2**30)

    assert project_elsewhere([Large(name="large")], battles, "T4").too_large == ["large"]


@pytest.mark.parametrize("machine", ["2xT5", "xxT4", "0xT4", "", "-1xT4"])
def test_unknown_devices_are_refused(machine):
    with pytest.raises(ConfigError, match="2xT4"):
        parse_machine(machine)
    assert (parse_machine("T4"), parse_machine("4xh100")) == ((1, "T4"), (4, "H100"))


def test_no_rows_take_no_time_and_load_nothing(make_battles):
    class NotLoaded(FakeScorer):
        def load(self, device=None):
            raise AssertionError("there is nothing to time")

    projection = project([NotLoaded()], make_battles())
    assert (projection.n_rows, projection.seconds) == (0, 0)
    assert projection.scorers[0].n_timed == 0
