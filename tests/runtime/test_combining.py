import inspect
import threading
import warnings

import numpy as np
import pytest

from lmsys_ensemble import Blender, Ensemble, FakeScorer
from lmsys_ensemble.blending.blender import MissingMemberWarning
from lmsys_ensemble.runtime.combining import MemberChangedWarning, blend_rows

PATIENCE = 300


def test_blending_in_two_threads_at_once_leaves_the_filters_of_warnings_as_they_were():
    """They belong to the process: two threads that change them and put them back can leave one's change for ever."""
    inside, first_is_out = threading.Barrier(2), threading.Event()

    class Slow(Blender):
        def predict_proba(self, probabilities, missing="error"):
            blended = super().predict_proba(probabilities, missing)
            inside.wait(PATIENCE)
            if threading.current_thread() is second:
                assert first_is_out.wait(PATIENCE)
            return blended

    def blend():
        blend_rows(Slow(), [np.full((1, 3), 1 / 3), np.full((1, 3), np.nan)], np.array([[True, False]]))
        first_is_out.set()

    before = list(warnings.filters)
    first, second = threading.Thread(target=blend), threading.Thread(target=blend)
    for thread in (first, second):
        thread.start()
    for thread in (first, second):
        thread.join(PATIENCE)
    assert warnings.filters == before


def test_a_row_that_misses_a_scorer_is_blended_without_a_word(recwarn):
    members = [np.full((2, 3), 1 / 3), np.full((2, 3), np.nan)]
    blend_rows(Blender(), members, np.array([[True, False], [True, False]]))
    assert not [warning for warning in recwarn if warning.category is MissingMemberWarning]
    with pytest.warns(MissingMemberWarning):
        Blender().predict_proba([members[0], None], missing="renormalise")


def test_a_warning_of_a_changed_scorer_names_the_line_that_asked_for_the_prediction(labelled_table):
    blender = Ensemble([FakeScorer(0), FakeScorer(1, name="one")], Blender("log")).fit(labelled_table).blender
    ensemble = Ensemble([FakeScorer(0), FakeScorer(5, name="one")], blender)
    for work in (ensemble.predict, ensemble.evaluate):
        line = inspect.currentframe().f_lineno + 2
        with pytest.warns(MemberChangedWarning) as caught:
            work(labelled_table)
        places = {(warning.filename, warning.lineno) for warning in caught if warning.category is MemberChangedWarning}
        assert places == {(__file__, line)}
