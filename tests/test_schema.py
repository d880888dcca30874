import pytest

from lmsys_ensemble.schema import TASKS, THREE_WAY, TWO_WAY


def test_the_default_task_is_the_competitions():
    assert THREE_WAY.columns == ("winner_model_a", "winner_model_b", "winner_tie")
    assert THREE_WAY.n_classes == 3


def test_a_task_of_two_classes_has_no_tie():
    assert TWO_WAY.columns == ("winner_model_a", "winner_model_b")
    assert TWO_WAY.n_classes == 2


@pytest.mark.parametrize("task", TASKS.values(), ids=str)
def test_a_swap_changes_the_places_of_the_two_responses_and_nothing_else(task):
    swapped = [task.classes[position] for position in task.swap_order]
    assert swapped[:2] == ["model_b", "model_a"]
    assert swapped[2:] == list(task.classes[2:])


def test_tasks_are_found_by_their_names():
    assert all(task.name == name for name, task in TASKS.items())
