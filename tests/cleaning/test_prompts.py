from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmsys_ensemble.cleaning.normalization import words
from lmsys_ensemble.cleaning.prompts import Clusters, join_similar

SENTENCE = "please write a short story about a cat that learns how to play chess with the old man next door"


def clusters_of(texts, threshold):
    clusters = Clusters(len(texts))
    join_similar(clusters, texts, threshold)
    return clusters.codes().tolist()


def similarity(one, other):
    """Return the Jaccard similarity of the pairs of neighbouring words."""
    one, other = (set(pairwise(found)) or {tuple(found)} for found in (words(text) for text in (one, other)))
    return len(one & other) / len(one | other)


def brute_force(texts, threshold):
    clusters = Clusters(len(texts))
    for i, one in enumerate(texts):
        for j, other in enumerate(texts[:i]):
            if one == other or similarity(one, other) >= threshold - 1e-9:
                clusters.join(i, j)
    return clusters.codes().tolist()


def test_prompts_that_differ_in_one_word_of_many_are_one():
    texts = [SENTENCE, SENTENCE.replace("cat", "dog"), SENTENCE + "!", "what is the capital of france"]
    assert clusters_of(texts, 0.8) == [0, 0, 0, 1]
    assert clusters_of(texts, 0.95) == [0, 1, 0, 2]


def test_short_prompts_that_ask_something_else_stay_apart():
    assert clusters_of(["what is 2 + 2", "what is 2 + 3", "hi", "hello", "???", "", "hi"], 0.8) == [0, 1, 2, 3, 4, 5, 2]


@given(
    st.lists(st.lists(st.sampled_from("abcdefg"), max_size=12).map(" ".join), max_size=25),
    st.sampled_from([0.5, 0.55, 0.6, 0.7, 0.8, 0.9, 1.0]),
)
def test_no_pair_is_missed_and_none_is_made_up(texts, threshold):
    assert clusters_of(texts, threshold) == brute_force(texts, threshold)


@pytest.mark.parametrize("threshold", [0.6, 0.8, 0.9])
def test_long_texts_with_a_few_words_changed_are_found_as_by_comparing_all(threshold):
    generator = np.random.default_rng(0)
    vocabulary = [f"w{number}" for number in range(60)]
    texts = []
    for _ in range(12):
        text = list(generator.choice(vocabulary, int(generator.integers(5, 60))))
        for n_changes in range(5):
            changed = text.copy()
            for position in generator.integers(0, len(text), n_changes):
                changed[position] = str(generator.choice(vocabulary))
            texts.append(" ".join(changed))
    found = clusters_of(texts, threshold)
    assert found == brute_force(texts, threshold)
    assert 12 <= len(set(found)) < len(texts)


def test_sets_are_numbered_from_the_first_member_and_none_equals_nothing():
    clusters = Clusters(6)
    clusters.join_equal(["b", None, "a", None, "b", "a"])
    assert clusters.codes().tolist() == [0, 1, 2, 3, 0, 2]
    clusters.join(5, 4)
    assert clusters.codes().tolist() == [0, 1, 0, 2, 0, 0]
    assert Clusters(0).codes().tolist() == []
