"""What a recipe can ask for beside the least: each shows in what is learned."""

import bitsandbytes
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, TrainerCallback

from lmsys_ensemble.data.battles import parse_battles
from lmsys_ensemble.data.corpus import Labelled
from lmsys_ensemble.data.labels import parse_labels
from lmsys_ensemble.errors import InputError, ModelError
from lmsys_ensemble.modeling.forward import ForwardPass
from lmsys_ensemble.modeling.quantization import unpack_weights
from lmsys_ensemble.probabilities import softmax, swap_classes
from lmsys_ensemble.schema import THREE_WAY
from lmsys_ensemble.training import fit as fit_module
from lmsys_ensemble.training.dataset import encode_both_orders
from lmsys_ensemble.training.examples import Examples
from lmsys_ensemble.training.fit import fit_lora
from lmsys_ensemble.training.model import Trainee, trained_head
from lmsys_ensemble.training.trainer import AdapterTrainer, Data
from tests.tiny import PAD, encode, make_tokenizer, save_base
from tests.training.fitting import build, largest_difference, learned, make_examples, make_settings, recipe_of
from tests.training.synthetic import make_preferences

SPANS = {"pooling": "response_spans"}


def fit(checkpoints, examples=None, held=None, architecture="llama", wrapped=None, **changes):
    """Train a tiny model and return it with what is known of the run."""
    settings = make_settings(**{"head": SPANS, **changes})
    wrapped = wrapped or build(checkpoints, settings, architecture)
    return wrapped, fit_lora(wrapped, recipe_of(settings), settings, examples or make_examples(24), held=held)


class Interrupt(TrainerCallback):
    """Notes the kind of the optimiser, and ends the run at a step as Ctrl-C does."""

    def __init__(self, step=None):
        self.step, self.optimizer = step, None

    def on_step_end(self, args, state, control, optimizer=None, **_):
        self.optimizer = type(optimizer.optimizer)
        if state.global_step == self.step:
            raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("name", "kind"), [("adamw_torch", torch.optim.AdamW), ("adamw_8bit", bitsandbytes.optim.AdamW)]
)
def test_optimisers_learn_and_their_state_is_resumed(checkpoints, tmp_path, name, kind):
    settings = make_settings(
        head=SPANS, lora={"r": 64, "dropout": 0.2}, optimizer={"name": name, "epochs": 4, "learning_rate": 2e-3},
        checkpoint_steps=4,
    )  # fmt: skip
    models = []
    for steps in ([None], [6, None]):
        folder = tmp_path / str(len(steps))
        for step in steps:
            wrapped, watching = build(checkpoints, settings), Interrupt(step)
            arguments = {"folder": folder, "resume": True, "callbacks": [watching]}
            try:
                fitted = fit_lora(wrapped, recipe_of(settings), settings, make_examples(24), **arguments)
            except KeyboardInterrupt:
                assert step == 6
        models.append(learned(wrapped))
    assert issubclass(watching.optimizer, kind)
    assert fitted.n_steps == 12
    assert fitted.losses[-1] < fitted.losses[0]
    assert largest_difference(*models) == 0


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_a_quantised_base_is_trained_on(checkpoints, quantization):
    optimizer = {"epochs": 6, "learning_rate": 5e-3, "head_learning_rate": 1e-2}
    wrapped, fitted = fit(checkpoints, make_examples(48), quantization=quantization, optimizer=optimizer)
    kinds = {parameter.dtype for name, parameter in wrapped.named_parameters() if "base_layer" in name}
    assert kinds == {torch.uint8 if quantization == "nf4" else torch.int8}
    assert {parameter.dtype for parameter in wrapped.parameters() if parameter.requires_grad} == {torch.float32}
    assert fitted.losses[-1] < 0.9 * fitted.losses[0]


def test_four_bits_learn_what_plain_weights_of_the_same_values_learn(checkpoints):
    """The head's start and the measurements run in evaluation mode, in which bitsandbytes may lose gradients."""
    optimizer = {"head_l2": 0.1, "epochs": 2, "learning_rate": 1e-3}
    models = []
    for plain in (False, True):
        settings = make_settings(head=SPANS, quantization="nf4", optimizer=optimizer, evaluation={"per_epoch": 3})
        wrapped = build(checkpoints, settings)
        if plain:
            unpack_weights(wrapped, torch.float32)
        fit_lora(wrapped, recipe_of(settings), settings, make_examples(24), held=make_examples(8, seed=1))
        models.append(learned(wrapped))
    assert all(tensor.any() for name, tensor in models[0].items() if "lora_B" in name)
    assert largest_difference(*models) < 1e-4


