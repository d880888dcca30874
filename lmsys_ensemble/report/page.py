"""Write the report: one HTML file that needs nothing else, not even a network."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd
from numpy.typing import ArrayLike

from lmsys_ensemble._version import __version__
from lmsys_ensemble.blending.blender import Blender
from lmsys_ensemble.errors import ConfigError
from lmsys_ensemble.files import write_atomically
from lmsys_ensemble.report.battle_sections import measured, slices, swaps, worst
from lmsys_ensemble.report.calibration_sections import calibration, confusion
from lmsys_ensemble.report.findings import Findings
from lmsys_ensemble.report.inputs import check_inputs
from lmsys_ensemble.report.markup import Markup, element
from lmsys_ensemble.report.measuring import measure
from lmsys_ensemble.report.sections import in_short, methods, the_blend
from lmsys_ensemble.report.style import STYLE
from lmsys_ensemble.schema import THREE_WAY, Task

_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
"""Content security policy: the browser loads and runs nothing, whatever a text holds."""

_CONTENTS = {
    "short": "In short", "blend": "The blend", "methods": "Methods", "calibration": "Calibration",
    "confusion": "Confusion matrix", "slices": "Length, turns, source", "swaps": "Swap consistency",
    "worst": "Worst rows", "measured": "How it was measured",
}  # fmt: skip


def write_report(
    path: str | Path,
    members: Mapping[str, ArrayLike],
    labels: ArrayLike,
    *,
    ids: ArrayLike | None = None,
    groups: ArrayLike | None = None,
    blender: Blender | None = None,
    battles: pd.DataFrame | None = None,
    swapped: Mapping[str, ArrayLike] | None = None,
    task: Task = THREE_WAY,
    title: str = "Blend report",
    n_worst: int = 10,
    fitted_elsewhere: bool = False,
) -> Findings:
    """Measure members and their blend, and write one offline HTML page about it.

    Everything that is fitted is measured out of fold. The same input gives the same file.

    Parameters
    ----------
    path : str or Path
        The page; written whole or not at all.
    members : mapping of str to array-like of shape (n_rows, n_classes)
        Probabilities by the members' names, on rows that they were not trained on.
    labels : array-like of shape (n_rows,) or (n_rows, n_classes)
        Class positions, or one-hot or soft labels.
    ids : array-like of shape (n_rows,), optional
        Ids of the rows, by which `battles` are matched.
    groups : array-like of shape (n_rows,), optional
        Rows of one group (a prompt) stay together in folds and in the bootstrap.
    blender : Blender, optional
        What to report on; by default one with method ``auto``. Its settings are fitted anew on every choice of all
        folds but one, to measure it; its own weights are shown.
    battles : DataFrame, optional
        Texts, and ``source`` where there is such a column. Matched by ``id``; without `ids`, in the order of the
        rows. It adds the log loss by length, turns and source, and the texts of the worst rows.
    swapped : mapping of str to array-like of shape (n_rows, n_classes), optional
        Probabilities for the same battles with their responses swapped, as the members gave them. It adds how
        consistent the verdicts are.
    task : Task
        Classes and their order.
    title : str
        Title of the page.
    n_worst : int
        How many of the worst rows are shown.
    fitted_elsewhere : bool
        The blender was fitted on other rows: it is measured as it is.

    Returns
    -------
    Findings
        All numbers on the page.

    Raises
    ------
    InputError
        If something is wrong or does not match; names it.
    ConfigError
        If the blender does not fit the members, or `n_worst` is negative.
    """
    inputs = check_inputs(
        members, labels, ids=ids, groups=groups, battles=battles, swapped=swapped, task=task
    )  # fmt: skip
    if n_worst < 0:
        raise ConfigError(f"n_worst must be at least 0, got {n_worst}; 0 leaves the worst rows out")
    findings = measure(inputs, blender, n_worst=n_worst, fitted_elsewhere=fitted_elsewhere)
    write_atomically(path, make_page(findings, title))
    return findings


def make_page(findings: Findings, title: str = "Blend report") -> str:
    """Return the page as text: HTML that is well-formed XML, too."""
    made = {
        "short": in_short(findings), "blend": the_blend(findings), "methods": methods(findings),
        "calibration": calibration(findings), "confusion": confusion(findings), "slices": slices(findings),
        "swaps": swaps(findings), "worst": worst(findings), "measured": measured(findings, __version__),
    }  # fmt: skip
    sections = {name: part for name, part in made.items() if part is not None}
    links = [element("a", _CONTENTS[name], href=f"#{name}") for name in sections]
    inputs = findings.inputs
    facts = f"{inputs.n_rows:,} rows · {len(inputs.members)} members · {', '.join(inputs.members)}"
    head = element(
        "head", element("meta", charset="utf-8"),
        Markup(f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}"/>'),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title), element("style", Markup(STYLE)),
    )  # fmt: skip
    body = element(
        "body",
        element("header", element("h1", title), element("p", facts, class_="soft"),
                element("nav", *links, aria_label="Contents")),
        element("main", *sections.values()),
    )  # fmt: skip
    return f"<!DOCTYPE html>\n{element('html', head, body, lang='en')}\n"
