"""Files of tensors, looked at without loading them: what is in a safetensors header, and what a file is instead."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from lmsys_ensemble.errors import IntegrityError
from lmsys_ensemble.files import write_json

_SNIFFED_BYTES = 512

_KINDS = (
    (
        rb"version https://git-lfs\.github\.com/spec/",
        "a Git-LFS pointer, not the file itself; run 'git lfs pull' there",
    ),
    (rb"/?(\.git/)?annex/objects/|\.\./.*/annex/objects/", "a git-annex pointer, not the file itself"),
    (rb"\s*(<!doctype html|<html|<\?xml)", "a web page, perhaps a download's error message; download it again"),
    (rb"\x1f\x8b|BZh|\xfd7zXZ|\x28\xb5\x2f\xfd", "compressed; unpack it first"),
    (rb"GGUF", "a GGUF file"),
    (rb"\x89HDF", "an HDF5 file"),
    (rb"PAR1", "a Parquet file"),
    (rb"PK\x03\x04", "a zip archive, as torch.save writes"),
    (rb"\x80[\x02-\x05]", "a pickle"),
    (rb"\x00+$", "only zero bytes; it was not written to its end"),
)
"""How files begin that turn up where tensors are expected."""


@dataclass(frozen=True)
class TensorEntry:
    """What a safetensors header says of a tensor: its number format, shape, and place in the file in bytes."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


def describe_content(path: Path) -> str:
    """Say what a file is, by how it begins; '' where that is not known.

    >>> import tempfile, pathlib
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "weights.pth")
    ...     _ = path.write_bytes(b"")
    ...     describe_content(path)
    'empty'
    """
    with path.open("rb") as file:
        beginning = file.read(_SNIFFED_BYTES)
    if not beginning:
        return "empty"
    for pattern, kind in _KINDS:
        if re.match(pattern, beginning, re.IGNORECASE):
            return kind
    if re.match(rb".{8}\s*\{\s*\"", beginning, re.DOTALL) and beginning[5:8] == b"\x00\x00\x00":
        return "a safetensors file"
    if re.fullmatch(rb"[\t\n\r\x20-\x7e]+", beginning):
        return "JSON" if beginning.lstrip()[:1] in (b"{", b"[") else "a text"
    return ""


def check_safetensors(path: Path) -> None:
    """Raise `IntegrityError` if a safetensors file is damaged, cut short, or another thing altogether."""
    try:
        with safe_open(path, "pt") as file:
            file.keys()
    except (SafetensorError, OSError) as error:
        kind = describe_content(path) if path.is_file() else ""
        if kind and kind != "a safetensors file":
            raise IntegrityError(f"{path} holds no tensors: it is {kind}") from error
        raise IntegrityError(f"{path} is damaged or cut short: {error}. Copy or fetch it again") from error


def read_header(path: Path) -> dict[str, TensorEntry]:
    """Return what a safetensors file holds, by name, in the file's order; tensors are not read.

    Raises
    ------
    IntegrityError
        If the file is damaged.
    """
    check_safetensors(path)  # its reader bounds and validates the header
    with path.open("rb") as file:
        n_bytes = int.from_bytes(file.read(8), "little")
        values = json.loads(file.read(n_bytes))
    entries = {
        name: TensorEntry(
            entry["dtype"], tuple(entry["shape"]), *(8 + n_bytes + offset for offset in entry["data_offsets"])
        )
        for name, entry in values.items()
        if name != "__metadata__"
    }
    return dict(sorted(entries.items(), key=lambda item: item[1].start))


def save_shards(tensors: Iterable[tuple[str, torch.Tensor]], folder: Path, shard_bytes: int) -> list[str]:
    """Write tensors as they come into files of about `shard_bytes`, with an index as transformers reads it.

    No more than one file's tensors are held at a time. Returns the files' names.
    """
    placed: list[list[str]] = []
    held: dict[str, torch.Tensor] = {}
    n_held, n_bytes = 0, 0

    def flush() -> None:
        save_tensors(held, folder / f"shard-{len(placed)}.safetensors")
        placed.append(list(held))
        held.clear()

    for name, tensor in tensors:
        size = tensor.numel() * tensor.element_size()
        if held and n_held + size > shard_bytes:
            flush()
            n_held = 0
        held[name] = tensor.contiguous()
        n_held, n_bytes = n_held + size, n_bytes + size
    flush()
    names = ["model.safetensors"]
    if len(placed) > 1:
        names = [f"model-{number:05d}-of-{len(placed):05d}.safetensors" for number in range(1, len(placed) + 1)]
        where = {tensor: name for name, inside in zip(names, placed, strict=True) for tensor in inside}
        write_json(folder / "model.safetensors.index.json", {"metadata": {"total_size": n_bytes}, "weight_map": where})
    for number, name in enumerate(names):
        (folder / f"shard-{number}.safetensors").rename(folder / name)
    return names


def save_tensors(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    """Write tensors as safetensors, readable for whoever may read the folder (`save_file` makes it private).

    Raises
    ------
    OSError
        If the file cannot be written: no room on the disk, for instance.
    """
    try:
        save_file(dict(tensors), path, metadata={"format": "pt"})
    except SafetensorError as error:
        raise OSError(f"{path} cannot be written: {error}") from error
    path.chmod(0o644)
