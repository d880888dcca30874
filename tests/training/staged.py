"""What tests of runs that stand on others share: a small recipe, and the rows that it learns from."""

import yaml

from tests.training.synthetic import make_preferences

SETTINGS = {
    "version": 1,
    "name": "student",
    "scorer": "llama",
    "data": {"files": ["train.csv"], "holdout": {"default": 0.2}},
    "max_tokens": 120,
    "head": {"pooling": "response_spans", "layers": 2},
    "lora": {"r": 4, "alpha": 8, "dropout": 0.0, "target_modules": ["q_proj", "v_proj"]},
    "optimizer": {"head_l2": 0.01, "epochs": 0, "learning_rate": 5.0e-3, "head_learning_rate": 1.0e-2},
    "autocast": "float32",
}
LEARNS = {**SETTINGS["optimizer"], "epochs": 6, "rows_per_step": 16}
TABLE = make_preferences(80)


def write(folder, base, name="train.yaml", **changes):
    """Write the data and a recipe, and return the recipe's path."""
    TABLE.to_csv(folder / "train.csv", index=False)
    (folder / name).write_text(yaml.safe_dump({**SETTINGS, "base_model": str(base), **changes}))
    return folder / name
