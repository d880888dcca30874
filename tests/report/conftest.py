"""A report with everything in it, made once."""

from xml.etree import ElementTree

import numpy as np
import pytest

from lmsys_ensemble import Blender
from lmsys_ensemble.report import write_report
from tests.predicted import battle_table, predictions, row_ids

N_ROWS = 400

QUICK = Blender(n_folds=2)
"""For tests of what has nothing to do with the blend: little is fitted."""


def swapped(members):
    """Return what the members would say with the responses swapped: not quite the mirror image."""
    result = {}
    for name, member in members.items():
        moved = member[:, [1, 0, 2]] * [1.2, 1.0, 1.0]
        result[name] = moved / moved.sum(axis=1, keepdims=True)
    return result


@pytest.fixture(scope="session")
def given():
    """Return members, labels, and everything that may be given besides."""
    members, labels = predictions(N_ROWS, noises=(0.7, 1.0))
    more = {
        "ids": row_ids(N_ROWS),
        "groups": np.arange(N_ROWS) // 2,
        "battles": battle_table(N_ROWS).sample(frac=1, random_state=3),
        "swapped": swapped(members),
    }
    return members, labels, more


@pytest.fixture(scope="session")
def whole(given, tmp_path_factory):
    """Return findings and page of a report with everything in it."""
    members, labels, more = given
    path = tmp_path_factory.mktemp("report") / "report.html"
    findings = write_report(path, members, labels, **more)
    return findings, path.read_text(encoding="utf-8")


def findings_of(tmp_path, *positional, **named):
    return write_report(tmp_path / "report.html", *positional, **named)


def parse(page):
    """Parse a page, which is well-formed XML on purpose."""
    start, _, rest = page.partition("\n")
    assert start == "<!DOCTYPE html>"
    return ElementTree.fromstring(rest)


def text_of(element):
    return "".join(element.itertext())


def section_of(page, name):
    (found,) = [section for section in parse(page).iter("section") if section.get("id") == name]
    return found


def cells_of(section, row_name):
    """Return the cells of the rows of that name, each without its interval."""
    return [
        [(cell.text or "").strip() for cell in row.findall("td")]
        for row in section.iter("tr")
        if (head := row.find("th")) is not None and text_of(head) == row_name
    ]


def shown(value):
    return f"{value:.4f}".replace("-", "−")
