"""Regular expressions from strangers, tried under a time limit before anything else runs them.

PEFT matches ``target_modules`` (as one text), ``exclude_modules``, ``layers_pattern``, ``modules_to_save`` and the keys
of ``rank_pattern`` and ``alpha_pattern`` against the name of every module. Some expressions take for ever on some names
(``(.*a)*$``), and nothing can stop a match in its own process. So it is tried in a process that can be killed.
"""

import json
import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from typing import Literal, TypeAlias

from lmsys_ensemble.errors import ModelError

Way: TypeAlias = Literal["match", "fullmatch"]

TIME_LIMIT_S = 20.0
"""All expressions of an adapter on all names of a model take milliseconds; the rest is for a busy machine."""

_PLAIN = re.compile(r"[\w.\-]*")

_TRIAL = """
import json, re, sys
patterns, names = json.load(sys.stdin)
for way, pattern in patterns:
    print(json.dumps(pattern), flush=True)
    try:
        match = getattr(re.compile(pattern), way)
        for name in names:
            match(name)
    except (re.error, OverflowError, RecursionError) as error:
        sys.exit(f"is no regular expression: {error}")
"""


def check_patterns(patterns: Iterable[tuple[Way, str]], names: Sequence[str], source: object) -> None:
    """Make sure that regular expressions are valid and can be matched against all names in time.

    Parameters
    ----------
    patterns : iterable of (str, str)
        How each will be matched (``match`` or ``fullmatch``), and the expression.
    names : sequence of str
        Names of modules.
    source : object
        Where the patterns come from, for the error.

    Raises
    ------
    ModelError
        If one is no regular expression, or takes longer than `TIME_LIMIT_S`; names it.
    """
    doubtful = sorted({(way, pattern) for way, pattern in patterns if not _PLAIN.fullmatch(pattern)})
    if not doubtful:
        return
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _TRIAL],
            input=json.dumps([doubtful, list(names)]),
            capture_output=True,
            text=True,
            timeout=TIME_LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        last = bytes(error.stdout or b"").decode(errors="replace").splitlines()[-1:] or ["?"]  # bytes even with text=
        raise ModelError(
            f"{source}: the regular expression {_short(last[0])} was stopped after {TIME_LIMIT_S:g} s; it may take for "
            "ever on this model's names. List the modules' names instead"
        ) from error
    if done.returncode:
        tried = done.stdout.splitlines()[-1:] or ["?"]
        raise ModelError(
            f"{source}: {_short(tried[0])} {(done.stderr.strip() or 'cannot be matched').splitlines()[-1]}"
        )


def _short(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:80]}…"
