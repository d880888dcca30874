"""Which rows a model has learned from: hashes in a file beside it, for later trainings and measurements to go by.

A row is known by its prompt and both responses after normalisation, in either order, so that neither another id nor
swapped responses hide it. Whoever has a text can tell whether it was learned from; the texts cannot be read back.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save

from lmsys_ensemble.cleaning.normalization import battle_key
from lmsys_ensemble.data.battles import Battles
from lmsys_ensemble.errors import IntegrityError
from lmsys_ensemble.files import sha256_of, write_atomically
from lmsys_ensemble.modeling.recipe import Recipe
from lmsys_ensemble.modeling.tensorfiles import check_safetensors

LEARNED_FILE = "learned_rows.safetensors"
LEARNED_KEY = "learned_rows_sha256"
"""Entry of a recipe's ``training`` that holds the file's hash: a file that it does not name is of another run."""

_VERSION = "1"
"""Of normalisation and hashes; a file of another version says nothing."""


class SeenRowsWarning(UserWarning):
    """Rows that are measured on may have been learned from, so that figures may be too good."""


@dataclass(frozen=True)
class LearnedRows:
    """Rows that a model has learned from.

    Attributes
    ----------
    rows, prompts : ndarray of shape (n_hashes,), uint64
        Hashes of rows and of their prompts, sorted, each once. Of n rows, two that differ have the same hash with a
        probability of about n**2 / 2**65.
    """

    rows: NDArray[np.uint64]
    prompts: NDArray[np.uint64]

    @classmethod
    def of(cls, battles: Battles) -> "LearnedRows":
        """Return the rows of a table."""
        rows, prompts = _hashes(battles)
        return cls(np.unique(rows), np.unique(prompts))

    def union(self, other: "LearnedRows") -> "LearnedRows":
        """Return the rows of both."""
        return LearnedRows(np.union1d(self.rows, other.rows), np.union1d(self.prompts, other.prompts))

    def find(self, battles: Battles) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Tell for every row whether it is among them, and whether its prompt is; both of shape (n_rows,)."""
        rows, prompts = _hashes(battles)
        return np.isin(rows, self.rows), np.isin(prompts, self.prompts)

    def write(self, folder: Path) -> str:
        """Write the file, 16 bytes a row, and return its SHA-256."""
        content = save({"rows": self.rows, "prompts": self.prompts}, metadata={"version": _VERSION})
        write_atomically(folder / LEARNED_FILE, content)
        return hashlib.sha256(content).hexdigest()


def read_learned_rows(folder: Path, recipe: Recipe | None) -> LearnedRows | None:
    """Return the rows that a model has learned from; None where that is not known.

    Parameters
    ----------
    folder : Path
        Folder of an adapter or of a merged model.
    recipe : Recipe or None
        Its recipe, which holds the file's hash.

    Raises
    ------
    IntegrityError
        If the file is damaged, or is not the one that was saved with the recipe.
    """
    path = folder / LEARNED_FILE
    expected = None if recipe is None else recipe.training.get(LEARNED_KEY)
    if expected is None or not path.is_file():
        return None
    if sha256_of(path) != expected:
        raise IntegrityError(f"{path} is not the file that was saved with its recipe. Copy the folder again")
    check_safetensors(path)
    with safe_open(path, "np") as file:
        if (file.metadata() or {}).get("version") != _VERSION:
            return None
        return LearnedRows(file.get_tensor("rows"), file.get_tensor("prompts"))


def united(parts: Sequence[LearnedRows | None]) -> LearnedRows | None:
    """Return the rows of all parts; None where there are no parts, or those of one are not known."""
    known = [part for part in parts if part is not None]
    if not known or len(known) < len(parts):
        return None
    result = known[0]
    for part in known[1:]:
        result = result.union(part)
    return result


def _hashes(battles: Battles) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    rows, prompts = np.empty(len(battles), dtype=np.uint64), np.empty(len(battles), dtype=np.uint64)
    for number, battle in enumerate(battles):
        key = battle_key(battle)
        prompt = key.prompt.encode(errors="surrogatepass")
        prompts[number] = _hash(prompt)
        rows[number] = _hash(hashlib.blake2b(prompt).digest(), *key.responses)
    return rows, prompts


def _hash(*parts: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(b"".join(parts), digest_size=8).digest(), "little")
