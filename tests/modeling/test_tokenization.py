from lmsys_ensemble.encoding import tokens
from lmsys_ensemble.modeling.tokenization import make_encoder
from tests.tiny import make_recipe


def test_a_tokenizer_that_was_read_for_one_encoder_is_not_copied(checkpoints, monkeypatch):
    base = checkpoints.base("llama")
    monkeypatch.setattr(tokens, "copy", None)
    assert make_encoder(base, make_recipe()).max_tokens == make_recipe().max_tokens
