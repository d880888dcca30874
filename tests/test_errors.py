import inspect
import re

import pytest

from lmsys_ensemble import errors
from lmsys_ensemble.errors import ConfigError, EnsembleError, InputError, MissingDependencyError, ScoringError

DEFINED = {
    name: kind
    for name, kind in vars(errors).items()
    if inspect.isclass(kind) and issubclass(kind, BaseException) and kind.__module__ == errors.__name__
}


def drawn_tree() -> dict[str, str | None]:
    """Return every error of the drawing at the top of the module, with the error that it hangs from."""
    parents: dict[str, str | None] = {}
    path: list[tuple[int, str]] = []
    for line in errors.__doc__.splitlines():
        found = re.match(r"^([ │├└─]*)(\w+Error)\b", line)
        if not found:
            continue
        depth, name = len(found[1]), found[2]
        while path and path[-1][0] >= depth:
            path.pop()
        parents[name] = path[-1][1] if path else None
        path.append((depth, name))
    return parents


def test_the_drawn_tree_is_the_real_one():
    real = {
        name: next((base.__name__ for base in kind.__bases__ if base in DEFINED.values()), None)
        for name, kind in DEFINED.items()
    }
    assert drawn_tree() == real


def test_the_builtin_bases_are_drawn_too():
    drawn = dict(re.findall(r"(\w+Error) \((\w+)\)", errors.__doc__))
    real = {
        name: base.__name__
        for name, kind in DEFINED.items()
        for base in kind.__bases__
        if base not in DEFINED.values() and base is not Exception
    }
    assert drawn == real


@pytest.mark.parametrize(
    ("kind", "builtin"), [(InputError, ValueError), (ConfigError, ValueError), (MissingDependencyError, ImportError)]
)
def test_callers_that_know_only_builtin_errors_catch_ours(kind, builtin):
    with pytest.raises(builtin):
        raise kind("what went wrong")


def test_a_scoring_error_says_who_failed_where_and_on_what():
    error = ScoringError("no numbers", scorer="gemma", device="cuda:1", row_ids=(7, 9))
    assert isinstance(error, EnsembleError)
    assert (str(error), error.scorer, error.device, error.row_ids) == ("no numbers", "gemma", "cuda:1", (7, 9))
