import json

import numpy as np
import pandas as pd
import pytest

from lmsys_ensemble.blending.blender import Blender
from lmsys_ensemble.blending.members import MemberOrderWarning
from lmsys_ensemble.blending.spec import METHODS
from lmsys_ensemble.errors import ConfigError

from .conftest import named, simulate


def test_files_without_names_are_read_and_trust_the_order(tmp_path):
    members, y = simulate(100, 2)
    content = Blender("log").fit(named(members), y).to_dict()
    for key in ("members", "fingerprints", "classes"):
        del content["fitted"][key]
    del content["parameters"]["classes"]
    old = Blender.from_dict(content)
    assert (old.member_names_, old.fingerprints_, old.classes_.tolist()) == (None, {}, [0, 1, 2])
    assert (old.predict_proba(members) == Blender("log").fit(members, y).predict_proba(members)).all()
    with pytest.warns(MemberOrderWarning, match="does not know its members"):
        old.in_order_of(["p", "q"])


@pytest.mark.parametrize("method", METHODS)
def test_save_and_load(method, tmp_path):
    members, y = simulate(300, 2)
    blender = Blender(method, seed=np.int64(7), weights=None).fit(members, y)
    blender.save(tmp_path / "blender.json")
    loaded = Blender.load(tmp_path / "blender.json")
    assert loaded.get_params() == blender.get_params()
    assert (loaded.predict_proba(members) == blender.predict_proba(members)).all()
    assert loaded.to_dict() == blender.to_dict()
    if method == "auto":
        pd.testing.assert_frame_equal(loaded.selection_, blender.selection_)
    assert [path.name for path in tmp_path.iterdir()] == ["blender.json"]


def test_a_blender_of_fixed_and_fitted_values_is_saved(tmp_path):
    members, y = simulate(300, 2)
    blender = Blender("log", "after+bias", weights=[0.4, 0.5]).fit(members, y)
    blender.save(tmp_path / "b.json")
    loaded = Blender.load(tmp_path / "b.json")
    assert (loaded.predict_proba(members) == blender.predict_proba(members)).all()
    assert loaded.weights_.tolist() == [0.4, 0.5]


def test_an_unfitted_blender_is_saved_too(tmp_path):
    blender = Blender(weights=np.array([3, 1]), temperature=np.float32(2))
    blender.save(tmp_path / "b.json")
    loaded = Blender.load(tmp_path / "b.json")
    members, _ = simulate(5)
    assert (loaded.predict_proba(members) == blender.predict_proba(members)).all()
    assert not hasattr(loaded, "blend_")


def damaged(**changes):
    members, y = simulate(200, 2)
    return {**Blender("linear").fit(members, y).to_dict(), **changes}


def test_damaged_files_are_refused(tmp_path):
    path = tmp_path / "blender.json"
    with pytest.raises(ConfigError, match="there is no blender"):
        Blender.load(path)
    good = damaged()
    fit = good["fitted"]
    for text, words in (
        ("{", "cannot be read"),
        ("[]", "expected a mapping"),
        (json.dumps(damaged(version=2)), "version"),
        (json.dumps(damaged(format="other")), "format"),
        (json.dumps(damaged(parameters={**good["parameters"], "metod": 1})), "did you mean 'method'"),
        (json.dumps(damaged(fitted={**fit, "blend": {**fit["blend"], "weights": [-1, 2]}})), "at least 0"),
        (json.dumps(damaged(fitted={**fit, "blend": {**fit["blend"], "weights": ["x"]}})), "weights"),
        (json.dumps(damaged(fitted={**fit, "members": ["a"]})), "names 1 members, its values are for 2"),
        (json.dumps(damaged(fitted={**fit, "members": ["a", "a"]})), "different names"),
        (json.dumps(damaged(fitted={**fit, "n_classes": 10**9})), r"fitted\.n_classes: .*less than or equal to 1000"),
        (json.dumps(damaged(fitted={**fit, "n_classes": -1})), r"fitted\.n_classes: .*greater than or equal to 2"),
        (json.dumps(damaged(fitted={**fit, "classes": ["a", "b"]})), "names 2 classes, its values are for 3"),
    ):
        path.write_text(text)
        with pytest.raises(ConfigError, match=words):
            Blender.load(path)


def test_a_failed_save_leaves_the_old_file(tmp_path):
    path = tmp_path / "blender.json"
    Blender().save(path)
    before = path.read_text()
    with pytest.raises(ConfigError):
        Blender(weights="wrong").save(path)
    assert path.read_text() == before
    assert [file.name for file in tmp_path.iterdir()] == ["blender.json"]
