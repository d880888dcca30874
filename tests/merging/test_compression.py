"""Rounding of weights: scales by themselves, and the package's format where it is installed."""

import pytest
import torch

from lmsys_ensemble.errors import ConfigError, MissingDependencyError
from lmsys_ensemble.merging import compression
from lmsys_ensemble.merging.compression import Scheme, check_compression, choose_scheme, fit_scales

NOT_INSTALLED = "compressed-tensors is not installed (pip install 'lmsys-ensemble[quantized]')"


def rounded(weight, scales, bits):
    groups = weight.reshape(len(weight), scales.shape[1], -1)
    steps = (groups / scales[:, :, None]).round().clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return (steps * scales[:, :, None]).reshape(weight.shape)


@pytest.mark.parametrize("scheme", [Scheme(8, None), Scheme(4, 32), Scheme(4, 64)])
def test_no_share_of_the_largest_weights_makes_scales_that_round_with_less_error(scheme):
    torch.manual_seed(0)
    weight = torch.randn(6, 128)
    scales = fit_scales(weight, scheme)
    groups = weight.reshape(6, -1, scheme.group_size or 128)
    assert scales.shape == groups.shape[:2]
    error = (rounded(weight, scales, scheme.bits) - weight).reshape(groups.shape).square().sum(2)
    plain = groups.abs().amax(2) / (2 ** (scheme.bits - 1) - 0.5)
    for share in torch.linspace(0.5, 1.1, 61):
        other = (rounded(weight, share * plain, scheme.bits) - weight).reshape(groups.shape).square().sum(2)
        assert error.sum() <= {8: 1.15, 4: 1.01}[scheme.bits] * other.sum()
    assert error.sqrt().sum() < {8: 0.01, 4: 0.12}[scheme.bits] * groups.norm(dim=2).sum()


def test_weights_that_are_all_zero_stay_zero():
    weight = torch.zeros(2, 64)
    assert not rounded(weight, fit_scales(weight, Scheme(4, 32)), 4).any()


@pytest.mark.parametrize(
    ("widths", "size"), [([256, 512], 128), ([576, 1536], 64), ([640, 96], 32)], ids=["128", "64", "32"]
)
def test_the_group_is_the_largest_that_divides_all_rows(widths, size):
    assert choose_scheme("w4a16", widths) == Scheme(4, size)
    assert choose_scheme("int8", widths) == Scheme(8, None)
    assert choose_scheme("none", widths) is None


def test_rows_that_no_group_divides_are_refused():
    with pytest.raises(ConfigError, match=r"do not divide widths of \[40, 64\]; use quantization='int8'"):
        choose_scheme("w4a16", [64, 40, 64])


def test_what_cannot_be_done_is_told_at_once(monkeypatch):
    with pytest.raises(ConfigError, match="unknown quantization 'int4'; known: none, int8, w4a16"):
        check_compression("int4")
    monkeypatch.setattr(compression, "find_spec", lambda name: None)
    check_compression("none")
    with pytest.raises(MissingDependencyError, match=r"pip install 'lmsys-ensemble\[quantized\]'"):
        check_compression("int8")


@pytest.mark.parametrize("scheme", [Scheme(8, None), Scheme(4, 32)])
def test_the_package_unpacks_what_was_rounded(scheme):
    pytest.importorskip("compressed_tensors", reason=NOT_INSTALLED)
    from compressed_tensors.compressors.base import BaseCompressor

    torch.manual_seed(0)
    weight = torch.randn(8, 96)
    stored = dict(compression.compress("layer", weight, scheme, torch.float32))
    assert set(stored) == {"layer.weight_packed", "layer.weight_scale", "layer.weight_shape"}
    parts = {name.removeprefix("layer."): tensor for name, tensor in stored.items()}
    package = BaseCompressor.get_value_from_registry(compression.FORMAT)
    unpacked = package.decompress(parts, compression._package_scheme(scheme))["weight"]
    torch.testing.assert_close(unpacked, rounded(weight, fit_scales(weight, scheme), scheme.bits), rtol=0, atol=1e-6)
