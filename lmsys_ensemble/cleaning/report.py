"""What cleaning did, row by row, and what is left: as values for JSON and as text."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from lmsys_ensemble.data.tables import MAX_LISTED_FAULTS
from lmsys_ensemble.probabilities import Probabilities

Action: TypeAlias = Literal["dropped", "relabelled", "kept"]

REASONS = {
    "empty": "both responses are empty",
    "identical": "the two responses are the same text",
    "overlap": "prompt and responses are in the evaluation set",
    "overlapping_prompt": "the prompt, or one like it, is in the evaluation set",
    "duplicate": "the same battle as an earlier row",
    "swapped_duplicate": "the same battle as an earlier row, with the responses swapped",
    "contradiction": "a copy has another label",
    "one_empty": "one of the two responses is empty",
    "shared_responses": "the same responses as another row, to another prompt",
}
"""Why a row was changed or is worth a look."""


@dataclass(frozen=True)
class Change:
    """What was done with a row, or what was found and kept.

    Attributes
    ----------
    id, source : object, str
        The row and where it came from.
    action : {"dropped", "relabelled", "kept"}
        What was done.
    reason : str
        A key of `REASONS`.
    other_id : object
        The row that it repeats, of the same table or of the evaluation set; None where there is none.
    before, after : list of float or None
        Its label, where that changed.
    """

    id: object
    source: str
    action: Action
    reason: str
    other_id: object = None
    before: list[float] | None = None
    after: list[float] | None = None


@dataclass(frozen=True)
class Contradiction:
    """Copies of one battle with different labels, in the order of responses of the first."""

    ids: list[object]
    labels: list[list[float]]


@dataclass(frozen=True)
class CleaningReport:
    """Summary of a cleaning.

    Attributes
    ----------
    n_before, n_after : int
        Rows that came in and that are left.
    changes : tuple of Change
        In the order in which things were done. A row may be relabelled first and dropped later.
    contradictions : tuple of Contradiction
        Battles whose copies have different labels.
    groups : dict
        ``groups``, ``prompts`` (different after normalisation), ``largest`` (rows), and ``joined``: the ids of every
        group with several prompts, because they are nearly identical or came as one group.
    balance : dict
        ``before``, ``after``, ``source`` and ``language``: rows and mean label by value; None without labels.
    language_from : str
        What languages were told from.
    """

    n_before: int
    n_after: int
    changes: tuple[Change, ...]
    contradictions: tuple[Contradiction, ...]
    groups: dict[str, Any]
    balance: dict[str, Any] | None
    language_from: str

    def ids(self, action: Action, reason: str | None = None) -> list[object]:
        """Return the ids of rows with that action, for one reason or for all."""
        return [change.id for change in self.changes if change.action == action and reason in (None, change.reason)]

    def counts(self) -> dict[str, dict[str, int]]:
        """Return the number of rows by action and reason."""
        counts: dict[str, dict[str, int]] = {"dropped": {}, "relabelled": {}, "kept": {}}
        for change in self.changes:
            counts[change.action][change.reason] = counts[change.action].get(change.reason, 0) + 1
        return counts

    def to_dict(self) -> dict[str, Any]:
        """Return all of it, with every row's id, as values that JSON takes."""
        return {
            "rows_before": self.n_before,
            "rows_after": self.n_after,
            "counts": self.counts(),
            "changes": [asdict(change) for change in self.changes],
            "contradictions": [asdict(found) for found in self.contradictions],
            "groups": self.groups,
            "balance": self.balance,
            "language_from": self.language_from,
        }

    def to_text(self) -> str:
        """Return what people read; of every kind of row the first ids."""
        counts = self.counts()
        n_dropped = sum(counts["dropped"].values())
        lines = [f"{self.n_before:,} rows, {n_dropped:,} dropped, {self.n_after:,} left"]
        for action, title in (("dropped", "dropped"), ("relabelled", "relabelled"), ("kept", "kept as they are")):
            if counts[action]:
                lines.append(f"{title}:")
            lines += [
                f"  {count:6,}  {REASONS[reason]}: {self._listed(action, reason)}"  # type: ignore[arg-type]
                for reason, count in counts[action].items()
            ]
        lines += self._contradiction_lines()
        groups = self.groups
        joined = f"; {len(groups['joined']):,} groups join prompts that differ" if groups["joined"] else ""
        lines.append(
            f"{groups['groups']:,} groups of {groups['prompts']:,} prompts, the largest of {groups['largest']:,} rows"
            f"{joined}"
        )
        return "\n".join([*lines, *self._balance_lines()])

    def _listed(self, action: Action, reason: str) -> str:
        found = [change for change in self.changes if change.action == action and change.reason == reason]
        shown = [
            str(change.id) if change.other_id is None else f"{change.id} (as {change.other_id})"
            for change in found[:MAX_LISTED_FAULTS]
        ]
        return ", ".join(shown) + (", …" if len(found) > len(shown) else "")

    def _contradiction_lines(self) -> list[str]:
        if not self.contradictions:
            return []
        lines = [f"copies with different labels ({len(self.contradictions):,} battles):"]
        for found in self.contradictions[:MAX_LISTED_FAULTS]:
            pairs = zip(found.ids, found.labels, strict=True)
            lines.append("  " + "; ".join(f"{row} ({_shares(label)})" for row, label in pairs))
        return [*lines, "  …"] if len(self.contradictions) > MAX_LISTED_FAULTS else lines

    def _balance_lines(self) -> list[str]:
        if self.balance is None:
            return ["no labels: nothing was relabelled"]
        rows = [("before", self.balance["before"]), ("after", self.balance["after"])]
        for name in ("source", "language"):
            rows += [(f"{name} {value}", figures) for value, figures in self.balance[name].items()]
        width = max(len(name) for name, _ in rows)
        classes = ", ".join(self.balance["after"]["shares"])
        lines = [f"label balance ({classes}; languages from {self.language_from}):"]
        return lines + [
            f"  {name:{width}}  {figures['rows']:7,}  {_shares(figures['shares'].values())}" for name, figures in rows
        ]


