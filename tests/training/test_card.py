"""The model card: what the model is, and every figure that was measured."""

import pytest

from lmsys_ensemble.training.card import model_card, verdict
from tests.tiny import make_recipe
from tests.training.fitting import make_settings

FIGURES = {
    "rows": 40, "log_loss": 0.9, "log_loss_interval": [0.8, 1.0], "accuracy": 0.6, "class_prior": 1.1,
    "length_only": 1.0, "length_only_accuracy": 0.5, "difference_to_length_only": -0.1,
    "difference_interval": [-0.2, -0.05],
}  # fmt: skip


def card_of(settings=None, training=None, **options):
    training = {"rows": {"one": 30, "two": 10}, "settings": {}, "steps": 12, "kept_step": 8, **(training or {})}
    recipe = make_recipe(training=training, validation={"one": FIGURES}, **options.pop("recipe", {}))
    return model_card(settings or make_settings(), recipe, **options)


def test_it_states_what_was_learned_from_and_every_figure():
    card = card_of(make_settings(swap_augmentation=True))
    assert "- learned from 30 rows of one, 10 rows of two, each in both orders" in card
    assert "LoRA rank 4, alpha 8" in card
    assert "| one | 40 | 0.9000 | 0.8000 to 1.0000 | 0.600 | 1.1000 | 1.0000 (accuracy 0.500) | -0.1000 " in card
    assert "curves.svg" not in card


@pytest.mark.parametrize(
    ("evaluation", "words"),
    [
        ({"per_epoch": 1}, "The weights are those of the last of 12 steps."),
        ({"per_epoch": 1, "keep_best": True}, "The weights are those of step 8 of 12, whose log loss on the rows held"),
    ],
)
def test_beside_the_curves_it_says_how_the_weights_were_chosen(evaluation, words):
    card = card_of(make_settings(evaluation=evaluation), with_curves=True)
    assert words in card
    assert "(curves.svg)" in card


def test_it_names_teachers_and_the_first_stage():
    terms = {"hard": 1.0, "soft": 0.0, "kl": 2.0}
    distillation = {"terms": terms, "teachers": [{"file": "a.csv"}, {"file": "b.csv"}], "temperature": 2.0}
    card = card_of(training={"settings": {"distillation": distillation, "init_adapter": "first"}})
    assert "- distilled from `a.csv`, `b.csv`: 1 hard, 2 kl, at temperature 2" in card
    assert "- goes on from the adapter `first`" in card


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "- one: beats the class prior and beats the length-only baseline."),
        ({"log_loss": 1.05, "difference_interval": [0.01, 0.1]}, "- one: beats the class prior and does not beat the"),
        ({"difference_interval": [-0.2, 0.1]}, "(the interval of the difference to the latter includes zero)."),
    ],
)
def test_the_verdict_says_in_words_what_is_beaten_and_how_surely(changes, words):
    assert words in verdict({"one": {**FIGURES, **changes}})[0]
