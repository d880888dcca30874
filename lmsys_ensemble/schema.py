"""The one place where the class order and the column names are written down."""

from dataclasses import dataclass

ID_COLUMN = "id"
PROMPT, RESPONSE_A, RESPONSE_B = TEXT_COLUMNS = ("prompt", "response_a", "response_b")
WINNER_COLUMN = "winner"
GROUP_COLUMN = "group"
"""Column that says which rows share a prompt, unless another is named."""


@dataclass(frozen=True)
class Task:
    """A preference task: its classes, in the order of every array's last axis.

    Parameters
    ----------
    name : str
        Name that configuration files use.
    classes : tuple of str
        Class names in order. The first two are the two responses.

    Examples
    --------
    >>> THREE_WAY.columns
    ('winner_model_a', 'winner_model_b', 'winner_tie')
    >>> THREE_WAY.swap_order
    (1, 0, 2)
    """

    name: str
    classes: tuple[str, ...]

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)

    @property
    def columns(self) -> tuple[str, ...]:
        """Column names of labels and submissions, one per class."""
        return tuple(f"winner_{name}" for name in self.classes)

    @property
    def swap_order(self) -> tuple[int, ...]:
        """Class order after the two responses are swapped."""
        return (1, 0, *range(2, self.n_classes))


THREE_WAY = Task("three_way", ("model_a", "model_b", "tie"))
"""Response A wins, response B wins, tie: the competition's task and the default."""

TWO_WAY = Task("two_way", ("model_a", "model_b"))
"""Response A or response B wins; there are no ties."""


def task_of(n_classes: int) -> Task:
    """Return the task with that number of classes (2 or 3)."""
    return TWO_WAY if n_classes == TWO_WAY.n_classes else THREE_WAY


TASKS = {task.name: task for task in (THREE_WAY, TWO_WAY)}
"""All tasks by name."""
