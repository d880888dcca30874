from lmsys_ensemble.evaluation.intervals import Difference
from lmsys_ensemble.report.cells import DASH, class_names, difference_cell, section, with_interval
from lmsys_ensemble.schema import THREE_WAY, TWO_WAY


def test_classes_are_called_as_people_call_them():
    assert class_names(THREE_WAY) == ["A wins", "B wins", "tie"]
    assert class_names(TWO_WAY) == ["A wins", "B wins"]


def test_a_number_stands_above_its_interval():
    assert with_interval(-0.5, -0.75, 0.25, 2) == "<td>−0.50<small>−0.75 to 0.25</small></td>"
    assert difference_cell(Difference(0.5, 0.1, 0.25, 0.75)) == "<td>0.5000<small>0.2500 to 0.7500</small></td>"


def test_what_is_not_known_is_a_dash():
    nan = float("nan")
    assert with_interval(nan, nan, nan) == difference_cell(None) == f"<td>{DASH}</td>"
    assert with_interval(1, nan, nan, 1) == f"<td>1.0<small>{DASH}</small></td>"


def test_a_section_can_be_pointed_at_and_escapes_its_title():
    assert section("short", "A & B", "1 < 2") == '<section id="short"><h2>A &amp; B</h2>1 &lt; 2</section>'
