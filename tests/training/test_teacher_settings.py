import pytest

from lmsys_ensemble.errors import ConfigError
from lmsys_ensemble.settings import parse_settings
from lmsys_ensemble.training.teacher_settings import DistillationSettings, TermSettings

TEACHERS = [{"file": "a.csv"}]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"teachers": TEACHERS, "terms": {"kll": 1}}, r"unknown key 'terms\.kll' \(did you mean 'kl'\?\)"),
        ({"teachers": TEACHERS, "terms": {"hard": 0}}, "all terms weigh 0; give one of hard, soft, kl and cosine"),
        ({"teachers": TEACHERS, "terms": {"kl": -1}}, r"terms\.kl: .*greater than or equal to 0"),
        ({"teachers": []}, "teachers: .*at least 1"),
        ({"teachers": [{"file": "a.csv", "weight": 0}]}, "all teachers weigh 0"),
        ({"teachers": TEACHERS * 2}, r"a\.csv is named more than once; raise its weight"),
        ({"teachers": TEACHERS, "temperature": 0}, "temperature: .*greater than 0"),
        ({"teachers": [{"file": "a.csv", "values": "scores"}]}, "'probabilities' or 'logits'"),
    ],
)
def test_a_wrong_setting_is_named(values, message):
    with pytest.raises(ConfigError, match=message):
        parse_settings(DistillationSettings, values, "train.yaml")


def test_a_term_that_is_not_named_does_not_count_and_without_any_they_are_those_of_the_winners():
    asked = parse_settings(DistillationSettings, {"teachers": TEACHERS, "terms": {"kl": 3}}, "train.yaml")
    assert asked.terms == TermSettings(hard=0, soft=0, kl=3, cosine=0)
    default = parse_settings(DistillationSettings, {"teachers": TEACHERS}, "train.yaml")
    assert (default.terms.hard, default.terms.soft, default.terms.kl, default.terms.cosine) == (1, 0, 2, 2)
    assert default.terms.total == 5
    assert (default.temperature, default.cosine_of, default.mean) == (1, "probabilities", "probabilities")
