import json
import shutil

import numpy as np
from safetensors.numpy import load_file, save_file

from lmsys_ensemble.modeling.digests import adapter_identity, base_digest, encoding_digest
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
