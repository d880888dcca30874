"""Adapters of folds become one folder that scores: the mean of their weights, with its provenance and figures."""

import json
import shutil

import numpy as np
import pytest
import yaml

from lmsys_ensemble import ClassifierScorer
from lmsys_ensemble.config import read_config
from lmsys_ensemble.data.corpus import read_labelled
from lmsys_ensemble.errors import ConfigError, InputError, ModelError
from lmsys_ensemble.files import sha256_of, write_json
from lmsys_ensemble.merging.adapters import average_adapters
from lmsys_ensemble.merging.export import export_merged
from lmsys_ensemble.modeling.digests import describe_base_files
from lmsys_ensemble.modeling.recipe import describe_base, read_recipe, write_recipe
from lmsys_ensemble.probabilities import softmax
from lmsys_ensemble.schema import THREE_WAY
from tests.tiny import encode, make_battles, make_recipe, plain_logits, plain_model, save_adapter, save_base
from tests.training.synthetic import make_preferences

FILES = ("adapter_model.safetensors", "adapter_config.json")


def make_fold(base, folder, seed, *, rank=4, recipe=None, spread=0.2):
    """Save an adapter with recipe and scorer.yaml, as a training run leaves it."""
    save_adapter(base, folder, seed=seed, rank=rank, spread=spread)
    described = describe_base(base, base.name).model_dump()
    write_recipe(folder, make_recipe(**{"base_model": described, **(recipe or {})}), FILES)
    (folder / "scorer.yaml").write_text(yaml.safe_dump({"type": "llama", "model": str(base), "adapter": "."}))
    return folder


@pytest.fixture(scope="module")
def folds(checkpoints, tmp_path_factory):
    folder, base = tmp_path_factory.mktemp("folds"), checkpoints.base("llama")
    return [make_fold(base, folder / f"fold-{k}", k, rank=2 + k) for k in range(1, 4)]


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    path = tmp_path_factory.mktemp("labelled") / "held.parquet"
    make_preferences(24, 3).to_parquet(path)
    return path


@pytest.fixture(scope="module")
def merged(folds, labelled, tmp_path_factory):
    folder = tmp_path_factory.mktemp("merged") / "all"
    return folder, average_adapters(folds, folder, weights=[2, 1, 1], rows=[labelled], device="cpu")


def plain_mean(base, folds, weights):
    """Merge adapters by hand, with plain transformers and PEFT: the weighted mean of the merged models' weights."""
    models = [plain_model(base, adapter=fold, merge=True) for fold in folds]
    states = [model.state_dict() for model in models]
    mean = {
        name: sum(weight * state[name] for weight, state in zip(weights, states, strict=True)) for name in states[0]
    }
    models[0].load_state_dict(mean)
    return models[0]


