"""Hidden states that enter the first trained layer, computed once and kept in files.

The layers below it do not learn: what leaves them is the same in every epoch, in every fold, and in every run that
trains from the same layer on. It depends on the base model, the layer, the arithmetic and a row's token ids, and is
kept by these: a folder per base, layer and arithmetic, in it files of many rows, each with an index by token ids. A
file without an index was never finished and is never read.
"""

import errno
import hashlib
import json
import mmap
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from torch import Tensor

from lmsys_ensemble.compute.depth import only_layers
from lmsys_ensemble.encoding.batches import plan_batches
from lmsys_ensemble.encoding.tokens import Encoded
from lmsys_ensemble.errors import ConfigError
from lmsys_ensemble.files import read_object, write_json
from lmsys_ensemble.modeling.pooling import pad_batch

STORED_FORMAT = torch.bfloat16
"""Two bytes a value, and the range of float32: what layers add up leaves that of float16."""

MOST_OF_FREE_DISK = 0.5
"""Share of the free disk that new hidden states may take."""

_NO_ROOM = {errno.ENOSPC, errno.EFBIG, errno.EDQUOT}
_CANNOT_RESERVE = {errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}


class HiddenStates:
    """Hidden states of many rows, read from memory-mapped files."""

    def __init__(self, rows: Sequence[Tensor]):
        self._rows = rows

    def __getitem__(self, row: int) -> Tensor:
        """Return the states of one row, of shape (n_tokens, hidden_size)."""
        return self._rows[row]

    def __len__(self) -> int:
        return len(self._rows)


class HiddenStore:
    """Keeps hidden states in a folder.

    Parameters
    ----------
    root : Path
        Folder of all hidden states; a folder inside it is made for every `identity`.
    identity : mapping
        All that hidden states depend on beside token ids.
    hidden_size : int
        Values of a token.
    say : callable
        Told of sizes and places.
    """

    def __init__(self, root: Path, identity: dict[str, Any], hidden_size: int, say: Callable[[str], object]):
        key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:24]
        self.folder = root / key
        self._identity, self._hidden_size, self._say = identity, hidden_size, say

    def get(
        self,
        backbone: Any,
        first_layer: int,
        encoded: Encoded,
        tokens_per_batch: int,
        on_batch: Callable[[int], object] = lambda n_tokens: None,
    ) -> HiddenStates | None:
        """Return the hidden states of all rows, computing those that are not kept yet.

        None where they would take more of the disk than there is room for.
        """
        keys = [hashlib.sha256(row.astype("<i4").tobytes()).hexdigest()[:32] for row in encoded.ids]
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / "lock"):
            known = self._read()
            lacking = {key: row for row, key in enumerate(keys) if key not in known}
            rows = np.array(sorted(lacking.values()), dtype=np.intp)
            new = 2 * self._hidden_size * int(encoded.lengths[rows].sum())
            there = 2 * self._hidden_size * sum(len(known[key]) for key in known.keys() & set(keys))
            free = shutil.disk_usage(self.folder).free
            if new > MOST_OF_FREE_DISK * free:
                self._say_no_room(first_layer, new, free)
                return None
            self._say(
                f"hidden states below layer {first_layer}: {_size(new)} to compute, {_size(there)} there already, in "
                f"{self.folder}; it may be deleted at any time between runs"
            )
            if len(rows):
                try:
                    self._compute(backbone, first_layer, encoded, rows, [keys[row] for row in rows], tokens_per_batch,
                                  on_batch)  # fmt: skip
                except OSError as error:
                    if error.errno not in _NO_ROOM:
                        raise
                    self._say_no_room(first_layer, new, shutil.disk_usage(self.folder).free)
                    return None
                known = self._read()
        return HiddenStates([known[key] for key in keys])

    def _say_no_room(self, first_layer: int, new: int, free: int) -> None:
        self._say(
            f"hidden states below layer {first_layer} would take {_size(new)} of {_size(free)} free in "
            f"{self.folder.parent}: they are computed in every epoch instead (another folder: --cache FOLDER)"
        )

    def _read(self) -> dict[str, Tensor]:
        """Return the states of every row that is kept, by its key, without reading them."""
        known: dict[str, Tensor] = {}
        for index in sorted(self.folder.glob("part-*.json")):
            try:
                entries = [(str(key), int(length)) for key, length in read_object(index)["rows"]]
            except (ConfigError, KeyError, TypeError, ValueError):
                continue
            path = index.with_suffix(".bin")
            n_tokens = sum(length for _, length in entries)
            if not path.is_file() or path.stat().st_size != 2 * self._hidden_size * n_tokens:
                continue
            values = _map(path, n_tokens, self._hidden_size)
            start = 0
            for key, length in entries:
                known[key] = values[start : start + length]
                start += length
        return known

    def _compute(
        self,
        backbone: Any,
        first_layer: int,
        encoded: Encoded,
        rows: NDArray[np.intp],
        keys: list[str],
        tokens_per_batch: int,
        on_batch: Callable[[int], object],
    ) -> None:
        for path in self.folder.glob("part-*.bin"):
            if not path.with_suffix(".json").exists():  # of a run that was interrupted
                path.unlink()
        numbers = [int(path.stem.partition("-")[2]) for path in self.folder.glob("part-*.json")]
        path = self.folder / f"part-{max(numbers, default=0) + 1}.bin"
        lengths = encoded.lengths[rows]
        with _new_file(path, int(lengths.sum()), self._hidden_size) as values:
            compute_hidden_states(
                backbone, first_layer, [encoded.ids[row] for row in rows], values, tokens_per_batch, on_batch
            )
        entries = [[key, int(length)] for key, length in zip(keys, lengths, strict=True)]
        write_json(self.folder / "about.json", self._identity)
        write_json(path.with_suffix(".json"), {"rows": entries})


