"""Files: read within limits, written whole or not at all, told apart by their hashes."""

import hashlib
import json
import os
import re
import secrets
import shutil
import stat
import sys
import tempfile
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lmsys_ensemble.documents import parse_json, parse_yaml
from lmsys_ensemble.errors import ConfigError, InputError

_STREAMS = {"stdin": 0, "stdout": 1, "stderr": 2}
_DESCRIPTOR = re.compile(rf"/dev/({'|'.join(_STREAMS)})|/(?:dev|proc/(?:self|thread-self))/fd/(\d+)")
_MAX_LINKS = 40


def read_mapping(path: Path) -> Any:
    """Read a YAML or JSON file, within the limits of `lmsys_ensemble.documents`.

    Raises
    ------
    ConfigError
        If the file is not there, is neither YAML nor JSON, or is nested too deeply.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigError(f"there is no file {path}") from error
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    return parse_json(text, path) if path.suffix == ".json" else parse_yaml(text, path)


def read_object(path: Path) -> dict[str, Any]:
    """Read a YAML or JSON file that holds names and their values.

    Raises
    ------
    ConfigError
        As `read_mapping`, or if it holds something else.
    """
    values = read_mapping(path)
    if not isinstance(values, dict):
        raise ConfigError(f"{path} holds {type(values).__name__}, expected names with their values")
    return values


def write_atomically(path: str | Path, content: str | bytes) -> None:
    """Write a file so that it is there whole or not at all, even if the process is killed.

    A link is followed; permissions and owner of a file that exists are kept. What is no regular file (a pipe, a
    device, ``/dev/stdout``) cannot be replaced and is written to.
    """
    data = content.encode() if isinstance(content, str) else content
    descriptor = open_descriptor(path)
    if descriptor is not None:
        sys.stdout.flush()
        with os.fdopen(os.dup(descriptor), "wb") as file:
            file.write(data)
    elif is_special(path):
        with open(path, "wb") as file:
            file.write(data)
    else:
        target = Path(os.path.realpath(path))
        target.parent.mkdir(parents=True, exist_ok=True)
        _replace(target, data)


def _replace(target: Path, data: bytes) -> None:
    existing = target.stat() if target.exists() else None
    temporary = target.with_name(f".{target.name[:60]}.{secrets.token_hex(6)}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    # The system applies the umask, which cannot be read without changing it for other threads.
    descriptor = os.open(temporary, flags, 0o666 if existing is None else 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if existing is not None:
            if hasattr(os, "chown"):
                with suppress(PermissionError):  # only root may give files away
                    os.chown(temporary, existing.st_uid, existing.st_gid)
            os.chmod(temporary, stat.S_IMODE(existing.st_mode))
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def check_folder(folder: Path, option: str = "the output") -> None:
    """Raise `InputError` if there is no such folder, or no file can be made in it: tried, not guessed."""
    if not folder.is_dir():
        fault = "is a file, expected a folder" if folder.exists() else "does not exist; make it before the run"
        raise InputError(f"{option}: the folder {folder} {fault}")
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(
            f"{option}: nothing can be written into the folder {folder}: {error.strerror}; give another path"
        ) from error


def check_new_folder(
    folder: str | Path, option: str = "--output", *, overwrite: bool = False, cure: str = "give a new folder"
) -> None:
    """Raise `InputError` if a folder that is to be made could not be made or written, or holds something already."""
    path = Path(os.path.realpath(folder))
    if path.exists() and not path.is_dir():
        raise InputError(f"{option} {folder} is a file, expected a folder; {cure}")
    check_folder(next(parent for parent in (path, *path.parents) if parent.exists()), option)
    if path.exists() and not overwrite and any(path.iterdir()):
        raise InputError(f"{option} {folder} is not empty; {cure}")


@contextmanager
def whole_folder(folder: str | Path) -> Iterator[Path]:
    """Yield a hidden folder whose files become those of `folder` at the end of the block, if nothing fails in it.

    Files of the same names are replaced; others in `folder` stay.
    """
    target = Path(os.path.realpath(folder))
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name[:60]}.{secrets.token_hex(6)}")
    temporary.mkdir()
    try:
        yield temporary
        if target.is_dir():
            for path in temporary.iterdir():
                os.replace(path, target / path.name)
        else:
            os.replace(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def open_descriptor(path: str | Path) -> int | None:
    """Return the number of the open file that a path stands for, as ``/dev/stdout`` and links to it do.

    >>> open_descriptor("/dev/stdout"), open_descriptor("submission.csv")
    (1, None)
    """
    current = os.path.abspath(path)
    for _ in range(_MAX_LINKS):
        if found := _DESCRIPTOR.fullmatch(current):
            return _STREAMS[found[1]] if found[1] else int(found[2])
        try:
            current = os.path.normpath(os.path.join(os.path.dirname(current), os.readlink(current)))
        except OSError:
            return None
    return None


def is_special(path: str | Path) -> bool:
    """Tell whether a path leads to something that is neither a regular file nor a folder."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def write_json(path: str | Path, values: Any) -> None:
    """Write `values` as indented JSON, atomically; lone surrogates, which UTF-8 cannot hold, as escapes."""
    text = json.dumps(values, indent=2, ensure_ascii=False) + "\n"
    write_atomically(path, text.encode(errors="backslashreplace"))  # JSON spells them so, too


def escape_formula(text: str) -> str:
    """Return text that a spreadsheet shows instead of running it as a formula.

    For files that people open, never for ids that are matched by. A leading apostrophe, as OWASP advises against
    CSV injection; also where a formula's sign comes after characters that cannot be seen, or in its full-width form.
    Line ends become line feeds, because readers take a bare carriage return for the end of a row.

    >>> escape_formula("=HYPERLINK(A1)"), escape_formula("2 + 2 = 4")
    ("'=HYPERLINK(A1)", '2 + 2 = 4')
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    seen = next((character for character in text if not _is_unseen(character)), "")
    begins_line = text.startswith(("\t", "\n"))
    return f"'{text}" if begins_line or unicodedata.normalize("NFKC", seen)[:1] in _FORMULA_SIGNS else text


_FORMULA_SIGNS = {"=", "+", "-", "@"}


def _is_unseen(character: str) -> bool:
    """Tell whether a character is blank or invisible: spaces, controls, marks without a letter, what only formats."""
    return unicodedata.category(character) in {"Cc", "Cf", "Zs", "Zl", "Zp", "Mn", "Me"} or character in _BLANKS


_BLANKS = {"\u2800", "\u3164", "\u115f", "\u1160", "\uffa0"}
"""Letters and symbols that show nothing: the empty Braille pattern and Hangul fillers."""


def sha256_of(path: str | Path) -> str:
    """Return the SHA-256 of a file, 64 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
