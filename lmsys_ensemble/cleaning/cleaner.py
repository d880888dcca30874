"""The steps of cleaning, one after the other, on battles that have been parsed."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lmsys_ensemble.cleaning.normalization import BattleKey, battle_key, visible
from lmsys_ensemble.cleaning.prompts import Clusters, join_similar
from lmsys_ensemble.cleaning.report import (
    REASONS,
    Action,
    Change,
    CleaningReport,
    Contradiction,
    summarise_balance,
    summarise_groups,
)
from lmsys_ensemble.cleaning.settings import HygieneSettings
from lmsys_ensemble.data.battles import Battles, Turns
from lmsys_ensemble.data.languages import SCRIPT, column_of
from lmsys_ensemble.errors import InputError
from lmsys_ensemble.probabilities import ROUNDING_TOLERANCE, Probabilities, swap_classes
from lmsys_ensemble.schema import Task

UNKNOWN = "unknown"
"""What a missing source or language is called."""


@dataclass(frozen=True)
class Rows:
    """What is cleaned.

    Attributes
    ----------
    battles : Battles
        The rows.
    labels : ndarray of shape (n_rows, n_classes) or None
        One-hot or soft.
    sources, languages, groups : sequence of (str or None), or None
        By row, where they are known. Rows that share a group stay together, whatever their sources.
    """

    battles: Battles
    labels: Probabilities | None = None
    sources: Sequence[str | None] | None = None
    languages: Sequence[str | None] | None = None
    groups: Sequence[str | None] | None = None


@dataclass(frozen=True)
class Cleaned:
    """What is left: positions, labels and groups of the rows, and what was done."""

    positions: NDArray[np.intp]
    labels: Probabilities | None
    groups: list[str]
    report: CleaningReport


class Cleaner:
    """Applies the steps of cleaning to some rows; made for one run.

    Parameters
    ----------
    rows : Rows
        What is cleaned; it is not changed.
    settings : HygieneSettings
        What is done.
    task : Task
        Classes of the labels.
    evaluation : Battles, optional
        Battles that will be measured on.
    """

    def __init__(self, rows: Rows, settings: HygieneSettings, task: Task, evaluation: Battles | None = None):
        self._rows, self._settings, self._task = rows, settings, task
        self._evaluation = list(evaluation) if evaluation is not None else []
        self._ids = rows.battles.ids.tolist()
        self._sources = [source or UNKNOWN for source in rows.sources or [None] * len(rows.battles)]
        self._has_labels = rows.labels is not None
        self._labels = np.zeros((len(rows.battles), task.n_classes)) if rows.labels is None else rows.labels.copy()
        self._remains = np.ones(len(rows.battles), dtype=bool)
        self._changes: list[Change] = []
        self._contradictions: list[Contradiction] = []

    def run(self) -> Cleaned:
        """Apply all steps, and return what is left.

        Raises
        ------
        InputError
            If no row is left.
        """
        self._keys = [battle_key(battle) for battle in self._rows.battles]
        held = [battle_key(battle) for battle in self._evaluation]
        codes = self._cluster([key.prompt for key in held])
        self._mend_responses()
        self._drop_overlap(held, codes)
        self._drop_duplicates()
        self._find_shared_responses()
        positions = np.flatnonzero(self._remains)
        if not len(positions):
            raise InputError(self._nothing_left())
        names = self._group_names(positions, codes)
        labels = self._labels[positions] if self._has_labels else None
        return Cleaned(positions, labels, names, self._report(positions, names))

    def _cluster(self, held_prompts: list[str]) -> NDArray[np.intp]:
        """Return the number of the prompt group of every row, then of every prompt of the evaluation set."""
        prompts = [key.prompt for key in self._keys] + held_prompts
        clusters = Clusters(len(prompts))
        if self._settings.similar_prompts is None:
            clusters.join_equal(prompts)
        else:
            join_similar(clusters, prompts, self._settings.similar_prompts)
        clusters.join_equal(self._rows.groups or ())
        return clusters.codes()

    def _mend_responses(self) -> None:
        for row, battle in enumerate(self._rows.battles):
            a, b = _stripped(battle.response_a), _stripped(battle.response_b)
            if not any(a) and not any(b):
                self._apply(self._settings.empty, row, "empty")
            elif a == b:
                self._apply(self._settings.identical, row, "identical")
            elif not any(a) or not any(b):
                self._note("kept", row, "one_empty")

    def _apply(self, rule: str, row: int, reason: str) -> None:
        if rule == "drop":
            self._drop(row, reason)
        elif rule == "tie" and self._has_labels:
            self._relabel(row, self._tie(), reason)
        else:
            self._note("kept", row, reason)

    def _tie(self) -> Probabilities:
        if self._task.n_classes == 2:
            return np.array([0.5, 0.5])
        tie: Probabilities = np.eye(self._task.n_classes)[self._task.classes.index("tie")]
        return tie

    def _drop_overlap(self, held: list[BattleKey], codes: NDArray[np.intp]) -> None:
        n_rows = len(self._keys)
        battles = {(key.prompt, key.responses): battle.id for key, battle in zip(held, self._evaluation, strict=True)}
        prompts = dict(zip(codes[n_rows:].tolist(), (battle.id for battle in self._evaluation), strict=True))
        for row in np.flatnonzero(self._remains).tolist():
            key = self._keys[row]
            if (key.prompt, key.responses) in battles:
                rule, reason = self._settings.overlap != "keep", "overlap"
                other = battles[key.prompt, key.responses]
            elif codes[row] in prompts:
                rule, reason = self._settings.overlap == "prompt", "overlapping_prompt"
                other = prompts[codes[row]]
            else:
                continue
            if rule:
                self._drop(row, reason, other)
            else:
                self._note("kept", row, reason, other)

    def _drop_duplicates(self) -> None:
        copies: defaultdict[tuple[object, ...], list[int]] = defaultdict(list)
        with_prompt = self._settings.duplicates != "responses"
        for row in np.flatnonzero(self._remains).tolist():
            key = self._keys[row]
            copies[(key.prompt if with_prompt else "", *key.responses)].append(row)
        for first, *others in copies.values():
            if others:
                self._merge_copies(first, others)

    def _merge_copies(self, first: int, others: list[int]) -> None:
        reasons = [
            "duplicate" if self._keys[row].is_swapped == self._keys[first].is_swapped else "swapped_duplicate"
            for row in others
        ]
        differ = self._has_labels and self._compare_labels(first, others, reasons)
        if self._settings.duplicates == "keep":
            for row, reason in zip(others, reasons, strict=True):
                self._note("kept", row, reason, self._ids[first])
            return
        if differ and self._settings.contradictions == "drop":
            for row in (first, *others):
                self._drop(row, "contradiction", self._ids[others[0] if row == first else first])
            return
        for row, reason in zip(others, reasons, strict=True):
            self._drop(row, reason, self._ids[first])

    def _compare_labels(self, first: int, others: list[int], reasons: list[str]) -> bool:
        """Tell whether copies have different labels; where the settings say so, give the first their mean."""
        aligned = [self._labels[first]]
        for row, reason in zip(others, reasons, strict=True):
            label = self._labels[[row]]
            aligned.append((swap_classes(label, self._task) if reason == "swapped_duplicate" else label)[0])
        labels = np.array(aligned)
        if np.ptp(labels, axis=0).max() <= ROUNDING_TOLERANCE:
            return False
        self._contradictions.append(
            Contradiction([self._ids[row] for row in (first, *others)], np.round(labels, 6).tolist())
        )
        if self._settings.duplicates != "keep" and self._settings.contradictions == "average":
            self._relabel(first, labels.mean(axis=0), "contradiction", self._ids[others[0]])
        return True

    def _find_shared_responses(self) -> None:
        first: dict[tuple[bytes, bytes], int] = {}
        for row in np.flatnonzero(self._remains).tolist():
            other = first.setdefault(self._keys[row].responses, row)
            if self._keys[other].prompt != self._keys[row].prompt:
                self._note("kept", row, "shared_responses", self._ids[other])

    def _drop(self, row: int, reason: str, other_id: object = None) -> None:
        self._remains[row] = False
        self._note("dropped", row, reason, other_id)

    def _relabel(self, row: int, label: Probabilities, reason: str, other_id: object = None) -> None:
        before, self._labels[row] = self._labels[row].copy(), label
        if np.abs(before - label).max() > 0:
            self._note("relabelled", row, reason, other_id, before, label)

    def _note(
        self,
        action: Action,
        row: int,
        reason: str,
        other_id: object = None,
        before: Probabilities | None = None,
        after: Probabilities | None = None,
    ) -> None:
        old, new = (None if label is None else np.round(label, 6).tolist() for label in (before, after))
        self._changes.append(Change(self._ids[row], self._sources[row], action, reason, other_id, old, new))

    def _nothing_left(self) -> str:
        dropped = [change.reason for change in self._changes if change.action == "dropped"]
        why = "; ".join(f"{dropped.count(reason)}: {REASONS[reason]}" for reason in dict.fromkeys(dropped))
        return (
            f"cleaning leaves none of {len(self._keys)} rows ({why or 'there were none'}); check that the data are not "
            "the evaluation set itself, or keep such rows by the settings of cleaning"
        )

    def _group_names(self, positions: NDArray[np.intp], codes: NDArray[np.intp]) -> list[str]:
        """Name groups by the smallest name that a row came with, else by a hash of the smallest prompt."""
        given = self._rows.groups or [None] * len(self._keys)
        names: dict[int, str] = {}
        prompts: dict[int, str] = {}
        for row in positions.tolist():
            code, name, prompt = int(codes[row]), given[row], self._keys[row].prompt
            if name is not None:
                names[code] = min(name, names.get(code, name))
            prompts[code] = min(prompt, prompts.get(code, prompt))
        for code, prompt in prompts.items():
            digest = hashlib.blake2b(prompt.encode(errors="surrogatepass"), digest_size=6).hexdigest()
            names.setdefault(code, f"prompt-{digest}")
        return [names[code] for code in codes[positions].tolist()]

    def _report(self, positions: NDArray[np.intp], groups: list[str]) -> CleaningReport:
        rows = positions.tolist()
        ids, prompts = [self._ids[row] for row in rows], [self._keys[row].prompt for row in rows]
        balance = None
        if self._rows.labels is not None:
            languages = self._rows.languages or column_of(self._rows.battles, SCRIPT)
            by = {
                "source": [self._sources[row] for row in rows],
                "language": [languages[row] or UNKNOWN for row in rows],
            }
            balance = summarise_balance(self._rows.labels, self._labels[positions], by, self._task.classes)
        return CleaningReport(
            n_before=len(self._keys),
            n_after=len(rows),
            changes=tuple(self._changes),
            contradictions=tuple(self._contradictions),
            groups=summarise_groups(ids, prompts, groups),
            balance=balance,
            language_from="the scripts of the prompts" if self._rows.languages is None else "the column language",
        )


def _stripped(turns: Turns) -> list[str]:
    return [visible(turn).strip() for turn in turns]
