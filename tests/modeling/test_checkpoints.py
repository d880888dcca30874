"""What of a stranger's folder is refused before anything is loaded."""

import json
import shutil

import pytest
import torch

from lmsys_ensemble.errors import ConfigError, IntegrityError, ModelError
from lmsys_ensemble.modeling.checkpoints import check_base_folder
from lmsys_ensemble.modeling.loading import LoadSettings, load_classifier, load_config, load_tokenizer

FLOAT32 = LoadSettings(3, "cpu", torch.float32)


LFS_POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935\nsize 538090408\n"


def edit_json(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"attn_implementation": "evil/kernel"},
            "attn_implementation 'evil/kernel', which would be fetched from the Hub",
        ),
        ({"_attn_implementation": "evil/kernel@main"}, "_attn_implementation 'evil/kernel@main'"),
        ({"attn_implementation": {"": "sdpa", "text_config": "evil/kernel"}}, "attn_implementation .*evil/kernel"),
        ({"text_config": {"attn_implementation": "evil/kernel"}}, r"text_config\.attn_implementation 'evil/kernel'"),
        ({"experts_implementation": "evil/experts"}, "experts_implementation 'evil/experts'"),
        ({"transformers_weights": "pytorch_model.bin"}, "weights from 'pytorch_model.bin'.*Delete the entry"),
        ({"transformers_weights": "sub/model.safetensors"}, "weights from 'sub/model.safetensors'"),
        (
            {"text_config": {"auto_map": {"AutoConfig": "evil.Config"}}},
            r"\(text_config\.auto_map\), which is never run",
        ),
        ({"auto_map": {"AutoModelForSequenceClassification": "evil/repo--modeling.Mine"}}, "never run"),
        ({"num_hidden_layers": 50_000_000}, "num_hidden_layers must be a whole number from 1 to 1,024, got 50000000"),
        ({"text_config": "gemma"}, "text_config must be names with their values, got 'gemma'"),
        ({"hidden_size": -4}, "hidden_size must be a whole number"),
        ({"vocab_size": 2.5}, "vocab_size must be a whole number"),
        ({"num_attention_heads": 0}, "num_attention_heads must be a whole number"),
    ],
)
def test_a_configuration_that_asks_for_code_or_for_the_absurd_is_refused(folder, changes, words):
    edit_json(folder / "config.json", **changes)
    for look in (
        lambda: check_base_folder(folder),
        lambda: load_config(folder, FLOAT32),
        lambda: load_classifier(folder, FLOAT32, head_follows=False),
    ):
        with pytest.raises(ModelError, match=words):
            look()


def test_code_on_the_hub_is_refused_as_a_setting_too(folder):
    settings = LoadSettings(3, "cpu", torch.float32, attn_implementation="evil/kernel")
    with pytest.raises(ConfigError, match="'evil/kernel' names code on the Hub, which is never run"):
        load_classifier(folder, settings, head_follows=False)


def test_code_of_a_tokenizer_is_not_run(folder, tmp_path):
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Mine: pass\n")
    edit_json(
        folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.Mine", "evil.Mine"]}, tokenizer_class="Mine"
    )
    try:
        load_tokenizer(folder)
    except ModelError as error:
        assert "tokenizer" in str(error)  # noqa: PT017 - transformers may also take its own class
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("text", ["[1, 2]", "{", "[" * 5000, LFS_POINTER])
def test_a_config_that_is_none_is_named(folder, text):
    (folder / "config.json").write_text(text)
    with pytest.raises(ModelError, match=r"config\.json") as caught:
        check_base_folder(folder)
    assert ("Git-LFS pointer" in str(caught.value)) == (text == LFS_POINTER)


@pytest.mark.parametrize("text", ["[" * 5000, '{"added_tokens_decoder": ' * 900 + "1" + "}" * 900, LFS_POINTER, ""])
def test_a_tokenizer_file_that_is_none_is_named(folder, text):
    for name in ("tokenizer_config.json", "tokenizer.json"):
        content = (folder / name).read_bytes()
        (folder / name).write_text(text)
        with pytest.raises(ModelError, match="holds no tokenizer that can be loaded"):
            load_tokenizer(folder)
        (folder / name).write_bytes(content)
    load_tokenizer(folder)


def test_weights_that_git_left_as_a_pointer_are_named(folder):
    (folder / "model.safetensors").write_text(LFS_POINTER)
    with pytest.raises(
        IntegrityError, match=r"model\.safetensors holds no tensors: it is a Git-LFS pointer.*git lfs pull"
    ):
        check_base_folder(folder)


def test_an_index_without_a_map_is_named(folder):
    (folder / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(IntegrityError, match="states no weight_map"):
        check_base_folder(folder)


def test_an_adapter_in_the_folder_of_a_base_model_is_not_put_into_it(folder, checkpoints):
    for file in checkpoints.adapter("llama").iterdir():
        shutil.copy(file, folder)
    with pytest.raises(ModelError, match=r"holds an adapter .*folder of their own, and give that as adapter="):
        load_classifier(folder, FLOAT32, head_follows=False)


@pytest.mark.parametrize("shard", ["../other/model.safetensors", "sub/model.safetensors", "pytorch_model.bin", 7])
def test_an_index_leads_to_no_weights_but_those_beside_it(shard, folder):
    """What lies elsewhere has no part in the fingerprint, and what is pickled is not read."""
    for place in (folder / "sub", folder.parent / "other"):
        place.mkdir()
        shutil.copy(folder / "model.safetensors", place)
    shutil.copy(folder / "model.safetensors", folder / "pytorch_model.bin")
    (folder / "model.safetensors").rename(folder / "unused.safetensors")
    index = {"metadata": {}, "weight_map": {"score.weight": shard}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(IntegrityError, match=r"weights are read from \*\.safetensors in .* only"):
        check_base_folder(folder)
