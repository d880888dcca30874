import numpy as np
import pytest

from lmsys_ensemble.blending.diagnosis import MIN_ROWS, diagnose_members, find_leaks
from lmsys_ensemble.probabilities import check_labels, softmax

from .conftest import simulate


def diagnose(members, y, codes=None):
    n_rows = len(y)
    labels = check_labels(y, n_classes=members[0].shape[1])
    return diagnose_members(members, labels, np.ones(n_rows), np.arange(n_rows) if codes is None else codes)


def test_good_scorers_give_no_findings():
    for seed in range(5):
        members, y = simulate(400, 3, seed=seed)
        assert diagnose(members, y) == []


@pytest.mark.parametrize("n_rows", [30, 400])
def test_the_labels_themselves_are_called_a_leak(n_rows):
    members, y = simulate(n_rows, 2)
    one_hot = np.eye(3)[y]
    for copy in (one_hot, 0.996 * one_hot + 0.004 / 3):
        (finding,) = diagnose([members[0], copy], y)
        assert finding.startswith("scorer 1 is a leak")
    soft = 0.7 * one_hot + 0.1
    assert find_leaks([members[0], soft.round(2)], soft) == [1]


def test_who_is_never_wrong_is_a_leak_and_who_is_sure_is_not():
    members, y = simulate(400, 2)
    labels = np.eye(3)[y]
    assert find_leaks([0.4 * labels + 0.2, members[0]], labels) == [0]
    nearly = 0.4 * labels + 0.2
    nearly[7] = np.roll(nearly[7], 1)
    sharp = softmax(1e3 * np.log(members[0]))
    assert find_leaks([nearly, sharp], labels) == []
    # Of labels that are all the same nothing can be told.
    assert find_leaks([np.tile([1.0, 0, 0], (400, 1))], np.tile([1.0, 0, 0], (400, 1))) == []
    assert find_leaks([labels[:10]], labels[:10]) == []


def test_shuffled_rows_are_found():
    members, y = simulate(2_000, 2)
    shuffled = members[1][np.random.default_rng(0).permutation(2_000)]
    (finding,) = diagnose([members[0], shuffled], y)
    assert "scorer 1" in finding
    assert "shuffling its rows would not hurt" in finding


def test_rows_moved_by_one_are_found():
    members, y = simulate(2_000, 1)
    (finding,) = diagnose([np.roll(members[0], 1, axis=0)], y)
    assert "shuffling" in finding


@pytest.mark.parametrize("order", [[1, 0, 2], [2, 0, 1]])
def test_exchanged_columns_are_found_with_the_order_that_fits(order):
    members, y = simulate(2_000, 1)
    (finding,) = diagnose([members[0][:, order]], y)
    assert "columns" in finding or "shuffling" in finding
    if "columns" in finding:
        fitting = tuple(int(position) for position in np.argsort(order))
        assert str(fitting) in finding


def test_exchanged_ties_and_wins_are_found():
    # Ties that are rare and predictable: exchanged columns still carry some information.
    members, y = simulate(3_000, 1)
    skewed = softmax(np.log(members[0]) + np.array([2.0, 0.0, 0.0]))
    y = (np.random.default_rng(0).random((3_000, 1)) > skewed.cumsum(axis=1)[:, :-1]).sum(axis=1)
    (finding,) = diagnose([skewed[:, [0, 2, 1]]], y)
    assert "(0, 2, 1)" in finding


def test_an_over_confident_scorer_is_worse_than_the_prior():
    members, y = simulate(2_000, 1)
    (finding,) = diagnose([softmax(6 * np.log(members[0]))], y)
    assert "worse than the class prior" in finding
    assert "calibrat" in finding


def test_a_constant_prediction_is_found():
    _, y = simulate(500, 1)
    (finding,) = diagnose([np.full((500, 3), 1 / 3)], y)
    assert "shuffling" in finding


def test_few_rows_say_nothing():
    members, y = simulate(MIN_ROWS - 1, 1)
    assert diagnose([np.roll(members[0], 1, axis=0)], y) == []


def test_repeated_rows_do_not_pass_for_evidence():
    # 300 rows of no information, each repeated: by rows the accident looks certain, by groups it does not.
    generator = np.random.default_rng(3)
    for _ in range(50):
        member, y = generator.dirichlet([1, 1, 1], 300), generator.integers(0, 3, 300)
        repeated, labels = np.repeat(member, 30, axis=0), np.repeat(y, 30)
        if not diagnose([repeated], labels) or "shuffling" not in diagnose([repeated], labels)[0]:
            break
    else:
        pytest.fail("no accident found")
    findings = diagnose([repeated], labels, np.repeat(np.arange(300), 30))
    assert "shuffling" in findings[0]
