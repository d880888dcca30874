import pytest

from lmsys_ensemble.errors import ModelError
from lmsys_ensemble.modeling import patterns
from lmsys_ensemble.modeling.patterns import check_patterns

NAMES = [f"model.layers.{layer}.self_attn.{name}_proj" for layer in range(80) for name in "qkvo"]

UNSLOTH = (
    r"(?:.*?(?:language|text).*?(?:self_attn|attention|attn|mlp|feed_forward|ffn|dense).*?(?:q_proj|k_proj|v_proj).*?)"
    r"|(?:\bmodel\.layers\.[\d]{1,}\.(?:self_attn|mlp)\.(?:(?:q_proj|k_proj|v_proj|o_proj)))"
)


@pytest.mark.parametrize(
    ("way", "pattern"),
    [("fullmatch", UNSLOTH), ("fullmatch", r".*\.(q|v)_proj"), ("match", r"(.*\.)?(model\.layers\.\d+\.q_proj)$")],
)
def test_expressions_of_real_adapters_pass(way, pattern):
    check_patterns([(way, pattern), ("match", "plain_name")], NAMES, "adapter_config.json")


@pytest.mark.parametrize("pattern", [r"(.*[a-z._])*!", r"(?:model|(?:[a-z.]+)+)*\d\d\d!", r"(\w+|\.)*#"])
@pytest.mark.parametrize("way", ["match", "fullmatch"])
def test_an_expression_that_takes_for_ever_is_stopped_and_named(pattern, way, monkeypatch):
    monkeypatch.setattr(patterns, "TIME_LIMIT_S", 1.5)
    with pytest.raises(
        ModelError, match=r"mine: the regular expression .* was stopped after 1\.5 s; it may take for ever"
    ):
        check_patterns([(way, pattern)], NAMES, "mine")


@pytest.mark.parametrize("pattern", ["(a+", "*", "a{2,1}", "(?P<n>a+)(?P<n>b)", "a{99999999999}"])
def test_what_is_no_regular_expression_is_named(pattern):
    with pytest.raises(ModelError, match=r"mine: .* is no regular expression: "):
        check_patterns([("match", pattern)], NAMES, "mine")


def test_plain_names_need_no_trial(monkeypatch):
    monkeypatch.setattr(patterns.subprocess, "run", lambda *_, **__: pytest.fail("tried"))
    check_patterns([("match", "q_proj"), ("fullmatch", "model.layers.0.self_attn.q_proj")], NAMES, "mine")
