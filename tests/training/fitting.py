"""What tests of training share: settings without extras, tiny PEFT models, examples."""

import numpy as np

from lmsys_ensemble.data.battles import parse_battles
from lmsys_ensemble.data.labels import parse_labels
from lmsys_ensemble.training.examples import Examples
from lmsys_ensemble.training.model import build_model
from lmsys_ensemble.training.settings import TrainSettings
from tests.tiny import PAD, encode, make_recipe
from tests.training.synthetic import make_preferences


def make_settings(**changes):
    """Return settings with every extra off: one batch a step, padded, no dropout, a head that starts at random."""
    values = {
        "name": "tiny",
        "scorer": "llama",
        "base_model": "tiny",
        "max_tokens": 160,
        "special_tokens": {"pad_token_id": PAD},
        "lora": {"r": 4, "alpha": 8, "dropout": 0.0},
        "optimizer": {
            "head_l2": None,
            "rows_per_step": 8,
            "warmup": 0.0,
            "weight_decay": 0.0,
            "head_weight_decay": 0.0,
        },
        "batches": {"tokens": 10**6, "layout": "padded"},
        "evaluation": {"per_epoch": 0},
        "swap_augmentation": False,
        "autocast": "float32",
    }
    for name, value in changes.items():
        values[name] = {**values[name], **value} if isinstance(values.get(name), dict) else value
    return TrainSettings.model_validate(values)


def recipe_of(settings):
    """Return the recipe of a tiny model that is trained with `settings`."""
    return make_recipe(head=settings.head.model_dump(), special_tokens={"pad_token_id": PAD})


def make_examples(n_rows=24, seed=0, weights=None, labels=None):
    """Return encoded battles whose preference can be learned."""
    table = make_preferences(n_rows, seed)
    encoded = encode(parse_battles(table), max_tokens=160)
    labels = parse_labels(table) if labels is None else labels
    return Examples(encoded, labels, np.ones(n_rows) if weights is None else weights)


def build(checkpoints, settings, architecture="llama"):
    """Return a tiny PEFT model as training makes it."""
    return build_model(settings, recipe_of(settings), checkpoints.base(architecture), "cpu")


def learned(wrapped):
    """Return copies of all that learns."""
    return {name: tensor.detach().clone() for name, tensor in wrapped.named_parameters() if tensor.requires_grad}


def largest_difference(one, other):
    """Return the largest difference between two collections of tensors."""
    assert one.keys() == other.keys()
    return max(float((one[key] - other[key]).abs().max()) for key in one)


def gradients(trainee, data, objective, parts):
    """Return the gradients of one step that is computed in `parts`."""
    trainee.zero_grad()
    divisor = sum(map(len, parts)) * objective.mean_weight
    for part in parts:
        (objective(*data.call(trainee, part), part) / divisor).backward()
    return {name: tensor.grad.clone() for name, tensor in trainee.learning().items()}


def relative_difference(one, other):
    """Return the norm of the difference of two collections of tensors over that of the second."""
    assert one.keys() == other.keys()
    apart = sum(float((one[key] - other[key]).square().sum()) for key in one)
    return (apart / sum(float(tensor.square().sum()) for tensor in other.values())) ** 0.5
