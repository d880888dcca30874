import numpy as np
import pytest
import torch

from lmsys_ensemble.data.battles import parse_battles
from lmsys_ensemble.data.corpus import Labelled
from lmsys_ensemble.schema import THREE_WAY
from lmsys_ensemble.training.examples import CrossEntropy, class_weights, row_weights
from lmsys_ensemble.training.settings import DataSettings
from tests.training.synthetic import make_preferences

LOGITS = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)).double()
HARD = np.eye(3)[[0, 1, 2, 2, 1, 0]]
BY_CLASS = np.array([1.0, 3.0, 0.25])


def gradient(labels, weights=None, **options):
    """Return the mean loss and its gradient in the logits."""
    logits = LOGITS.float().requires_grad_()
    objective = CrossEntropy(labels, np.ones(6) if weights is None else weights, **options)
    loss = objective(logits, logits, np.arange(6)) / (6 * objective.mean_weight)
    loss.backward()
    return loss.detach(), logits.grad


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("by_class", [None, BY_CLASS])
def test_it_is_the_loss_of_torch(by_class, smoothing):
    logits, classes = LOGITS.float().requires_grad_(), torch.from_numpy(HARD.argmax(axis=1))
    by_row = torch.nn.CrossEntropyLoss(label_smoothing=smoothing, reduction="none")(logits, classes)
    own = torch.ones(6) if by_class is None else torch.from_numpy(by_class).float()[classes]
    expected = (own * by_row).sum() / own.sum()
    expected.backward()
    loss, found = gradient(HARD, class_weights=by_class, smoothing=smoothing)
    torch.testing.assert_close(loss, expected.detach())
    torch.testing.assert_close(found, logits.grad)
    if not smoothing or by_class is None:
        weight = None if by_class is None else torch.from_numpy(by_class).float()
        plain = torch.nn.CrossEntropyLoss(weight=weight, label_smoothing=smoothing)(LOGITS.float(), classes)
        torch.testing.assert_close(loss, plain)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_rows_of_a_class_of_weight_zero_have_no_loss(smoothing):
    objective = CrossEntropy(HARD, np.ones(6), np.array([1.0, 1.0, 0.0]), smoothing)
    ties, others = np.flatnonzero(HARD[:, 2]), np.flatnonzero(1 - HARD[:, 2])
    assert objective(LOGITS[ties].float(), LOGITS[ties], ties) == 0
    assert objective(LOGITS[others].float(), LOGITS[others], others) > 0
    assert objective.mean_weight == pytest.approx(4 / 6)


def test_soft_labels_that_say_what_hard_ones_do_give_the_same_gradient():
    nearly = 0.999999 * HARD + 1e-6 / 3
    torch.testing.assert_close(gradient(nearly)[1], gradient(HARD)[1], atol=1e-5, rtol=0)
    halves = np.where(HARD > 0, 0.5, 0.25)
    probabilities = torch.softmax(LOGITS, dim=1)
    expected = (probabilities - torch.from_numpy(halves)) / 6
    torch.testing.assert_close(gradient(halves)[1].double(), expected, atol=1e-6, rtol=0)


def test_class_weights_change_the_gradient_as_computed_by_hand():
    probabilities = torch.softmax(LOGITS, dim=1)
    own = torch.from_numpy(BY_CLASS[HARD.argmax(axis=1)])
    expected = own[:, None] * (probabilities - torch.from_numpy(HARD)) / own.sum()
    torch.testing.assert_close(gradient(HARD, class_weights=BY_CLASS)[1].double(), expected, atol=1e-6, rtol=0)


def test_a_row_of_weight_two_is_a_row_that_comes_twice():
    _, doubled = gradient(HARD, weights=np.array([2.0, 1, 1, 1, 1, 1]))
    objective = CrossEntropy(HARD, np.ones(6))
    logits = LOGITS.float().requires_grad_()
    rows = np.array([0, 0, 1, 2, 3, 4, 5])
    (objective(logits[rows], logits, rows) / (len(rows) * objective.mean_weight)).backward()
    torch.testing.assert_close(doubled, logits.grad)


def test_rows_weigh_by_source_and_less_where_their_prompt_is_frequent():
    table = make_preferences(6).assign(source=["a", "a", "a", "b", "b", "b"])
    data = Labelled(
        parse_battles(table), HARD, table["source"].to_numpy(dtype=object),
        np.array(["x", "x", "x", "x", "y", "z"], dtype=object),
    )  # fmt: skip
    settings = DataSettings(weights={"b": 6.0})
    assert row_weights(data, settings).tolist() == [1, 1, 1, 6, 6, 6]
    settings = DataSettings(weights={"b": 6.0}, frequency_penalty=0.5)
    assert row_weights(data, settings).tolist() == [0.5, 0.5, 0.5, 3, 6, 6]
    settings = DataSettings(frequency_penalty=1.0)
    assert row_weights(data, settings).tolist() == [0.25, 0.25, 0.25, 0.25, 1, 1]


def test_classes_without_a_weight_weigh_one():
    assert class_weights({"tie": 0.5}, THREE_WAY).tolist() == [1, 1, 0.5]
