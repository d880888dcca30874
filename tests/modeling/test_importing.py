"""Other people's checkpoints: raw state dicts and pickled PEFT folders."""

import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from lmsys_ensemble.errors import ConfigError, DeviceError, InputError, IntegrityError, ModelError
from lmsys_ensemble.modeling.importing import LoraShape, import_checkpoint, normalise_keys
from lmsys_ensemble.modeling.recipe import describe_base, read_recipe
from lmsys_ensemble.scorers.llama import LlamaScorer
from tests.tiny import PAD, encode, make_battles, make_recipe, plain_logits, plain_model

RANK, ALPHA = 16, 32


@pytest.fixture
def base(checkpoints):
    return checkpoints.base("llama")


@pytest.fixture
def recipe(base):
    return make_recipe(
        base_model=describe_base(base, "tiny").model_dump(),
        special_tokens={"bos": True, "eos": True, "pad_token_id": PAD},
    )


@pytest.fixture
def trained(base):
    """Return a PEFT model as the public Llama notebook trains one: rank 16, alpha 32, o_proj and v_proj."""
    from peft import LoraConfig, TaskType, get_peft_model

    torch.manual_seed(3)
    config = LoraConfig(
        r=RANK, lora_alpha=ALPHA, bias="none", task_type=TaskType.SEQ_CLS, target_modules=["o_proj", "v_proj"]
    )
    wrapped = get_peft_model(plain_model(base), config)
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_B" in name or "modules_to_save" in name:
                parameter.normal_(std=0.2)
    return wrapped.eval()


def trainable(wrapped):
    return {name: tensor.detach() for name, tensor in wrapped.named_parameters() if tensor.requires_grad}


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_raw_state_dict_scores_as_the_model_it_was_saved_from(tmp_path, base, recipe, trained, prefix):
    torch.save({prefix + name: tensor for name, tensor in trainable(trained).items()}, tmp_path / "weights.pth")
    written = import_checkpoint(tmp_path / "weights.pth", tmp_path / "out", base, recipe, LoraShape(ALPHA))
    assert set(written.files) == {"adapter_model.safetensors", "adapter_config.json"}
    assert read_recipe(tmp_path / "out") == written
    battles = make_battles()
    with LlamaScorer(str(base), adapter=str(tmp_path / "out"), device="cpu") as scorer:
        logits = scorer.score(battles)
    expected = plain_logits(trained, encode(battles).ids)
    np.testing.assert_allclose(logits, expected, atol=1e-5)


def test_golden_rows_are_written_and_catch_another_head(tmp_path, base, recipe, trained):
    torch.save(trainable(trained), tmp_path / "weights.pth")
    out = tmp_path / "out"
    import_checkpoint(tmp_path / "weights.pth", out, base, recipe, LoraShape(ALPHA))
    assert (out / "golden.json").is_file()
    weights = load_file(out / "adapter_model.safetensors")
    weights["base_model.model.score.weight"] = -weights["base_model.model.score.weight"]
    save_file(weights, out / "adapter_model.safetensors")
    with pytest.raises(IntegrityError, match=r"adapter_model\.safetensors is not the file"):
        LlamaScorer(str(base), adapter=str(out), device="cpu").load()


def test_a_pickled_peft_folder_is_converted(tmp_path, base, recipe, trained):
    folder = tmp_path / "checkpoint-5748"
    trained.save_pretrained(folder)
    weights = load_file(folder / "adapter_model.safetensors")
    (folder / "adapter_model.safetensors").unlink()
    torch.save(weights, folder / "adapter_model.bin")
    import_checkpoint(folder, tmp_path / "out", base, recipe, LoraShape(), golden=False)
    converted = load_file(tmp_path / "out" / "adapter_model.safetensors")
    assert converted.keys() == weights.keys()
    assert all(torch.equal(converted[name], weights[name]) for name in weights)


def test_code_in_a_pickle_is_not_run(tmp_path, base, recipe):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    with open(tmp_path / "weights.pth", "wb") as file:
        pickle.dump({"score.weight": Evil()}, file, protocol=2)
    with pytest.raises(IntegrityError, match=r"weights\.pth cannot be read as tensors only"):
        import_checkpoint(tmp_path / "weights.pth", tmp_path / "out", base, recipe, LoraShape(ALPHA))
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda weights: weights.pop(next(k for k in weights if "lora_A" in k)), "1 missing: .*lora_A"),
        (lambda weights: weights.update({"extra.weight": torch.zeros(1)}), "1 unexpected: .*extra.weight"),
        (
            lambda weights: weights.update({next(k for k in weights if "lora_B" in k): torch.zeros(3, RANK)}),
            r"1 of another shape: .*lora_B.*got \(3, 16\)",
        ),
        (
            lambda weights: weights[next(k for k in weights if "score" in k)].fill_(float("nan")),
            "1 not finite: .*score",
        ),
        (lambda weights: weights.pop(next(k for k in weights if "score" in k)), "holds no classification head"),
    ],
)
def test_every_key_is_accounted_for(tmp_path, base, recipe, trained, damage, message):
    weights = {name: tensor.clone() for name, tensor in trainable(trained).items()}
    damage(weights)
    torch.save(weights, tmp_path / "weights.pth")
    with pytest.raises(ModelError, match=message):
        import_checkpoint(tmp_path / "weights.pth", tmp_path / "out", base, recipe, LoraShape(ALPHA))
    assert not (tmp_path / "out").exists()


