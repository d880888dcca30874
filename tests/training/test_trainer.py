"""The Trainer with our batches is the plain Trainer; what is added to it changes nothing but what it says."""

import math

import numpy as np
import pytest
import torch
from transformers import DataCollatorWithPadding, Trainer, TrainerCallback, TrainingArguments

from lmsys_ensemble.modeling.adapters import inject_lora
from lmsys_ensemble.modeling.loading import LoadSettings, load_classifier
from lmsys_ensemble.training.batches import Steps
from lmsys_ensemble.training.fit import fit_lora
from lmsys_ensemble.training.model import lora_config
from tests.tiny import make_tokenizer
from tests.training.fitting import build, largest_difference, learned, make_examples, make_settings, recipe_of


class Losses(TrainerCallback):
    """Notes the loss of every step."""

    def __init__(self):
        self.seen = []

    def on_log(self, args, state, control, logs=None, **_):
        if "loss" in logs:
            self.seen.append(logs["loss"])


def plain_training(checkpoints, settings, examples, folder, accumulation):
    """Train with PEFT and the plain Trainer as everybody does, on the same rows in the same order."""
    model = load_classifier(checkpoints.base("llama"), LoadSettings(3, "cpu", torch.float32), head_follows=True)
    config = lora_config(settings.lora, model)
    config.modules_to_save = None
    wrapped = inject_lora(model, config)
    model.config.problem_type = "single_label_classification"
    steps = Steps(examples.encoded.lengths, settings.optimizer.rows_per_step, settings.seed, True)
    order = [row for epoch in range(settings.optimizer.epochs) for step in steps.plan(epoch) for row in step]
    rows = [
        {"input_ids": examples.encoded.ids[row].tolist(), "labels": int(examples.labels[row].argmax())} for row in order
    ]
    chosen = settings.optimizer
    losses = Losses()
    arguments = TrainingArguments(
        output_dir=str(folder), num_train_epochs=1, per_device_train_batch_size=chosen.rows_per_step // accumulation,
        gradient_accumulation_steps=accumulation, learning_rate=chosen.learning_rate, optim="adamw_torch",
        lr_scheduler_type=chosen.schedule, warmup_steps=math.ceil(chosen.warmup * len(order) / chosen.rows_per_step),
        weight_decay=chosen.weight_decay, train_sampling_strategy="sequential", logging_steps=1, save_strategy="no",
        report_to="none", use_cpu=True, disable_tqdm=True, dataloader_pin_memory=False, seed=settings.seed,
    )  # fmt: skip
    collator = DataCollatorWithPadding(make_tokenizer())
    trainer = Trainer(model=wrapped, args=arguments, train_dataset=rows, data_collator=collator, callbacks=[losses])
    # transformers 5.23 takes a classifier for a model that divides by the rows of all batches itself, which it does
    # not: losses and gradients would be as many times too large as there are batches in a step.
    trainer.loss_is_scaled_for_ga = False
    return wrapped, trainer, losses


@pytest.mark.parametrize(
    ("schedule", "warmup", "accumulation"), [("cosine", 0.0, 1), ("linear", 0.3, 2)], ids=["one batch", "accumulated"]
)
def test_losses_and_weights_are_those_of_a_plain_trainer(checkpoints, tmp_path, schedule, warmup, accumulation):
    settings = make_settings(
        optimizer={"epochs": 2, "learning_rate": 2e-3, "head_learning_rate": 2e-3, "schedule": schedule,
                   "warmup": warmup},
        batches={"rows": 8 // accumulation},
    )  # fmt: skip
    examples = make_examples(24)
    plain, trainer, expected = plain_training(checkpoints, settings, examples, tmp_path, accumulation)
    ours = build(checkpoints, settings)
    with torch.no_grad():
        for name, parameter in plain.named_parameters():
            if parameter.requires_grad:
                parameter.copy_(dict(ours.named_parameters())[name])
    before = learned(ours)
    trainer.train()
    found = Losses()
    fit_lora(ours, recipe_of(settings), settings, examples, callbacks=[found])
    assert len(found.seen) == len(expected.seen) == 6
    np.testing.assert_allclose(found.seen, expected.seen, atol=1e-5)
    assert largest_difference(learned(ours), learned(plain)) < 1e-5
    assert largest_difference(learned(ours), before) > 2e-3


def step_losses(checkpoints, weights, rows_per_step):
    """Return the loss of every step of an epoch in which nothing moves."""
    settings = make_settings(
        optimizer={"learning_rate": 1e-15, "head_learning_rate": 1e-15, "rows_per_step": rows_per_step},
        batches={"by_length": False},
    )
    found = Losses()
    fit_lora(
        build(checkpoints, settings), recipe_of(settings), settings, make_examples(8, weights=weights),
        callbacks=[found],
    )  # fmt: skip
    (order,) = (Steps(make_examples(8).encoded.lengths, rows_per_step, settings.seed, False).plan(0),)
    return order, np.array(found.seen)


def test_a_step_counts_as_much_as_its_rows_weigh_among_all(checkpoints):
    """Steps of one row and of four: a row counts as its weight over the mean one, whatever else is in the step."""
    weights = np.array([0.0, 1.0, 1.0, 2.0, 6.0, 1.0, 0.5, 0.5])
    order, alone = step_losses(checkpoints, np.ones(8), 1)
    losses = np.empty(8)
    losses[np.concatenate(order)] = alone
    for rows_per_step in (1, 4):
        steps, found = step_losses(checkpoints, weights, rows_per_step)
        expected = [(weights[rows] * losses[rows]).sum() / (len(rows) * weights.mean()) for rows in steps]
        np.testing.assert_allclose(found, expected, atol=1e-5)
