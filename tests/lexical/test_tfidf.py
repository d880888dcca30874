"""TF-IDF components."""

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer

from lmsys_ensemble.data.battles import parse_battles
from lmsys_ensemble.lexical import tfidf
from lmsys_ensemble.lexical.features import read_texts
from lmsys_ensemble.lexical.tfidf import NO_TFIDF, fit_tfidf
from tests.lexical.longer import make_table, odd_battles

BATTLES = parse_battles(make_table(60))


def texts_of(battles):
    _, a, b = read_texts(battles)
    return [*a, *b]


def test_weights_are_those_of_scikit_learn():
    fitted = fit_tfidf(BATTLES, n_terms=10, n_components=4)
    vectorizer = TfidfVectorizer(vocabulary=fitted.terms, sublinear_tf=True)
    texts = [text.text for text in texts_of(BATTLES)]
    expected = vectorizer.fit_transform(texts).toarray()
    np.testing.assert_allclose(vectorizer.idf_, fitted.idf)
    np.testing.assert_allclose(fitted.project(texts_of(BATTLES)), expected @ fitted.components.T, atol=1e-12)


def test_the_most_frequent_terms_are_kept_and_rare_ones_are_not(monkeypatch):
    fitted = fit_tfidf(BATTLES, n_terms=3, n_components=8)
    counts = {}
    for text in texts_of(BATTLES):
        for word in text.words:
            counts[word] = counts.get(word, 0) + 1
    assert set(fitted.terms) == set(sorted(counts, key=lambda word: (-counts[word], word))[:3])
    assert fitted.components.shape == (2, 3)
    np.testing.assert_allclose(fitted.components @ fitted.components.T, np.eye(2), atol=1e-9)
    monkeypatch.setattr(tfidf, "MIN_TEXTS", 1000)
    assert fit_tfidf(BATTLES, n_terms=3, n_components=8) is NO_TFIDF


def test_texts_without_a_known_term_are_zero_and_components_are_named_by_words():
    fitted = fit_tfidf(BATTLES, n_terms=10, n_components=4)
    described = fitted.describe(read_texts(parse_battles(odd_battles())))
    assert described.differences.shape[1] == 4
    assert not described.differences.any()
    assert set(fitted.explain(0, 3).split()) <= set(fitted.terms)


def test_the_same_battles_give_the_same_bytes():
    one, other = (fit_tfidf(BATTLES, n_terms=10, n_components=4, seed=3) for _ in range(2))
    assert one.components.tobytes() == other.components.tobytes()