def test_what_a_state_dict_does_not_say_must_be_given(tmp_path, base, recipe, trained):
    torch.save(trainable(trained), tmp_path / "weights.pth")
    with pytest.raises(ConfigError, match="does not say its lora_alpha; give the value it was trained with"):
        import_checkpoint(tmp_path / "weights.pth", tmp_path / "out", base, recipe, LoraShape())
    with pytest.raises(ConfigError, match="LoRA rank 16, not 8"):
        import_checkpoint(tmp_path / "weights.pth", tmp_path / "out", base, recipe, LoraShape(ALPHA, rank=8))


def test_a_folder_with_files_is_not_overwritten(tmp_path, base, recipe, trained):
    torch.save(trainable(trained), tmp_path / "weights.pth")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="not empty"):
        import_checkpoint(tmp_path / "weights.pth", tmp_path / "out", base, recipe, LoraShape(ALPHA))


def test_names_of_all_habits_become_one():
    tensor = torch.zeros(1)
    lora = "base_model.model.model.layers.0.self_attn.v_proj.lora_A.weight"
    for name in (
        "base_model.model.model.layers.0.self_attn.v_proj.lora_A.default.weight",
        "module.base_model.model.model.layers.0.self_attn.v_proj.lora_A.default.weight",
        "model.layers.0.self_attn.v_proj.lora_A.weight",
        "layers.0.self_attn.v_proj.lora_A.default.weight",
    ):
        assert list(normalise_keys({name: tensor})) == [lora]
    head = "base_model.model.score.modules_to_save.default.weight"
    assert list(normalise_keys({head: tensor, "base_model.model.score.original_module.weight": tensor})) == [
        "base_model.model.score.weight"
    ]


def _cut(content):
    return content[: len(content) // 2]


def _pickle_of_a_model(path):
    """Write what `torch.save(model)` writes, which names classes."""
    torch.save(torch.nn.Linear(2, 2), path)


def _script(path):
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)), path)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize(
    ("write", "words"),
    [
        (lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4\nsize 5\n"), "Git-LFS"),
        (lambda path: path.write_text("<!DOCTYPE html><html>404</html>"), "it is a web page"),
        (lambda path: path.write_bytes(b""), "it is empty"),
        (lambda path: path.write_bytes(np.random.default_rng(1).bytes(5000)), "it is nothing that torch.save"),
        (lambda path: path.write_bytes(b"\x80\x02" + bytes(range(256))), "begins as a pickle, but is damaged"),
        (lambda path: path.write_bytes(b"\x80\x02]q\x00(K\x01K\x02h\x07."), "begins as a pickle, but is damaged"),
        (lambda path: path.write_bytes(b"PK\x03\x04" + b"\x00" * 500), "begins as a zip archive"),
        (lambda path: path.write_bytes(b"\x00" * 5000), "only zero bytes"),
        (lambda path: path.write_text('{"lora_A": 1}'), "it is JSON"),
        (_pickle_of_a_model, "it asks for torch.nn.modules.linear.Linear, which is code and is not run"),
        (_script, "TorchScript archive, which is code"),
    ],
)
def test_what_is_no_state_dict_is_said_to_be_what_it_is(tmp_path, base, recipe, write, words):
    write(tmp_path / "weights.pth")
    with pytest.raises(IntegrityError, match=rf"weights\.pth cannot be read as tensors only: .*{words}") as caught:
        import_checkpoint(tmp_path / "weights.pth", tmp_path / "out", base, recipe, LoraShape(ALPHA))
    assert "weights_only" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_state_dict_cut_short_is_damaged(tmp_path, base, recipe, trained):
    torch.save(trainable(trained), tmp_path / "whole.pth")
    (tmp_path / "weights.pth").write_bytes(_cut((tmp_path / "whole.pth").read_bytes()))
    with pytest.raises(IntegrityError, match=r"begins as a zip archive.* damaged, cut short"):
        import_checkpoint(tmp_path / "weights.pth", tmp_path / "out", base, recipe, LoraShape(ALPHA))


def test_wrong_arguments_are_configuration_errors_and_nothing_is_written(tmp_path, base, recipe, trained):
    torch.save(trainable(trained), tmp_path / "weights.pth")
    (tmp_path / "file").touch()
    source, out = tmp_path / "weights.pth", tmp_path / "out"
    with pytest.raises(ConfigError, match="there is no checkpoint"):
        import_checkpoint(tmp_path / "absent.pth", out, base, recipe, LoraShape(ALPHA))
    with pytest.raises(InputError, match="file is a file, expected a folder; give a new folder"):
        import_checkpoint(source, tmp_path / "file", base, recipe, LoraShape(ALPHA))
    with pytest.raises(DeviceError, match="'cuda:99' is not on this machine"):
        import_checkpoint(source, out, base, recipe, LoraShape(ALPHA), device="cuda:99")
    for alpha in (float("nan"), float("inf"), 0, -1):
        with pytest.raises(ConfigError, match="lora_alpha must be a number above 0"):
            import_checkpoint(source, out, base, recipe, LoraShape(alpha))
    assert not out.exists()
