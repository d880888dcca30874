"""Files of tables: which format their names say, and their bytes, from wherever they come."""

import gzip
import io
import stat
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeAlias, cast

from lmsys_ensemble.errors import InputError
from lmsys_ensemble.files import open_descriptor

Kind: TypeAlias = Literal["csv", "tsv", "jsonl", "parquet"]

TEXT_SUFFIXES: dict[str, Kind] = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl"}
"""Suffixes of formats that may be packed by gzip, too."""

KINDS: dict[str, Kind] = {**TEXT_SUFFIXES, ".parquet": "parquet", ".pq": "parquet"}

SUFFIXES_TEXT = ".csv, .tsv, .jsonl (each with or without .gz) or .parquet"
"""What a name may end in, for errors."""

SEPARATORS: dict[Kind, str] = {"csv": ",", "tsv": "\t"}

MAX_INFLATION, INFLATION_FREE_BYTES = 200, 1 << 30
"""Largest ratio of unpacked to packed size, above a GiB; files of battles have 3 to 10."""


@dataclass(frozen=True)
class TableFormat:
    """The format of a file: its `kind`, and whether gzip has packed it."""

    kind: Kind
    packed: bool = False


@dataclass(frozen=True)
class TableFile:
    """A table's file that can be opened several times, even if it is a pipe.

    Attributes
    ----------
    path : Path
        What errors call it.
    format : TableFormat
        Its format.
    content : bytes or None
        What a pipe held; None for a regular file.
    """

    path: Path
    format: TableFormat
    content: bytes | None = field(default=None, repr=False)

    def open(self) -> BinaryIO:
        """Open the unpacked bytes."""
        raw = io.BytesIO(self.content) if self.content is not None else open(self.path, "rb")  # noqa: SIM115 - closed by caller
        if not self.format.packed:
            return raw
        size = len(self.content) if self.content is not None else self.path.stat().st_size
        limit = max(MAX_INFLATION * size, INFLATION_FREE_BYTES)
        return cast(BinaryIO, io.BufferedReader(_Unpacked(raw, limit, self.path)))


class _Unpacked(io.RawIOBase):
    """What gzip has packed, as far as its size is not that of an attack."""

    def __init__(self, packed: BinaryIO, limit: int, path: Path):
        self._packed = packed
        self._unpacked = gzip.GzipFile(fileobj=packed)
        self._limit = self._left = limit
        self._path = path

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        try:
            n_bytes = self._unpacked.readinto(buffer)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise InputError(f"{self._path} is no whole gzip file: {error}; fetch or pack it again") from error
        self._left -= n_bytes
        if self._left < 0:
            raise InputError(
                f"{self._path} unpacks to more than {self._limit:,} bytes, {MAX_INFLATION} times its own size; unpack "
                "it by hand if it is what you expect"
            )
        return n_bytes

    def close(self) -> None:
        self._unpacked.close()
        self._packed.close()
        super().close()


def table_format(path: str | Path) -> TableFormat | None:
    """Return the format that a name says, or None.

    >>> table_format("test.csv.gz")
    TableFormat(kind='csv', packed=True)
    """
    suffixes = [suffix.lower() for suffix in Path(path).suffixes]
    if suffixes[-1:] == [".gz"]:
        kind = TEXT_SUFFIXES.get(suffixes[-2]) if len(suffixes) > 1 else None
        return TableFormat(kind, packed=True) if kind else None
    return TableFormat(KINDS[suffixes[-1]]) if suffixes and suffixes[-1] in KINDS else None


def without_suffix(path: str | Path) -> Path:
    """Return a path without the suffixes that name the format.

    >>> without_suffix("run/test.csv.gz").name, without_suffix("v1.2").name
    ('test', 'v1')
    """
    path = Path(path)
    return path.with_suffix("").with_suffix("") if path.suffix == ".gz" and table_format(path) else path.with_suffix("")


def find_table(path: str | Path) -> TableFile:
    """Find a table's file and its format; a pipe, which cannot be read twice, is read here.

    Raises
    ------
    InputError
        If there is no such file, its name does not say a format, or it is a folder or a device.
    """
    path = Path(path)
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise InputError(f"there is no file {path}{_why(error)}") from error
    if stat.S_ISDIR(mode):
        raise InputError(f"{path} is a folder, expected a file that ends in {SUFFIXES_TEXT}")
    if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
        raise InputError(f"{path} is a terminal or a device, expected a file or a pipe with a table in it")
    named = table_format(path)
    if not stat.S_ISREG(mode) or open_descriptor(path) is not None:
        content = path.read_bytes()
        return TableFile(path, named or _sniffed(content), content)
    if named is None:
        suffix = "".join(path.suffixes[-2:]) if path.suffix == ".gz" else path.suffix
        raise InputError(f"{path} must end in {SUFFIXES_TEXT}, got {suffix or 'no suffix'!r}")
    return TableFile(path, named)


def check_beginning(file: TableFile) -> None:
    """Raise `InputError` where a text file begins like one of another kind or encoding.

    Raises
    ------
    InputError
        If it is packed, Parquet or UTF-16; says what to do.
    """
    with file.open() as stream:
        beginning = stream.read(4)
    for mark, what, cure in _MARKS:
        if beginning.startswith(mark):
            raise InputError(f"{file.path}, line 1: the file is {what}, expected {file.format.kind}; {cure}")
    if beginning.startswith(_UTF16_MARKS) or b"\x00" in beginning:
        raise InputError(
            f"{file.path}, line 1: the file is UTF-16, expected UTF-8; save it as UTF-8 (in a spreadsheet: "
            "'CSV UTF-8'), or pass pandas.read_csv(..., encoding='utf-16') from Python"
        )


_GZIP_MARK, _PARQUET_MARK = b"\x1f\x8b", b"PAR1"
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_MARKS = (
    (_GZIP_MARK, "packed by gzip", "let its name end in .gz"),
    (b"PK\x03\x04", "a zip archive or a workbook", "unpack it, or save it as CSV"),
    (_PARQUET_MARK, "Parquet", "let its name end in .parquet"),
)


def _sniffed(content: bytes) -> TableFormat:
    """Return the format of bytes without a name."""
    if content.startswith(_GZIP_MARK):
        try:
            beginning = zlib.decompressobj(wbits=31).decompress(content, 1 << 16)
        except zlib.error:  # said when it is opened
            beginning = b""
        kind = _sniffed(beginning).kind if not beginning.startswith(_GZIP_MARK) else "csv"
        return TableFormat(kind, packed=True)
    if content.startswith(_PARQUET_MARK):
        return TableFormat("parquet")
    if content.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{"):
        return TableFormat("jsonl")
    header = content.split(b"\n", 1)[0]
    return TableFormat("tsv" if header.count(b"\t") > header.count(b",") else "csv")


def _why(error: OSError) -> str:
    return "" if isinstance(error, FileNotFoundError) else f": {error.strerror}"
