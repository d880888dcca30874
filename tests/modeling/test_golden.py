import json
import re
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from lmsys_ensemble.errors import ConfigError, GoldenError
from lmsys_ensemble.modeling import forward as forward_module
from lmsys_ensemble.modeling.assembly import assemble
from lmsys_ensemble.modeling.golden import TOLERANCES, check_golden, golden_battles, read_golden, write_golden
from lmsys_ensemble.modeling.inspection import golden_faults
from lmsys_ensemble.modeling.settings import ComputeSettings
from lmsys_ensemble.probabilities import softmax
from tests.tiny import encode, make_recipe


@pytest.fixture
def folder(checkpoints, tmp_path):
    """Return a copy of an adapter, with golden rows and without a recipe that would vouch for its files."""
    folder = shutil.copytree(checkpoints.adapter("llama"), tmp_path / "adapter")
    forward = assemble(checkpoints.base("llama"), make_recipe(), ComputeSettings(device="cpu"), adapter=folder)
    encoded = encode(golden_battles())
    write_golden(folder, encoded, forward.score(encoded, 1000), "float32")
    return folder


@pytest.fixture
def build(checkpoints, folder):
    def build(base=None, **options):
        base = base or checkpoints.base("llama")
        return assemble(
            base, make_recipe(), ComputeSettings(device="cpu", **options), adapter=folder, golden_folder=folder
        )

    return build


def exchange(folder, part):
    """Replace tensors by others of the same shape and size, which load without a word."""
    path = folder / "adapter_model.safetensors"
    weights = load_file(path)
    torch.manual_seed(99)
    for name, tensor in weights.items():
        if part in name:
            tensor.copy_(torch.randn_like(tensor) * tensor.std())
    save_file(weights, path, metadata={"format": "pt"})


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_the_model_that_was_saved_reproduces_its_golden_rows(build, dtype):
    build(dtype=dtype)


def test_no_kernel_is_compiled_for_golden_rows(build, monkeypatch):
    def refuse(packed, wanted):
        raise AssertionError("attention that compiles a kernel for every size")

    monkeypatch.setattr(forward_module, "attention_kind", lambda device: refuse)
    forward = build()
    assert forward.attention is refuse, "all other rows go through what suits the device"


@pytest.mark.parametrize("part", ["score", "lora_A", "lora_B"])
def test_an_exchanged_head_or_adapter_is_found_out(folder, build, part):
    exchange(folder, part)
    with pytest.raises(GoldenError, match=r"adapter does not give the probabilities it gave.*differ by 0\.\d+"):
        build()


def test_another_base_of_the_same_shape_is_found_out(checkpoints, build, tmp_path):
    base = shutil.copytree(checkpoints.base("llama"), tmp_path / "base")
    weights = load_file(base / "model.safetensors")
    weights["model.layers.1.mlp.down_proj.weight"] *= -1
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(GoldenError, match="Base model, head or adapter are not those it was trained with"):
        build(base)


def test_the_tolerance_is_that_of_the_coarser_format_and_nan_never_passes(folder):
    golden = read_golden(folder)
    logits = np.array([row.logits for row in golden.rows], dtype=np.float32)
    check_golden(golden, logits, "float32", folder)
    for number_format, tolerance in TOLERANCES.items():
        for step, passes in ((0.9, True), (1.1, False)):
            moved = softmax(logits)
            most, least = moved[0].argmax(), moved[0].argmin()
            moved[0, most] -= step * tolerance
            moved[0, least] += step * tolerance
            if passes:
                found = check_golden(golden, np.log(moved), number_format, folder)
                assert found == pytest.approx(step * tolerance, rel=0.01)
            else:
                with pytest.raises(GoldenError, match=number_format):
                    check_golden(golden, np.log(moved), number_format, folder)
    logits[1, 1] = np.nan
    with pytest.raises(GoldenError):
        check_golden(golden, logits, "nf4", folder)


def test_an_edited_file_of_golden_rows_is_refused(folder):
    path = folder / "golden.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "tolerance": 1.0}))
    with pytest.raises(ConfigError, match=r"golden\.json: unknown key 'tolerance'"):
        read_golden(folder)


def test_golden_battles_hold_what_goes_wrong_elsewhere():
    """Two turns, a response without words, text beyond ASCII, and both orders of length."""
    battles = golden_battles()
    texts = ["".join((*b.prompt, *b.response_a, *b.response_b)) for b in battles]
    lengths = [(len("".join(b.response_a)), len("".join(b.response_b))) for b in battles]
    assert any(len(b.prompt) > 1 for b in battles)
    assert any(0 in pair for pair in lengths)
    assert any(not text.isascii() for text in texts)
    assert any(a > b for a, b in lengths)
    assert any(a < b for a, b in lengths)


ROW = {"ids": [1, 5, 2], "fields": [0, 1, 0], "logits": [0.1, 0.2, 0.3]}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"dtype": "evil"}, "dtype: Input should be 'float32'"),
        ({"rows": []}, "rows: List should have at least 1 item"),
        ({"rows": [{**ROW, "ids": [-5, 5, 2]}]}, r"rows\.0\.ids\.0: .*greater than or equal to 0"),
        ({"rows": [{**ROW, "ids": [1, 2**40, 2]}]}, r"rows\.0\.ids\.1: .*less than 2147483648"),
        ({"rows": [{**ROW, "ids": [1, 400, 2]}]}, "holds the token id 400, the base model has 400 tokens"),
        ({"rows": [{"ids": [], "fields": [], "logits": [0, 0, 0]}]}, r"rows\.0\.ids: List should have at least 1"),
        ({"rows": [{**ROW, "fields": [0, 300, 0]}]}, r"rows\.0\.fields\.1: .*less than 128"),
        ({"rows": [{**ROW, "fields": [0]}]}, r"rows\.0: .*3 ids have 1 fields"),
        ({"rows": [ROW, {**ROW, "logits": [0.1, 0.2]}]}, "holds rows of 2 logits, expected 3"),
        ({"rows": [{**ROW, "logits": [0.1, float("nan"), 0.3]}]}, r"rows\.0\.logits\.1: .*finite"),
    ],
)
def test_golden_rows_that_cannot_be_are_named_before_the_model_is_run_on_them(
    build, folder, checkpoints, changes, words
):
    (folder / "golden.json").write_text(json.dumps({"dtype": "float32", "rows": [ROW], **changes}))
    with pytest.raises(ConfigError, match=rf"golden\.json.*{words}"):
        build()
    (fault,) = golden_faults(folder, checkpoints.base("llama"), make_recipe())
    assert re.search(words, fault)