def test_the_merged_adapter_scores_as_the_model_merged_by_hand(checkpoints, folds, merged):
    base, battles = checkpoints.base("llama"), make_battles(8)
    expected = plain_logits(plain_mean(base, folds, [0.5, 0.25, 0.25]), encode(battles).ids)
    with ClassifierScorer(str(base), adapter=str(merged[0]), device="cpu") as scorer:
        np.testing.assert_allclose(scorer.score(battles), expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_the_folder_is_a_scorer_with_golden_rows_and_the_hashes_of_its_parts(folds, merged):
    folder, done = merged
    ((scorer,), _, _) = read_config_of(folder)
    assert (type(scorer).__name__, scorer.name) == ("LlamaScorer", "all")
    assert str(folder) not in (folder / "scorer.yaml").read_text()
    recipe = read_recipe(folder)
    assert recipe.files.keys() == set(FILES)
    parts = recipe.training["merged_from"]
    assert [part["name"] for part in parts] == ["fold-1", "fold-2", "fold-3"]
    assert [part["weight"] for part in parts] == [0.5, 0.25, 0.25]
    assert [part["adapter_sha256"] for part in parts] == [sha256_of(fold / FILES[0]) for fold in folds]
    assert (done["rank"], done["lost"]) == (3 + 4 + 5, 0)
    assert len(json.loads((folder / "golden.json").read_text())["rows"]) == 5
    assert "| fold-2 | 0.2500 |" in (folder / "README.md").read_text()


def read_config_of(folder):
    config = folder.parent / "ensemble.yaml"
    config.write_text(yaml.safe_dump({"version": 1, "scorers": [f"{folder.name}/scorer.yaml"]}))
    return read_config(config)


def test_figures_compare_the_merged_adapter_with_the_average_of_probabilities(checkpoints, folds, merged, labelled):
    data, base = read_labelled([labelled], THREE_WAY), checkpoints.base("llama")
    ids = encode(data.battles).ids
    by_fold = [softmax(plain_logits(plain_model(base, adapter=fold), ids)) for fold in folds]
    averaged = np.average(by_fold, axis=0, weights=[2, 1, 1])
    together = softmax(plain_logits(plain_mean(base, folds, [0.5, 0.25, 0.25]), ids))
    figures = merged[1]["figures"]
    expected = [-np.log((data.labels * values).sum(axis=1)) for values in (*by_fold, averaged, together)]
    assert list(figures["log_loss"]) == ["fold-1", "fold-2", "fold-3", "probability average", "merged"]
    assert list(figures["log_loss"].values()) == pytest.approx([loss.mean() for loss in expected], abs=1e-4)
    assert figures["difference"] == pytest.approx((expected[4] - expected[3]).mean(), abs=2e-5)
    low, high = figures["difference_interval"]
    assert low < figures["difference"] < high
    assert figures["largest_difference"] == pytest.approx(np.abs(together - averaged).max(), abs=1e-4)
    right = [(values.argmax(axis=1) == data.labels.argmax(axis=1)).mean() for values in (*by_fold, averaged, together)]
    assert list(figures["accuracy"].values()) == pytest.approx(right, abs=1e-4)
    assert read_recipe(merged[0]).validation == figures


def test_a_merge_that_fails_leaves_nothing_behind(folds, tmp_path):
    folds = [shutil.copytree(fold, tmp_path / "folds" / fold.name) for fold in folds]
    (folds[2] / "golden.json").write_text('{"schema_version": 1, "dtype": "float32", "rows": []}')
    table = tmp_path / "held.parquet"
    make_preferences(4).to_parquet(table)
    with pytest.raises(ConfigError):
        average_adapters(folds, tmp_path / "out" / "all", rows=[table], device="cpu")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"max_tokens": 100}, "max_tokens is 160 and 100"),
        ({"template": {"name": "kaggle-gemma"}}, "template.name is 'turns' and 'kaggle-gemma'"),
        ({"truncation": "tail"}, "truncation is 'balanced' and 'tail'"),
        ({"head": {"layers": 3}}, "head.layers is None and 3"),
        ({"classes": ["model_a", "model_b"]}, r"classes is \['model_a', 'model_b', 'tie'\] and"),
    ],
)
def test_adapters_that_were_trained_differently_are_told_apart(checkpoints, folds, tmp_path, change, words):
    other = make_fold(checkpoints.base("llama"), tmp_path / "other", 5, recipe=change)
    with pytest.raises(ConfigError, match=words):
        average_adapters([folds[0], other], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_adapters_of_different_bases_are_told_apart(checkpoints, folds, tmp_path):
    other = make_fold(checkpoints.base("gemma2"), tmp_path / "other", 5)
    with pytest.raises(ConfigError, match=r"base_model.model_type is 'llama' and 'gemma2'"):
        average_adapters([folds[0], other], tmp_path / "out")


def test_bases_of_one_name_and_shape_are_told_apart_by_their_files(checkpoints, tmp_path):
    """What lies at the base's place may have changed since, too."""
    base = checkpoints.base("llama")
    changed = save_base("llama", tmp_path / base.name, initializer_range=0.1)
    one, two = (
        make_fold(base, tmp_path / f"fold-{k}", k, recipe={"training": describe_base_files(base)}) for k in (1, 2)
    )
    other = make_fold(changed, tmp_path / "other", 3, recipe={"training": describe_base_files(changed)})
    with pytest.raises(ConfigError, match=r"fold-1 and .*other cannot be merged: the files of their base models, both"):
        average_adapters([one, other], tmp_path / "out", device="cpu")
    with pytest.raises(ConfigError, match=r"llama-base is not the base model of .*fold-1: its files are not those"):
        average_adapters([one, two], tmp_path / "out", base=str(changed), device="cpu")
    (two / "scorer.yaml").write_text(yaml.safe_dump({"type": "llama", "model": str(changed), "adapter": "."}))
    with pytest.raises(ConfigError, match=r"llama-base is not the base model of .*fold-2: its files are not those"):
        export_merged(two, tmp_path / "out", device="cpu")
    assert not (tmp_path / "out").exists()
    average_adapters([one, two], tmp_path / "out", device="cpu")
    assert describe_base_files(base).items() <= read_recipe(tmp_path / "out").training.items()


def test_adapters_of_a_rounded_base_are_measured_and_loaded_with_it(checkpoints, folds, labelled, tmp_path):
    base, folds = checkpoints.base("llama"), [shutil.copytree(fold, tmp_path / fold.name) for fold in folds[:2]]
    settings = {"type": "llama", "model": str(base), "adapter": ".", "quantization": "nf4"}
    (folds[0] / "scorer.yaml").write_text(yaml.safe_dump(settings))
    with pytest.raises(ConfigError, match="quantization is 'nf4' and 'none'"):
        average_adapters(folds, tmp_path / "out", device="cpu")
    (folds[1] / "scorer.yaml").write_text(yaml.safe_dump(settings))
    done = average_adapters(folds, tmp_path / "out", rows=[labelled], device="cpu")
    assert yaml.safe_load((tmp_path / "out" / "scorer.yaml").read_text())["quantization"] == "nf4"
    assert json.loads((tmp_path / "out" / "golden.json").read_text())["dtype"] == "nf4"
    data = read_labelled([labelled], THREE_WAY)
    for adapter, name in ((folds[0], "fold-1"), (tmp_path / "out", "merged")):
        with ClassifierScorer(str(base), adapter=str(adapter), device="cpu", quantization="nf4") as scorer:
            losses = -np.log((data.labels * softmax(scorer.score(data.battles))).sum(axis=1))
        assert done["figures"]["log_loss"][name] == pytest.approx(losses.mean(), abs=1e-4)


def test_heads_of_different_shapes_are_told_apart_before_the_base_is_looked_for(checkpoints, folds, tmp_path):
    base = checkpoints.base("llama")
    other = save_adapter(base, tmp_path / "other", num_labels=2)
    shutil.copy(folds[0] / "recipe.json", other)
    recipe = json.loads((other / "recipe.json").read_text())
    write_json(other / "recipe.json", {**recipe, "files": {}})
    with pytest.raises(ModelError, match=r"score.weight is \(3, 64\) and \(2, 64\)"):
        average_adapters([folds[0], other], tmp_path / "out", base="nowhere")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"folders": 1}, "two or more different adapters"),
        ({"folders": 0}, "got none"),
        ({"weights": [1, 2]}, "3 adapters need 3 weights, got 2"),
        ({"weights": [1, 1, 0]}, "weights must be numbers above 0, got 0"),
        ({"weights": [1, 1, float("nan")]}, "weights must be numbers above 0, got nan"),
        ({"rank": 0}, "rank must be a whole number above 0, got 0"),
        ({"base": "nowhere"}, "Say with --base where the base model of"),
    ],
)
def test_wrong_arguments_are_named(folds, tmp_path, options, words):
    chosen = folds[: options.pop("folders", 3)]
    with pytest.raises(ConfigError, match=words):
        average_adapters(chosen, tmp_path / "out", device="cpu", **options)
    assert list(tmp_path.iterdir()) == []


def test_an_adapter_is_not_merged_into_itself_and_needs_a_recipe(checkpoints, folds, tmp_path):
    with pytest.raises(ConfigError, match="is one of the adapters to be merged"):
        average_adapters(folds, folds[0], overwrite=True)
    with pytest.raises(InputError, match="is not empty"):
        average_adapters(folds, folds[0])
    with pytest.raises(ConfigError, match=r"holds no recipe.json, which says .*import-checkpoint"):
        average_adapters([folds[0], checkpoints.adapter("llama")], tmp_path / "out")
    with pytest.raises(ModelError, match="there is no adapter folder"):
        average_adapters([folds[0], tmp_path / "absent"], tmp_path / "out")