def test_a_base_that_passes_no_gradients_on_ends_the_run_in_the_first_step(checkpoints):
    settings = make_settings(head=SPANS)
    wrapped = build(checkpoints, settings)
    wrapped.get_base_model().base_model.norm.register_forward_hook(lambda module, given, hidden: hidden.detach())
    with pytest.raises(ModelError, match=r"none of 32 LoRA weights got a gradient in step 1: the base model"):
        fit(checkpoints, wrapped=wrapped)


def test_a_base_that_is_stored_in_four_bits_is_trained_on(tmp_path):
    plain = save_base("llama", tmp_path / "plain")
    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32)
    packed = AutoModelForCausalLM.from_pretrained(plain, quantization_config=config)
    packed.save_pretrained(tmp_path / "packed")
    make_tokenizer().save_pretrained(tmp_path / "packed")

    class Folder:
        def base(self, _):
            return tmp_path / "packed"

    wrapped, fitted = fit(Folder(), optimizer={"epochs": 3, "learning_rate": 5e-3, "head_learning_rate": 1e-2})
    kinds = {parameter.dtype for name, parameter in wrapped.named_parameters() if "base_layer" in name}
    assert kinds == {torch.uint8}
    assert fitted.losses[-1] < fitted.losses[0]


def test_both_orders_make_the_model_consistent_under_a_swap(checkpoints):
    """The rows say that A always wins: only with both orders can the model not just say A."""
    table = make_preferences(80)
    table = table[table["winner"] == "model_a"].reset_index(drop=True)
    battles, labels = parse_battles(table), parse_labels(table)

    class Tokens:
        def encode(self, battles):
            return encode(battles, max_tokens=160)

    gaps = []
    for both in (False, True):
        names = np.array(["x"] * len(labels), dtype=object)
        data = Labelled(battles, labels, names, names)
        encoded, targets, rows = encode_both_orders(data, Tokens(), THREE_WAY, both)
        optimizer = {"epochs": 12 // (1 + both), "learning_rate": 5e-3, "head_learning_rate": 1e-2}
        wrapped, _ = fit(checkpoints, Examples(encoded, targets, np.ones(len(rows))), optimizer=optimizer)
        forward = ForwardPass(wrapped.get_base_model(), "response_spans", PAD)
        said, swapped = (
            softmax(forward.score(encode(each, max_tokens=160), 1000)) for each in (battles, battles.swapped())
        )
        gaps.append(float(np.abs(said - swap_classes(swapped, THREE_WAY)).mean()))
    assert gaps[0] > 0.3
    assert gaps[1] < 0.15


def test_training_stops_when_held_rows_get_no_better_and_the_best_weights_are_kept(checkpoints, tmp_path):
    """Held rows whose labels say the opposite: the first measurement is the best there is."""
    examples = make_examples(64)
    held = make_examples(30, seed=1)
    opposite = Examples(held.encoded, held.labels[:, [1, 0, 2]], held.weights)
    optimizer = {"epochs": 12, "learning_rate": 5e-3, "head_learning_rate": 2e-2, "rows_per_step": 32}
    evaluation = {"per_epoch": 1, "patience": 2}
    wrapped, fitted = fit(checkpoints, examples, opposite, optimizer=optimizer, evaluation=evaluation)
    losses = {row["step"]: row["held_log_loss"] for row in fitted.curve if "held_log_loss" in row}
    best = min(losses, key=losses.get)
    assert fitted.n_steps == best + 2 * 2 < 24
    assert fitted.kept_step == best
    logits = ForwardPass(wrapped.get_base_model(), "response_spans", PAD).score(held.encoded, 1000)
    measured = -(opposite.labels * np.log(softmax(logits))).sum(axis=1).mean()
    assert measured == pytest.approx(losses[best], abs=1e-5)
    _, patient = fit(checkpoints, examples, opposite, optimizer={**optimizer, "epochs": 3}, evaluation={"per_epoch": 1})
    assert patient.n_steps == patient.kept_step == 6


def test_measuring_changes_nothing_of_what_is_learned(checkpoints):
    changes = {"lora": {"dropout": 0.3}, "optimizer": {"epochs": 2}}
    silent, _ = fit(checkpoints, **changes)
    measured, fitted = fit(checkpoints, held=make_examples(9, seed=1), evaluation={"per_epoch": 3}, **changes)
    assert largest_difference(learned(measured), learned(silent)) == 0
    assert sum("held_log_loss" in row for row in fitted.curve) == 6


def test_a_run_that_had_stopped_when_it_was_killed_stays_stopped(checkpoints, tmp_path):
    """Killed behind the checkpoint of the measurement at which patience ran out; the last weights are the ones kept."""
    held = make_examples(30, seed=1)
    opposite = Examples(held.encoded, held.labels[:, [1, 0, 2]], held.weights)
    settings = make_settings(
        head=SPANS, evaluation={"per_epoch": 1, "patience": 2, "keep_best": False},
        optimizer={"epochs": 12, "learning_rate": 5e-3, "head_learning_rate": 2e-2, "rows_per_step": 32},
    )  # fmt: skip

    def run(folder, resume=False):
        wrapped, examples = build(checkpoints, settings), make_examples(64)
        return (
            learned(wrapped),
            fit_lora(wrapped, recipe_of(settings), settings, examples, held=opposite, folder=folder, resume=resume),
            learned(wrapped),
        )

    _, whole, weights = run(tmp_path)
    before, again, resumed = run(tmp_path, resume=True)
    assert whole.n_steps < 24
    assert again == whole
    assert largest_difference(resumed, weights) == 0
    assert largest_difference(before, weights) > 0


def test_examples_that_all_weigh_nothing_are_refused(checkpoints):
    with pytest.raises(InputError, match=r"all 24 examples have weight 0"):
        fit(checkpoints, make_examples(24, weights=np.zeros(24)))


def test_a_loss_that_is_no_number_ends_the_run_with_the_cure(checkpoints):
    settings = make_settings(head=SPANS)
    wrapped = build(checkpoints, settings)
    with torch.no_grad():
        trained_head(wrapped.get_base_model()).weight.fill_(float("inf"))
    with pytest.raises(ModelError, match=r"the loss of step 1 is not finite. Lower optimizer\.learning_rate"):
        fit(checkpoints, wrapped=wrapped)


def test_steps_whose_float16_gradients_overflow_are_left_out_until_they_do_not(checkpoints, monkeypatch):
    """A scale far above what float16 holds: the first steps change nothing, then the scale has come down."""
    scaler = torch.amp.GradScaler
    monkeypatch.setattr(torch.amp, "GradScaler", lambda device: scaler(device, init_scale=2.0**40))
    norms = []
    clip = AdapterTrainer._clip_grad_norm

    def note(self, model):
        norms.append(float(clip(self, model)))
        return torch.tensor(norms[-1])

    monkeypatch.setattr(AdapterTrainer, "_clip_grad_norm", note)
    optimizer = {"epochs": 8, "learning_rate": 5e-3, "rows_per_step": 2}
    wrapped, fitted = fit(checkpoints, make_examples(8), autocast="float16", optimizer=optimizer)
    finite = np.isfinite(norms)
    assert not finite[0]
    assert finite[-1]
    assert all(torch.isfinite(tensor).all() for tensor in learned(wrapped).values())
    assert np.isfinite([row["loss"] for row in fitted.curve]).all()


def test_gradients_that_never_stop_to_overflow_end_the_run(checkpoints, monkeypatch):
    scaler = torch.amp.GradScaler
    monkeypatch.setattr(torch.amp, "GradScaler", lambda device: scaler(device, init_scale=2.0**120))
    with pytest.raises(ModelError, match=r"not finite in 26 steps .* set autocast to float32 or bfloat16"):
        fit(checkpoints, make_examples(8), autocast="float16", optimizer={"epochs": 8, "rows_per_step": 2})


def test_held_rows_are_measured_as_inference_scores_them(checkpoints):
    settings = make_settings(head=SPANS)
    wrapped = build(checkpoints, settings)
    held = make_examples(10, seed=2)
    trainee = Trainee(wrapped, recipe_of(settings), settings)
    arguments = fit_module.training_arguments(settings, checkpoints.folder, 1, cpu=True, measures=True, saves=False)
    trainer = AdapterTrainer(trainee, arguments, settings, Data(held), lambda *_: None, Data(held))
    expected = ForwardPass(wrapped.eval().get_base_model(), "response_spans", PAD).score(held.encoded, 1000)
    np.testing.assert_allclose(trainer.score_held(), expected, atol=1e-5)
