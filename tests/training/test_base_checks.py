import json
import warnings

import pytest
from transformers import BertConfig, DebertaV2Config, GPT2Config, OPTConfig, RobertaConfig

from lmsys_ensemble.errors import ConfigError
from lmsys_ensemble.modeling.skeleton import empty_classifier
from lmsys_ensemble.training import train
from lmsys_ensemble.training.base_checks import PositionWarning, check_positions, check_type, position_table
from lmsys_ensemble.training.settings import TrainSettings
from tests.tiny import make_config, make_recipe
from tests.training.test_run import write_inputs

SHAPE = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 40}
ENCODER = {**SHAPE, "intermediate_size": 32, "max_position_embeddings": 66}
CONFIGS = {
    "llama": (make_config("llama", max_position_embeddings=66), None),
    "gemma3": (make_config("gemma3", max_position_embeddings=66), None),
    "modernbert": (make_config("modernbert", max_position_embeddings=66), None),
    "deberta": (DebertaV2Config(**ENCODER, relative_attention=True, position_biased_input=False), None),
    "bert": (BertConfig(**ENCODER), 66),
    "roberta": (RobertaConfig(**ENCODER, pad_token_id=1), 64),  # two positions are kept for padding
    "gpt2": (GPT2Config(n_embd=32, n_layer=1, n_head=2, vocab_size=40, n_positions=66), 66),
    "opt": (OPTConfig(**SHAPE, ffn_dim=32, max_position_embeddings=66, word_embed_proj_dim=32), 66),
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_rows_longer_than_learned_positions_are_refused_and_rotary_ones_warned_of(tmp_path, kind):
    config, table = CONFIGS[kind]
    config.save_pretrained(tmp_path)
    limit = table or 66
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_positions(make_recipe(max_tokens=limit), tmp_path)
    longer = make_recipe(max_tokens=limit + 1)
    assert position_table(empty_classifier(tmp_path, longer)) == table
    if kind == "deberta":
        check_positions(longer, tmp_path)
    elif table:
        with pytest.raises(
            ConfigError, match=rf"max_tokens is {limit + 1}, but .* has embeddings of {limit} positions"
        ):
            check_positions(longer, tmp_path)
    else:
        with pytest.warns(PositionWarning, match=r"max_tokens is 67, but tiny was made for 66 positions"):
            check_positions(longer, tmp_path)


def test_a_scorer_that_does_not_take_the_base_is_told_before_the_data_are_read(checkpoints, tmp_path):
    recipe = write_inputs(tmp_path, checkpoints.base("llama"), scorer="gemma")
    (tmp_path / "one.parquet").unlink()
    with pytest.raises(
        ConfigError, match=r"scorer is 'gemma', which takes gemma, gemma2.* a 'llama' model. Set scorer: ll"
    ):
        train(recipe, output=tmp_path / "trained", device="cpu")


@pytest.mark.parametrize(
    ("scorer", "kind", "cure"), [("llama", "gemma3_text", "gemma"), ("gemma", "bert", "classifier")]
)
def test_the_cure_names_a_scorer_that_takes_the_base(tmp_path, scorer, kind, cure):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    values = {"name": "x", "base_model": "any"}
    with pytest.raises(ConfigError, match=rf"is a '{kind}' model. Set scorer: {cure}$"):
        check_type(TrainSettings.model_validate({**values, "scorer": scorer}), tmp_path)
    for fits in (cure, "classifier"):
        check_type(TrainSettings.model_validate({**values, "scorer": fits}), tmp_path)
