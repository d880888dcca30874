"""Files of predictions and whose they are, as the command line gives them."""

import re

import numpy as np
import pytest

from lmsys_ensemble import Blender
from lmsys_ensemble.commands.members import MemberFiles, match_blender, match_swapped, parse_member_files
from lmsys_ensemble.errors import ConfigError, InputError
from tests.predicted import predictions


def test_a_name_is_what_stands_before_the_equals_sign_or_the_files_own():
    files = parse_member_files(["gemma=run1/oof.csv", "run2/llama.parquet", "third=a=b.csv"])
    assert files.names == ("gemma", "llama", "third")
    assert files.paths == ("run1/oof.csv", "run2/llama.parquet", "a=b.csv")
    assert files.named == (True, False, True)


def test_an_argument_that_is_a_file_as_a_whole_is_a_path(tmp_path):
    path = tmp_path / "lr=0.1.csv"
    assert parse_member_files([str(path)]).named == (True,)
    path.touch()
    assert parse_member_files([str(path)]) == MemberFiles(("lr=0.1",), (str(path),), (False,))


@pytest.mark.parametrize("argument", ["=a.csv", " =a.csv", "a="])
def test_half_a_pair_is_refused_and_the_option_named(argument):
    with pytest.raises(InputError, match=re.escape(f"--swapped: {argument!r} must be name=file or a file")):
        parse_member_files([argument], option="--swapped")


def test_a_name_that_occurs_twice_is_refused():
    with pytest.raises(InputError, match="--probabilities: members need different names; 'a' occurs more than once"):
        parse_member_files(["a=x.csv", "a.csv"])


@pytest.fixture(scope="module")
def blender():
    """Return a blender that was fitted on members of two names."""
    members, labels = predictions(60)
    return Blender("linear").fit(dict(zip(("gemma", "llama"), members.values(), strict=True)), labels)


def test_a_blenders_weights_come_in_the_order_of_the_files(blender):
    turned = match_blender(blender, parse_member_files(["llama=x.csv", "gemma=y.csv"]))
    assert turned.member_names_ == ("llama", "gemma")
    assert np.array_equal(turned.weights_, blender.weights_[::-1])


def test_files_of_other_names_get_the_words_to_type(blender):
    said = "Say which file is whose, --probabilities gemma=x.csv llama='my y.csv' if they come in the order of fitting"
    with pytest.raises(ConfigError, match=re.escape(said.replace("llama='my y.csv'", "'llama=my y.csv'"))):
        match_blender(blender, parse_member_files(["x.csv", "my y.csv"]))
    with pytest.raises(ConfigError, match=r"--probabilities gemma=FILE llama=FILE$"):
        match_blender(blender, parse_member_files(["x.csv"]))


def test_a_blender_without_names_is_taken_as_it_is():
    blender = Blender(weights=[1, 3])
    assert match_blender(blender, parse_member_files(["x.csv", "y.csv"])) is blender


def test_swapped_predictions_go_by_name_or_else_by_order():
    members = parse_member_files(["gemma=x.csv", "llama=y.csv"])
    by_name = parse_member_files(["llama=ys.csv", "gemma=xs.csv"])
    assert list(match_swapped(by_name, members).items()) == [("gemma", "xs.csv"), ("llama", "ys.csv")]
    by_order = parse_member_files(["xs.csv", "ys.csv"])
    assert match_swapped(by_order, members) == {"gemma": "xs.csv", "llama": "ys.csv"}


@pytest.mark.parametrize(
    ("swapped", "words"),
    [
        (["xs.csv"], "--swapped has 1 files, --probabilities 2; give one for each member"),
        (["gemma=xs.csv", "ys.csv"], "give all files as name=file, or none"),
        (["gemma=xs.csv", "third=ys.csv"], "--swapped is of 'gemma', 'third', --probabilities of 'gemma', 'llama'"),
    ],
)
def test_swapped_predictions_that_belong_to_nobody_are_refused(swapped, words):
    members = parse_member_files(["gemma=x.csv", "llama=y.csv"])
    with pytest.raises(InputError, match=words):
        match_swapped(parse_member_files(swapped, "--swapped"), members)
