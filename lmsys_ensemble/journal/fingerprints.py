"""Fingerprints of scorers: their JSON text, its digest, and how two of them differ."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from lmsys_ensemble.errors import ContractError


def canonical_json(name: str, fingerprint: Mapping[str, Any]) -> str:
    """Return a fingerprint as JSON text; equal fingerprints give the same text.

    Raises
    ------
    ContractError
        If the fingerprint holds what JSON cannot.
    """
    try:
        return json.dumps(dict(fingerprint), sort_keys=True)
    except (TypeError, ValueError) as error:
        raise ContractError(f"scorer {name!r}: fingerprint() must hold JSON values only: {error}") from error


def digest_of(text: str) -> str:
    """Return a digest of 32 hexadecimal digits of a fingerprint's text."""
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def differences(name: str, old: str, new: str) -> list[str]:
    """Return each setting in which two fingerprints of a scorer differ, with both values.

    >>> differences("gemma", '{"recipe": {"max_tokens": 1024}}', '{"recipe": {"max_tokens": 2048}}')
    ["scorer 'gemma': recipe.max_tokens was 1024, is 2048"]
    """
    before, after = dict(_leaves(json.loads(old))), dict(_leaves(json.loads(new)))
    paths = [*before, *(path for path in after if path not in before)]
    return [
        f"scorer {name!r}: {path} {_was(before.get(path))}, {_is(after.get(path))}"
        for path in paths
        if before.get(path) != after.get(path)
    ]


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield the dotted path and the JSON text of each innermost value; as text, because 1 == 1.0 == True."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}.{key}" if path else key)
    else:
        yield path, json.dumps(value, ensure_ascii=False)


def _was(text: str | None) -> str:
    return "was not set" if text is None else f"was {text}"


def _is(text: str | None) -> str:
    return "is not set" if text is None else f"is {text}"
