"""Model cards of what was merged: they state what was done, what was measured, and how it loads."""

import pytest

from lmsys_ensemble.merging.cards import exported_card, merged_card
from tests.tiny import make_recipe

PARTS = [{"name": "fold-1", "weight": 0.75, "adapter_sha256": "a" * 64}]
FIGURES = {
    "rows": 24,
    "log_loss": {"unmerged": 0.9, "merged": 0.95},
    "log_loss_interval": {"unmerged": [0.8, 1.0], "merged": [0.85, 1.05]},
    "accuracy": {"unmerged": 0.5, "merged": 0.45},
    "accuracy_interval": {"unmerged": [0.4, 0.6], "merged": [0.35, 0.55]},
    "difference": 0.05,
    "difference_interval": [0.01, 0.09],
    "accuracy_difference": -0.05,
    "accuracy_difference_interval": [-0.1, 0.0],
    "largest_difference": 0.2,
}
EXPORT = {
    "adapter": "mine", "adapter_sha256": "b" * 64, "dtype": "bfloat16", "quantization": "w4a16",
    "golden_difference": 0.0123,
}  # fmt: skip


@pytest.mark.parametrize(("lost", "words"), [(0, "exactly, by putting"), (0.0312, "which lost 3.12% of the update")])
def test_the_card_of_a_mean_says_how_exact_it_is(lost, words):
    card = merged_card("mean", make_recipe(training={"merged_from": PARTS, "rank": 8, "lost": lost}))
    assert words in card
    assert f"| fold-1 | 0.7500 | `{'a' * 64}` |" in card
    assert "Not measured: no labelled rows were given." in card


def test_figures_stand_in_the_card_with_their_intervals_and_paired_differences():
    recipe = make_recipe(training={"export": EXPORT}, validation=FIGURES)
    card = exported_card("small", recipe)
    assert "| merged | 0.9500 | 0.8500 to 1.0500 | 0.4500 | 0.3500 to 0.5500 |" in card
    assert (
        "Merged minus unmerged, on the same rows: log loss +0.05000 (+0.01000 to +0.09000), accuracy -0.05000 "
        "(-0.10000 to +0.00000); the largest difference of a probability is 0.20000." in card
    )
    assert "## Figures" not in exported_card("small", recipe.model_copy(update={"validation": {}}))


@pytest.mark.parametrize(
    ("quantization", "words"),
    [("none", "weights are bfloat16"), ("int8", "rounded to 8 bits"), ("w4a16", "rounded to 4 bits")],
)
def test_the_card_of_a_merged_model_says_how_its_weights_are_stored(quantization, words):
    card = exported_card("small", make_recipe(training={"export": {**EXPORT, "quantization": quantization}}))
    assert words in card
    assert "differ by at most 0.01230 from the adapter's" in card


@pytest.mark.parametrize(
    ("pooling", "words"),
    [("last_token", "the logits are the same"), ("response_spans", "Not with transformers alone")],
)
def test_the_card_says_whether_plain_transformers_loads_it(pooling, words):
    assert words in exported_card("x", make_recipe(training={"export": EXPORT}, head={"pooling": pooling}))