def _map(path: Path, n_tokens: int, hidden_size: int) -> Tensor:
    if not n_tokens:
        return torch.empty(0, hidden_size, dtype=STORED_FORMAT)
    values = torch.from_file(str(path), shared=False, size=n_tokens * hidden_size, dtype=STORED_FORMAT)
    return values.view(-1, hidden_size)


@contextmanager
def _new_file(path: Path, n_tokens: int, hidden_size: int) -> Iterator[Tensor]:
    """Yield a tensor whose values are those of a new file; after the block they are on the disk.

    Raises
    ------
    OSError
        If the disk has no room; there is no file then.
    """
    n_bytes = STORED_FORMAT.itemsize * n_tokens * hidden_size
    with path.open("w+b") as file:
        try:
            _reserve(file.fileno(), n_bytes)
        except OSError:
            path.unlink()
            raise
        if not n_bytes:
            yield torch.empty(0, hidden_size, dtype=STORED_FORMAT)
            return
        memory = mmap.mmap(file.fileno(), n_bytes)
        yield torch.frombuffer(memory, dtype=STORED_FORMAT).view(-1, hidden_size)
        memory.flush()  # the index comes next, and must not outlive a power cut that the values do not
        os.fsync(file.fileno())


def _reserve(descriptor: int, n_bytes: int) -> None:
    """Give an empty file its size and room on the disk: writing to the memory of one without room ends the process."""
    if n_bytes and hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(descriptor, 0, n_bytes)
        except OSError as error:
            if error.errno not in _CANNOT_RESERVE:
                raise
    os.ftruncate(descriptor, n_bytes)


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e8 else f"{n_bytes / 1e6:.1f} MB"


@torch.no_grad()
def compute_hidden_states(
    backbone: Any,
    first_layer: int,
    ids: Sequence[NDArray[np.int32]],
    values: Tensor,
    tokens_per_batch: int,
    on_batch: Callable[[int], object],
) -> None:
    """Run the layers below `first_layer` and write what leaves them.

    Parameters
    ----------
    backbone : PreTrainedModel
        Decoder without head.
    first_layer : int
        First layer that is left out.
    ids : sequence of ndarray
        Token ids of every row.
    values : Tensor of shape (n_tokens, hidden_size)
        Written to, one row after the other.
    tokens_per_batch : int
        Budget of a batch.
    on_batch : callable
        Told of the tokens that are done.
    """
    lengths = np.array([len(row) for row in ids], dtype=np.intp)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    with only_layers(backbone, 0, first_layer) as lower:
        for rows in plan_batches(lengths, tokens_per_batch):
            tokens, mask = pad_batch([ids[row] for row in rows], 0, backbone.device)
            entering = backbone.get_input_embeddings()(tokens).float()  # what is added up would overflow in float16
            hidden = lower(inputs_embeds=entering, attention_mask=mask, use_cache=False).last_hidden_state
            for position, row in enumerate(rows):
                values[starts[row] : starts[row + 1]] = hidden[position, : lengths[row]].to("cpu", values.dtype)
            on_batch(int(lengths[rows].sum()))
