"""Rounding that looks at what layers are given."""

import numpy as np
import pytest
import torch

from lmsys_ensemble import ClassifierScorer
from lmsys_ensemble.errors import ConfigError, InputError, ModelError
from lmsys_ensemble.merging import calibration
from lmsys_ensemble.merging.calibration import read_calibration, round_compensated
from lmsys_ensemble.merging.compression import Scheme, fit_scales
from lmsys_ensemble.merging.export import export_merged
from lmsys_ensemble.modeling.recipe import read_recipe
from lmsys_ensemble.modeling.tokenization import make_encoder
from lmsys_ensemble.probabilities import softmax
from tests.merging.test_compression import NOT_INSTALLED, rounded
from tests.merging.test_export import finish, make_trained
from tests.tiny import make_battles, make_recipe, save_adapter, save_base
from tests.training.synthetic import make_preferences


def steps(weight, scales):
    return weight.reshape(*scales.shape, -1) / scales[:, :, None]


@pytest.mark.parametrize("scheme", [Scheme(4, 32), Scheme(4, 64), Scheme(8, None)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_outputs_change_less_than_by_rounding_to_the_nearest_value(scheme, dtype):
    torch.manual_seed(0)
    weight, inputs = torch.randn(24, 192), torch.randn(600, 24) @ torch.randn(24, 192) + 0.1 * torch.randn(600, 192)
    moments = inputs.T @ inputs
    found, scales = round_compensated(weight, moments, scheme, dtype)
    assert torch.equal(scales, fit_scales(weight, scheme, moments.diagonal()).to(dtype).float())
    whole = steps(found, scales)
    torch.testing.assert_close(whole, whole.round(), rtol=0, atol=1e-3)
    half = 2 ** (scheme.bits - 1)
    assert whole.min() > -half - 0.01
    assert whole.max() < half - 0.99
    nearest = rounded(weight, fit_scales(weight, scheme), scheme.bits)
    error, plain = ((inputs @ (each - weight).T).square().mean() for each in (found, nearest))
    assert error < 0.3 * plain


@pytest.mark.parametrize("moments", [torch.eye(96), torch.zeros(96, 96)], ids=["unrelated", "never seen"])
def test_inputs_that_say_nothing_of_each_other_leave_the_nearest_values(moments):
    torch.manual_seed(0)
    weight = torch.randn(5, 96)
    found, scales = round_compensated(weight, 7 * moments, Scheme(4, 32), torch.float32)
    torch.testing.assert_close(found, rounded(weight, scales, 4), rtol=0, atol=1e-6)


def test_moments_of_one_row_or_with_one_huge_input_have_an_answer():
    torch.manual_seed(0)
    weight, row = torch.randn(5, 64), torch.randn(64)
    for factor in (1.0, torch.where(torch.arange(64) == 3, 1e6, 1.0)):
        found, _ = round_compensated(weight, torch.outer(row * factor, row * factor), Scheme(4, 32), torch.float32)
        assert torch.isfinite(found).all()


def test_scales_follow_the_columns_that_count():
    torch.manual_seed(0)
    weight, counts = torch.randn(6, 64), torch.where(torch.arange(64) % 8 == 0, 100.0, 1.0)
    errors = [
        (rounded(weight, fit_scales(weight, Scheme(4, 32), given), 4) - weight).square() @ counts
        for given in (None, counts)
    ]
    assert (errors[1] <= errors[0]).all()
    assert errors[1].sum() < 0.9 * errors[0].sum()


def test_inputs_that_are_not_finite_are_told():
    layer = torch.nn.Linear(4, 2)
    with pytest.raises(ModelError, match="not finite on the calibration rows; give --dtype float32"):
        calibration._moments(
            lambda inputs_embeds, use_cache: layer(inputs_embeds), [torch.full((1, 3, 4), 1e30)], [layer]
        )


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """Return a file of battles without labels."""
    path = tmp_path_factory.mktemp("rows") / "rows.csv"
    make_preferences(40, 1)[["id", "prompt", "response_a", "response_b"]].to_csv(path, index=False)
    return path


def test_a_model_rounded_on_rows_is_closer_to_the_adapters_than_one_rounded_to_the_nearest(tmp_path, rows, monkeypatch):
    pytest.importorskip("compressed_tensors", reason=NOT_INSTALLED)
    monkeypatch.setattr(calibration, "MOST_ROWS", 20)
    base = save_base("gemma3", tmp_path / "base", initializer_range=0.05)
    lora = {"target_modules": ["q_proj", "down_proj"], "layers_to_transform": [1, 2]}
    adapter = make_trained(base, tmp_path / "adapter", pooling="response_spans", layers=3, spread=0.05, **lora)
    battles, told = make_battles(12), []
    with ClassifierScorer(str(base), adapter=str(adapter), device="cpu") as scorer:
        expected = softmax(scorer.score(battles))
    apart = {}
    for name, given in {"nearest": (), "calibrated": [rows]}.items():
        folder = tmp_path / name
        export_merged(adapter, folder, quantization="w4a16", calibration=given, device="cpu", say=told.append)
        with ClassifierScorer(str(folder), device="cpu") as scorer:
            apart[name] = np.abs(softmax(scorer.score(battles)) - expected).mean()
    assert 0 < apart["calibrated"] < 0.8 * apart["nearest"]
    assert "rounded layer 3 of 3 on 20 calibration rows" in told
    said = read_recipe(tmp_path / "calibrated").training["export"]["calibration"]
    assert said["rows"] == 20
    assert f"GPTQ on 20 calibration rows of {said['tokens']:,} tokens" in (folder / "README.md").read_text()
    assert "calibration" not in read_recipe(tmp_path / "nearest").training["export"]


def test_calibration_that_cannot_be_is_refused_before_anything_is_written(checkpoints, tmp_path, rows):
    base = checkpoints.base("modernbert")
    adapter = finish(base, save_adapter(base, tmp_path / "adapter", seed=3))
    with pytest.raises(ConfigError, match="calibration rows are for quantization 'int8' or 'w4a16', got 'none'"):
        export_merged(adapter, tmp_path / "out", calibration=[rows], device="cpu")
    pytest.importorskip("compressed_tensors", reason=NOT_INSTALLED)
    with pytest.raises(ConfigError, match="ModernBertForSequenceClassification is none; leave --calibration out"):
        export_merged(adapter, tmp_path / "out", quantization="int8", calibration=[rows], device="cpu")
    assert not (tmp_path / "out").exists()
    empty = tmp_path / "empty.csv"
    empty.write_text(rows.read_text().splitlines()[0] + "\n")
    with pytest.raises(InputError):
        read_calibration([empty], "int8", make_encoder(checkpoints.base("llama"), make_recipe()))
