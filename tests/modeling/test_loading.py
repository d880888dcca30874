import json
import threading

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from lmsys_ensemble.errors import ConfigError, IntegrityError, ModelError
from lmsys_ensemble.modeling.assembly import assemble
from lmsys_ensemble.modeling.loading import LoadSettings, load_classifier, load_tokenizer
from lmsys_ensemble.modeling.settings import ComputeSettings
from tests.tiny import encode, make_battles, make_recipe, make_tokenizer, plain_logits, plain_model, save_classifier

FLOAT32 = LoadSettings(3, "cpu", torch.float32)


def load(folder, settings=FLOAT32, *, head_follows=False):
    return load_classifier(folder, settings, head_follows=head_follows)


def edit_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def edit_weights(folder, change):
    path = folder / "model.safetensors"
    weights = load_file(path)
    change(weights)
    save_file(weights, path, metadata={"format": "pt"})


def test_code_of_a_checkpoint_is_refused_before_anything_is_read(folder):
    edit_config(folder, auto_map={"AutoModelForSequenceClassification": "modeling.Mine"})
    (folder / "modeling.py").write_text("raise SystemExit('this must never run')")
    with pytest.raises(ModelError, match=r"auto_map.*never run.*delete the entry"):
        load(folder)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "pytorch_model.pt"])
def test_pickled_weights_are_refused_with_the_cure(folder, name):
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / name)
    with pytest.raises(ModelError, match=rf"{name} are pickles, which can run code.*save_pretrained"):
        load(folder)


@pytest.mark.parametrize("kept", [4, 500, -1])
def test_a_file_cut_short_is_named(folder, kept):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(IntegrityError, match=r"model\.safetensors is damaged or cut short.*again"):
        load(folder)


def test_a_lost_shard_is_named(checkpoints, tmp_path):
    plain_model(checkpoints.classifier("llama")).save_pretrained(tmp_path, max_shard_size="60KB")
    shards = sorted(tmp_path.glob("*.safetensors"))
    assert len(shards) > 1
    shards[-1].unlink()
    with pytest.raises(IntegrityError, match=rf"lacks {shards[-1].name}, which model\.safetensors\.index\.json lists"):
        load(tmp_path)


def test_a_folder_that_is_no_model_says_so(tmp_path):
    with pytest.raises(ModelError, match=r"holds no config\.json"):
        load(tmp_path)


def test_missing_weights_are_listed_and_never_made_up(folder):
    lost = ["model.layers.1.mlp.up_proj.weight", "model.layers.2.self_attn.q_proj.weight"]
    edit_weights(folder, lambda weights: [weights.pop(name) for name in lost])
    with pytest.raises(ModelError, match=rf"lacks 2 weights: {lost[0]}, {lost[1]}"):
        load(folder, head_follows=True)


def test_a_base_without_a_head_needs_an_adapter(checkpoints):
    with pytest.raises(ModelError, match=r"lacks 1 weights: score\.weight; it has no trained .*head: give adapter="):
        load(checkpoints.base("llama"))
    assert load(checkpoints.base("llama"), head_follows=True).score.out_features == 3


def test_a_head_for_another_number_of_classes_is_refused(tmp_path):
    folder = save_classifier("llama", tmp_path, num_labels=2)
    with pytest.raises(ModelError, match=r"another shape.*score\.weight"):
        load(folder)


def test_weights_of_another_shape_are_listed(folder):
    edit_config(folder, intermediate_size=192)
    with pytest.raises(ModelError, match=r"another shape.*mlp\.down_proj\.weight"):
        load(folder, head_follows=True)


def test_lora_weights_in_a_base_checkpoint_are_not_dropped_silently(folder):
    name = "model.layers.0.self_attn.q_proj.lora_A.weight"
    edit_weights(folder, lambda weights: weights.update({name: torch.ones(4, 64)}))
    with pytest.raises(ModelError, match=rf"no place for: {name}"):
        load(folder)


def test_more_layers_than_there_are_is_refused(checkpoints):
    with pytest.raises(ConfigError, match="has 4 layers, 5 are asked for"):
        load(checkpoints.classifier("llama"), LoadSettings(3, "cpu", torch.float32, n_layers=5))


