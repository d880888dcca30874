import pytest

from lmsys_ensemble.errors import ConfigError, ContractError
from lmsys_ensemble.testing.check import check_scorer
from lmsys_ensemble.testing.fake import FakeScorer
from lmsys_ensemble.testing.identity import check_settings


class Blind(FakeScorer):
    """Has a fingerprint that leaves a setting out, which `kind` may say is neutral."""

    def __init__(self, *, prompt="Which is better?", temperature=0.5, strict=True, limit=None, name="blind"):
        super().__init__(name=name)
        self.prompt, self.temperature, self.strict, self.limit = prompt, temperature, strict, limit

    left_out = ""

    def fingerprint(self):
        return {key: value for key, value in super().fingerprint().items() if key != self.left_out}


@pytest.mark.parametrize("setting", ["prompt", "temperature", "strict"])
def test_a_setting_that_the_fingerprint_leaves_out_must_be_neutral(setting):
    kind = type("Blind", (Blind,), {"left_out": setting})
    with pytest.raises(ContractError, match=rf"fingerprint\(\) is the same with {setting}=.* neutral_settings"):
        check_scorer(kind())
    check_scorer(type("Blind", (kind,), {"neutral_settings": (setting,)})())


def test_a_value_that_the_scorer_refuses_is_passed_over():
    class Strict(Blind):
        left_out = "prompt"

        def fingerprint(self):
            if self.prompt != "Which is better?":
                raise ConfigError("there is no such prompt")
            return super().fingerprint()

    check_scorer(Strict())


def test_neutral_settings_and_paths_must_be_settings():
    for attribute in ("neutral_settings", "path_settings"):
        kind = type("Mistyped", (FakeScorer,), {attribute: ("batchsize",)})
        with pytest.raises(ContractError, match="name batchsize, which the constructor does not take; it takes seed"):
            check_settings(kind())
