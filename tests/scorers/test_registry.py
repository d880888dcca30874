import re
import sys

import pytest

from lmsys_ensemble.errors import ConfigError, MissingDependencyError, RegistryError
from lmsys_ensemble.scorers.classifier import ClassifierScorer
from lmsys_ensemble.scorers.gemma import GemmaScorer
from lmsys_ensemble.scorers.llama import LlamaScorer
from lmsys_ensemble.scorers.registry import GROUP, build_scorer, get_scorer_class, scorer_names, scorer_type
from lmsys_ensemble.scorers.saved import SavedScorer
from lmsys_ensemble.testing.fake import FakeScorer

BUILT_IN = {
    "classifier": ClassifierScorer,
    "fake": FakeScorer,
    "gemma": GemmaScorer,
    "llama": LlamaScorer,
    "saved": SavedScorer,
}


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Return a function that installs a distribution with entry points, as pip would leave it."""

    def make(distribution, module_text="", **entries):
        site = tmp_path / distribution
        metadata = site / f"{distribution}-1.0.dist-info"
        metadata.mkdir(parents=True)
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
        lines = [f"{name} = {target}" for name, target in entries.items()]
        (metadata / "entry_points.txt").write_text(f"[{GROUP}]\n" + "\n".join(lines) + "\n")
        (site / f"{distribution}.py").write_text(module_text)
        monkeypatch.syspath_prepend(site)
        monkeypatch.delitem(sys.modules, distribution, raising=False)

    return make


OTHERS = """
from lmsys_ensemble.testing.fake import FakeScorer

class Mine(FakeScorer):
    path_settings = ("vocabulary",)

    def __init__(self, vocabulary, *, name="mine"):
        super().__init__(name=name)
        self.vocabulary = vocabulary

def no_class():
    pass
"""


def test_the_built_in_scorers_are_registered_like_any_other():
    assert set(BUILT_IN) <= set(scorer_names())
    for name, kind in BUILT_IN.items():
        assert get_scorer_class(name) is kind
    assert scorer_type(FakeScorer()) == "fake"
    assert scorer_type(SavedScorer("a.csv")) == "saved"


def test_an_installed_package_adds_a_scorer(install, tmp_path):
    install("others", OTHERS, mine="others:Mine")
    (tmp_path / "words.txt").touch()
    assert "mine" in scorer_names()
    assert "others" not in sys.modules  # listing imports nothing
    scorer = build_scorer({"type": "mine", "vocabulary": "words.txt"}, tmp_path)
    assert type(scorer) is get_scorer_class("mine")
    assert scorer.vocabulary == str(tmp_path / "words.txt")
    assert scorer_type(scorer) == "mine"


def test_two_packages_that_register_one_name_are_named(install):
    install("others", OTHERS, fake="others:Mine")
    expected = "fake = lmsys_ensemble.testing.fake:FakeScorer; fake = others:Mine. Uninstall one of them"
    for look in (scorer_names, lambda: get_scorer_class("fake"), lambda: get_scorer_class("saved")):
        with pytest.raises(RegistryError, match=re.escape(expected)):
            look()


def test_a_package_that_is_installed_twice_is_one_package(install):
    install("others", OTHERS, mine="others:Mine")
    install("others_again", OTHERS, mine="others:Mine")
    assert scorer_names().count("mine") == 1


@pytest.mark.parametrize(
    ("target", "error", "words"),
    [
        ("others:no_class", RegistryError, r"'odd' \(others:no_class\) is no subclass of Scorer"),
        ("json:JSONDecoder", RegistryError, "is no subclass of Scorer"),
        ("not_installed_anywhere:Scorer", MissingDependencyError, "'odd' needs a package that is not installed"),
    ],
)
def test_an_entry_point_that_leads_to_no_scorer_is_refused_when_it_is_used(install, target, error, words):
    install("others", OTHERS, odd=target)
    assert "odd" in scorer_names()
    with pytest.raises(error, match=words):
        get_scorer_class("odd")


def test_an_entry_point_whose_class_is_not_there_is_refused(install):
    install("others", OTHERS, odd="others:Absent")
    with pytest.raises(RegistryError, match=r"others:Absent"):
        get_scorer_class("odd")


def test_an_unknown_name_gets_a_suggestion():
    with pytest.raises(RegistryError, match=r"no scorer type 'gema' \(did you mean 'gemma'\?\)"):
        get_scorer_class("gema")


def test_settings_become_arguments_and_the_mapping_is_not_changed(tmp_path):
    settings = {"type": "fake", "seed": 4, "scale": 0.5}
    scorer = build_scorer(settings, tmp_path)
    assert (scorer.seed, scorer.scale) == (4, 0.5)
    assert settings == {"type": "fake", "seed": 4, "scale": 0.5}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"seed": 4}, "needs a type: one of .*fake"),
        ({"type": 3}, "needs a type"),
        ({"type": "fake", "sede": 4}, r"no setting 'sede' \(did you mean 'seed'\?\)"),
        ({"type": "saved"}, "'saved' needs the setting 'path'"),
        ({"type": "llama", "model": 5}, "'llama': setting 'model' must be str, got 5"),
        ({"type": "llama", "model": "m", "adapter": ["a"]}, r"setting 'adapter' must be str \| None, got \['a'\]"),
        ({"type": "llama", "model": "m", "max_tokens": "many"}, r"'max_tokens' must be int \| None, got 'many'"),
        ({"type": "llama", "model": "m", "device": 0}, "setting 'device' must be str, got 0"),
        ({"type": "llama", "model": "m", "bos": "no"}, r"setting 'bos' must be bool \| None, got 'no'"),
        ({"type": "fake", "scale": "1.0"}, "setting 'scale' must be float, got '1.0'"),
        ({"type": "saved", "path": "a.csv", "columns": "winner"}, "setting 'columns' must be .*Sequence"),
    ],
)
def test_wrong_settings_are_refused(settings, words, tmp_path):
    with pytest.raises(ConfigError, match=words):
        build_scorer(settings, tmp_path)


def test_settings_of_the_right_kind_pass(tmp_path):
    assert build_scorer({"type": "fake", "scale": 2, "seed": 3}, tmp_path).scale == 2
    assert build_scorer({"type": "saved", "path": "a.csv", "columns": ["a", "b", "c"]}, tmp_path).columns == [
        "a",
        "b",
        "c",
    ]
    assert build_scorer({"type": "llama", "model": "m", "merge": None}, tmp_path).merge is None


def test_annotations_that_nobody_can_check_are_left_alone(install, tmp_path):
    text = OTHERS.replace("vocabulary, *", "vocabulary: 'Unknown', *")
    install("others", text, mine="others:Mine")
    assert build_scorer({"type": "mine", "vocabulary": 5}, tmp_path).vocabulary == 5


def test_a_scorer_that_is_not_registered_has_no_name():
    class Mine(FakeScorer):
        pass

    with pytest.raises(RegistryError, match=f"add an entry point in the group '{GROUP}'"):
        scorer_type(Mine())