def test_an_unknown_quantization_is_refused(checkpoints):
    with pytest.raises(ConfigError, match="unknown quantization 'int4'; known: none, nf4, int8"):
        load(checkpoints.classifier("llama"), LoadSettings(3, "cpu", torch.float32, quantization="int4"))


def test_soft_capping_is_honoured_or_switched_off_but_never_ignored(checkpoints):
    base, encoded = checkpoints.classifier("gemma2"), encode(make_battles(4))
    capped = plain_logits(plain_model(base), encoded.ids)
    free = plain_logits(plain_model(base, attn_logit_softcapping=None), encoded.ids)
    assert np.abs(capped - free).max() > 0.05
    for attention in ("auto", "eager"):
        for soft_capping, expected in ((True, capped), (False, free)):
            recipe = make_recipe(soft_capping=soft_capping)
            forward = assemble(base, recipe, ComputeSettings(device="cpu", attn_implementation=attention), adapter=None)
            np.testing.assert_allclose(forward.score(encoded, 500), expected, atol=1e-5)
    with pytest.raises(ConfigError, match=r"'sdpa' ignores Gemma-2's soft-capping .*use 'eager'"):
        assemble(base, make_recipe(), ComputeSettings(device="cpu", attn_implementation="sdpa"), adapter=None)


@pytest.mark.parametrize("attention", ["sdpa", "flash_attention_2", "no_such_kernel"])
def test_attention_that_the_model_does_not_have_is_refused_with_the_cure(checkpoints, attention):
    recipe = make_recipe(soft_capping=False)
    with pytest.raises(ConfigError, match=rf"attn_implementation='{attention}': .*Leave it at 'auto'"):
        assemble(
            checkpoints.classifier("gemma2"),
            recipe,
            ComputeSettings(device="cpu", attn_implementation=attention),
            adapter=None,
        )


def test_models_built_in_threads_while_another_scores_are_those_of_a_serial_run(checkpoints):
    """`from_pretrained` changes torch's default dtype for the whole process (fault 28)."""
    encoded = encode(make_battles(4))
    kinds = [("llama", "float32"), ("gemma2", "bfloat16"), ("llama", "bfloat16"), ("gemma3", "float32")]

    def build(architecture, dtype):
        adapter = checkpoints.adapter(architecture)
        return assemble(
            checkpoints.base(architecture), make_recipe(), ComputeSettings(device="cpu", dtype=dtype), adapter=adapter
        )

    def describe(forward):
        dtypes = [(name, tensor.dtype) for name, tensor in forward.model.named_parameters()]
        return dtypes, forward.score(encoded, 400)

    serial = [describe(build(*kind)) for kind in kinds]
    scoring = build("gemma2", "float32")
    alone = scoring.score(encoded, 400)
    together, meanwhile, errors = {}, [], []
    busy = threading.Event()

    def work(position):
        torch.set_num_threads(1)
        try:
            for attempt in range(5):
                together[position, attempt] = describe(build(*kinds[position]))
        except BaseException as error:
            errors.append(error)

    def score():
        torch.set_num_threads(1)
        while not busy.is_set():
            meanwhile.append(scoring.score(encoded, 400))

    threads = [threading.Thread(target=work, args=(position,)) for position in range(len(kinds))]
    scorer = threading.Thread(target=score)
    for thread in (scorer, *threads):
        thread.start()
    for thread in threads:
        thread.join()
    busy.set()
    scorer.join()

    assert not errors
    assert torch.get_default_dtype() == torch.float32
    assert len(together) == 5 * len(kinds)
    for (position, _), (dtypes, logits) in together.items():
        assert dtypes == serial[position][0]
        np.testing.assert_allclose(logits, serial[position][1], atol=1e-6)
    assert meanwhile
    for logits in meanwhile:
        np.testing.assert_allclose(logits, alone, atol=1e-6)


def test_a_folder_without_a_fast_tokenizer_is_refused(folder):
    assert load_tokenizer(folder).get_vocab() == make_tokenizer().get_vocab()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    with pytest.raises(ModelError, match="tokenizer"):
        load_tokenizer(folder)
