import numpy as np
import pytest

from lmsys_ensemble.errors import ModelError
from lmsys_ensemble.modeling.choices import CONTENT_FREE, assemble_choices, content_free_prior, log_answers
from lmsys_ensemble.modeling.settings import ComputeSettings
from lmsys_ensemble.probabilities import softmax
from tests.language_models import (
    KINDS,
    make_encoder,
    plain_answers,
    save_language_adapter,
    save_language_model,
)
from tests.tiny import make_battles


@pytest.fixture(scope="module")
def language_model(tmp_path_factory):
    folder, made = tmp_path_factory.mktemp("language"), {}

    def make(kind):
        if kind not in made:
            made[kind] = save_language_model(kind, folder / kind.replace(" ", "-"))
        return made[kind]

    return make


def score(base, encoder, battles, *, adapter=None, **settings):
    compute = ComputeSettings(device="cpu", **settings)
    forward = assemble_choices(base, compute, encoder.label_ids, adapter=adapter)
    return forward, forward.score(encoder.encode(battles), 400)


@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_those_of_plain_transformers_that_computes_the_whole_vocabulary(language_model, kind):
    base, battles = language_model(kind), make_battles(5)
    encoder = make_encoder(base)
    expected = plain_answers(base, encoder.encode(battles).ids, encoder.label_ids)
    assert expected.std() > 0.1
    forward, logits = score(base, encoder, battles)
    assert "packed" in forward.layout
    np.testing.assert_allclose(logits, expected, atol=1e-5)
    padded, logits = score(base, encoder, battles, attn_implementation="eager")
    assert padded.layout == "padded"
    np.testing.assert_allclose(logits, expected, atol=1e-5)


@pytest.mark.parametrize("merge", [True, False])
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("llama tied", {}),
        ("gemma2 untied", {"target_modules": ["q_proj", "lm_head"]}),
        ("qwen2 untied", {"modules_to_save": ["lm_head"]}),
    ],
    ids=["layers", "output matrix, too", "output matrix anew"],
)
def test_an_adapter_changes_layers_and_output_as_peft_has_it(language_model, tmp_path, kind, options, merge):
    base, battles = language_model(kind), make_battles(3)
    adapter = save_language_adapter(base, tmp_path / "adapter", **options)
    encoder = make_encoder(base)
    ids = encoder.encode(battles).ids
    expected = plain_answers(base, ids, encoder.label_ids, adapter=adapter)
    assert np.abs(expected - plain_answers(base, ids, encoder.label_ids)).max() > 0.05
    _, logits = score(base, encoder, battles, adapter=adapter, merge=merge)
    np.testing.assert_allclose(logits, expected, atol=1e-5)


def test_an_update_of_a_tied_output_matrix_leaves_the_embeddings_alone(language_model, tmp_path, recwarn):
    base, battles = language_model("llama tied"), make_battles(2)
    adapter = save_language_adapter(base, tmp_path / "adapter", target_modules=["q_proj", "lm_head"])
    encoder = make_encoder(base)
    expected = plain_answers(base, encoder.encode(battles).ids, encoder.label_ids, adapter=adapter)
    _, logits = score(base, encoder, battles, adapter=adapter)
    np.testing.assert_allclose(logits, expected, atol=1e-5)
    with pytest.raises(ModelError, match="merge=True would change embeddings and output, which are one"):
        score(base, encoder, battles, adapter=adapter, merge=True)


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_quantised_layers_leave_the_output_matrix_whole(language_model, quantization):
    base, battles = language_model("llama untied"), make_battles(3)
    encoder = make_encoder(base)
    whole, expected = score(base, encoder, battles)
    forward, logits = score(base, encoder, battles, quantization=quantization)
    assert (forward.model.score.weight == whole.model.score.weight).all()
    difference = np.abs(softmax(logits) - softmax(expected)).max()
    assert 0 < difference < 0.2


def test_answers_are_renormalised_over_the_labels_of_their_question():
    logits = np.array([[0, 1, 2, 3], [5, 5, 5, 9], [1, 1, 1, 1], [0, 0, 0, np.nan]], dtype=np.float32)
    answers = log_answers(logits, np.array([[0, 1], [3, 2]]))
    assert answers.shape == (2, 2, 2)
    np.testing.assert_allclose(np.exp(answers[0, 0]), softmax([[0, 1]])[0])
    np.testing.assert_allclose(np.exp(answers[0, 1]), softmax([[9, 5]])[0])
    np.testing.assert_allclose(np.exp(answers[1, 0]), [0.5, 0.5])
    assert np.isnan(answers[1, 1]).all()


def test_the_prior_is_the_mean_answer_without_content(language_model):
    base = language_model("llama tied")
    encoder = make_encoder(base)
    forward = assemble_choices(base, ComputeSettings(device="cpu"), encoder.label_ids)
    prior = content_free_prior(forward, encoder)
    one_by_one = []
    for text in CONTENT_FREE:
        battles = make_battles(1)
        for column in (battles.prompts, battles.responses_a, battles.responses_b):
            column[0] = (text,)
        logits = plain_answers(base, encoder.encode(battles).ids, encoder.label_ids)
        one_by_one.append(
            [softmax(row[None, columns])[0] for row, columns in zip(logits, encoder.columns, strict=True)]
        )
    np.testing.assert_allclose(np.exp(prior), np.mean(one_by_one, axis=0), atol=1e-6)
    np.testing.assert_allclose(np.exp(prior).sum(axis=1), 1)
