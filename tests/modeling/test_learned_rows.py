import numpy as np
import pytest
from safetensors.numpy import save_file

from lmsys_ensemble.data.battles import parse_battles
from lmsys_ensemble.errors import IntegrityError
from lmsys_ensemble.files import sha256_of
from lmsys_ensemble.modeling.learned_rows import LEARNED_FILE, LEARNED_KEY, LearnedRows, read_learned_rows, united
from tests.tiny import make_battles, make_recipe

BATTLES = make_battles(6)
FIRST, LAST = BATTLES.take(np.arange(4)), BATTLES.take(np.arange(4, 6))


def recipe_with(digest):
    return make_recipe(training={LEARNED_KEY: digest})


def test_a_row_is_known_by_its_texts_in_either_order_and_any_spelling():
    def make(prompt, a, b):
        return parse_battles([{"id": 1, "prompt": prompt, "response_a": a, "response_b": b}])

    learned = LearnedRows.of(make("What is AI?", "one", "two"))
    for battles, expected in (
        (make("what  is ＡＩ?", "ONE", "two "), (True, True)),
        (make("What is AI?", "two", "one"), (True, True)),
        (make("What is AI?", "one", "three"), (False, True)),
        (make("What is it?", "one", "two"), (False, False)),
    ):
        rows, prompts = learned.find(battles)
        assert (bool(rows[0]), bool(prompts[0])) == expected


def test_what_was_written_is_read_again_sixteen_bytes_a_row(tmp_path):
    digest = LearnedRows.of(FIRST).write(tmp_path)
    assert digest == sha256_of(tmp_path / LEARNED_FILE)
    learned = read_learned_rows(tmp_path, recipe_with(digest))
    assert learned.rows.dtype == learned.prompts.dtype == np.uint64
    assert learned.rows.nbytes + learned.prompts.nbytes == 16 * len(FIRST)
    np.testing.assert_array_equal(learned.find(BATTLES)[0], [True] * 4 + [False] * 2)
    assert FIRST.responses_a[0][0].encode() not in (tmp_path / LEARNED_FILE).read_bytes()


def test_a_file_that_the_recipe_does_not_name_says_nothing(tmp_path):
    digest = LearnedRows.of(FIRST).write(tmp_path)
    assert read_learned_rows(tmp_path, None) is None
    assert read_learned_rows(tmp_path, make_recipe()) is None
    assert read_learned_rows(tmp_path / "elsewhere", recipe_with(digest)) is None
    with pytest.raises(IntegrityError, match="is not the file that was saved with its recipe"):
        read_learned_rows(tmp_path, recipe_with("0" * 64))


def test_another_version_of_the_hashes_says_nothing_and_a_damaged_file_is_told(tmp_path):
    path = tmp_path / LEARNED_FILE
    save_file({"rows": np.zeros(1, np.uint64), "prompts": np.zeros(1, np.uint64)}, path, metadata={"version": "2"})
    assert read_learned_rows(tmp_path, recipe_with(sha256_of(path))) is None
    path.write_bytes(b"nothing")
    with pytest.raises(IntegrityError, match="holds no tensors"):
        read_learned_rows(tmp_path, recipe_with(sha256_of(path)))


def test_rows_of_several_are_known_if_those_of_each_are():
    parts = [LearnedRows.of(FIRST), LearnedRows.of(LAST)]
    assert united(parts).find(BATTLES)[0].all()
    assert united([parts[0], None]) is None
    assert united([]) is None
