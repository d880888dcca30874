import json
import os
import shutil

import numpy as np
from safetensors.numpy import load_file, save_file

from lmsys_ensemble.files import sha256_of
from lmsys_ensemble.modeling import digests
from lmsys_ensemble.modeling.digests import (
    adapter_identity,
    base_digest,
    base_sha256,
    describe_base_files,
    encoding_digest,
    is_base_of,
)
from lmsys_ensemble.modeling.tokenization import make_encoder
from tests.tiny import make_recipe


def test_a_base_is_known_by_its_weights_and_settings_and_not_by_where_it_lies(checkpoints, folder):
    digest = base_digest(folder)
    assert digest == base_digest(checkpoints.classifier("llama"))
    weights = load_file(folder / "model.safetensors")
    name = min(weights, key=lambda key: weights[key].size)
    save_file({**weights, name: weights[name] + np.float32(1)}, folder / "model.safetensors", {"format": "pt"})
    changed = base_digest(folder)
    assert changed != digest
    (folder / "config.json").write_text((folder / "config.json").read_text() + " ")
    assert base_digest(folder) not in (digest, changed)


def test_every_byte_of_a_base_counts_and_is_read_once(folder, tmp_path, monkeypatch):
    """A few rows of the embeddings change in place; then the hash is asked for again."""
    monkeypatch.setenv("LMSYS_ENSEMBLE_CACHE", str(tmp_path / "cache"))
    path, read = folder / "model.safetensors", []
    os.utime(path, ns=(10**18, 10**18))
    monkeypatch.setattr(digests, "sha256_of", lambda file: read.append(file.name) or sha256_of(file))
    sampled, before = base_digest(folder), describe_base_files(folder)
    weights = load_file(path)
    weights["model.embed_tokens.weight"][30:35] += 1  # between two of the blocks that are sampled
    save_file(weights, path, {"format": "pt"})
    os.utime(path, ns=(10**18 + 1, 10**18 + 1))
    assert base_digest(folder) == sampled
    assert base_sha256(folder) != before["base_sha256"]
    assert is_base_of(before, folder) is False
    assert is_base_of({"base_digest": sampled}, folder) is True, "as recipes of earlier versions say it"
    assert is_base_of({}, folder) is None
    assert read.count(path.name) == 2
    (memory,) = (tmp_path / "cache" / "digests").iterdir()
    memory.write_text("{")
    assert base_sha256(folder) == base_sha256(folder)
    assert read.count(path.name) == 3
    os.utime(path)  # changed a moment ago: a further change might leave the time as it is
    assert base_sha256(folder) == base_sha256(folder)
    assert read.count(path.name) == 5


def test_an_adapter_is_named_setting_by_setting_without_what_changes_no_result(checkpoints, tmp_path):
    folder = shutil.copytree(checkpoints.adapter("llama"), tmp_path / "adapter")
    before = adapter_identity(folder)
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "base_model_name_or_path": "elsewhere"}))
    assert adapter_identity(folder) == before
    path.write_text(json.dumps({**json.loads(path.read_text()), "lora_alpha": 3}))
    after = adapter_identity(folder)
    assert after["config"]["lora_alpha"] == 3
    assert after["adapter_model.safetensors"] == before["adapter_model.safetensors"]


def test_the_way_to_token_ids_has_a_hash_of_its_own(checkpoints):
    base = checkpoints.classifier("llama")
    digests = {
        encoding_digest(make_encoder(base, make_recipe(**changes)))
        for changes in ({}, {"max_tokens": 80}, {"truncation": "tail"}, {"template": {"name": "kaggle-llama"}})
    }
    assert len(digests) == 4
    assert encoding_digest(make_encoder(base, make_recipe())) in digests