def summarise_groups(ids: Sequence[object], prompts: Sequence[str], groups: Sequence[str]) -> dict[str, Any]:
    """Return the attribute ``groups`` of a report, from id, normalised prompt and group of every row."""
    members: defaultdict[str, list[int]] = defaultdict(list)
    for row, group in enumerate(groups):
        members[group].append(row)
    joined = [rows for rows in members.values() if len({prompts[row] for row in rows}) > 1]
    return {
        "groups": len(members),
        "prompts": len(set(prompts)),
        "largest": max(map(len, members.values())),
        "joined": [[ids[row] for row in rows] for rows in joined],
    }


def summarise_balance(
    before: Probabilities, after: Probabilities, by: Mapping[str, Sequence[str]], classes: Sequence[str]
) -> dict[str, Any]:
    """Return the attribute ``balance`` of a report.

    Parameters
    ----------
    before, after : ndarray of shape (n_rows, n_classes)
        Labels of all rows as they came, and of those left.
    by : mapping of str to sequence of str
        Values of the rows left, by which they are divided.
    classes : sequence of str
        Names of the classes.
    """
    balance = {"before": _balance(before, classes), "after": _balance(after, classes)}
    for name, values in by.items():
        column = np.asarray(values, dtype=object)
        balance[name] = {value: _balance(after[column == value], classes) for value in sorted(set(values))}
    return balance


def _balance(labels: Probabilities, classes: Sequence[str]) -> dict[str, Any]:
    shares = zip(classes, labels.mean(axis=0), strict=True)
    return {"rows": len(labels), "shares": {name: round(float(share), 4) for name, share in shares}}


def _shares(values: Any) -> str:
    return " ".join(f"{value:.3f}" for value in values)
