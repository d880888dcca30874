from xml.etree import ElementTree

from lmsys_ensemble.training.curves import draw_curves

CURVE = [
    {"step": 1, "loss": 1.2},
    {"step": 2, "loss": float("nan")},
    {"step": 3, "loss": 0.8, "held_log_loss": 1.0},
    {"step": 6, "held_log_loss": 0.9},
]


def test_both_curves_are_drawn_downwards_and_the_picture_stands_by_itself():
    picture = ElementTree.fromstring(draw_curves(CURVE, "<mine>"))
    space = {"svg": "http://www.w3.org/2000/svg"}
    assert picture.find("svg:title", space).text == "<mine>: curves of the training"
    lines = {line.get("class"): line.get("points").split() for line in picture.iterfind(".//svg:polyline", space)}
    assert {name: len(points) for name, points in lines.items()} == {"curve loss": 2, "curve held": 2}
    for points in lines.values():
        (left, above), (right, below) = (map(float, point.split(",")) for point in points)
        assert left < right
        assert above < below
    assert len(picture.findall(".//svg:circle", space)) == 2


def test_without_steps_there_is_no_picture():
    assert draw_curves([], "mine") == ""
