import functools
import threading
import warnings

import numpy as np
import pytest

from lmsys_ensemble.blending import blender as blender_module
from lmsys_ensemble.blending.blender import Blender, MissingMemberWarning
from lmsys_ensemble.blending.crossfit import cross_fit_blender
from lmsys_ensemble.blending.diagnosis import MemberWarning
from lmsys_ensemble.notices import collected_warnings, warn


def test_a_warning_names_the_line_that_called_the_library():
    members = [np.full((4, 3), 1 / 3), None]
    blender = Blender(weights=[1, 1])
    with pytest.warns(MissingMemberWarning) as caught:
        blender.predict_proba(members, missing="renormalise")
    assert [warning.filename for warning in caught] == [__file__]
    between = {}  # functions of the library that call each other
    code = "def inner(function): function()\ndef outer(function): inner(function)"
    exec(compile(code, blender_module.__file__, "exec"), between)
    with pytest.warns(MemberWarning) as caught:
        between["outer"](functools.partial(warn, "ours", MemberWarning))
    assert [warning.filename for warning in caught] == [__file__]


def test_what_is_collected_is_not_emitted_and_others_still_are():
    with collected_warnings() as kept:
        warn("ours", MemberWarning)
        with pytest.warns(UserWarning, match="theirs"):
            warnings.warn("theirs", UserWarning, stacklevel=1)
    assert [(type(warning), str(warning)) for warning in kept] == [(MemberWarning, "ours")]
    with pytest.warns(MemberWarning, match="again"):
        warn("again", MemberWarning)


def test_a_cross_fit_in_one_thread_silences_no_fit_in_another():
    y = np.arange(400) % 3
    members, labels = [np.full((400, 3), 1 / 3), np.roll(np.eye(3)[y], 1, axis=0)], np.eye(3)[y]
    filters = list(warnings.filters)
    inside, finished = threading.Event(), threading.Event()

    class Watched(Blender):
        """Stops in the middle of its cross-fit until the other thread has fitted."""

        def fit(self, *given, **options):
            inside.set()
            assert finished.wait(60)
            return super().fit(*given, **options)

    thread = threading.Thread(target=lambda: cross_fit_blender(Watched("linear"), members, labels))
    thread.start()
    assert inside.wait(60)
    assert warnings.filters == filters
    with pytest.warns(MemberWarning):
        Blender("linear").fit(members, y)
    finished.set()
    thread.join()
