"""Learning from teachers: what each term asks of the student, and whose rows are whose."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional

from lmsys_ensemble.data.battles import Battles, parse_battles
from lmsys_ensemble.data.corpus import Labelled
from lmsys_ensemble.data.labels import parse_labels
from lmsys_ensemble.errors import ConfigError, InputError
from lmsys_ensemble.files import sha256_of
from lmsys_ensemble.modeling.recipe import read_recipe
from lmsys_ensemble.probabilities import softmax, swap_classes
from lmsys_ensemble.schema import THREE_WAY, TWO_WAY
from lmsys_ensemble.scorers.llama import LlamaScorer
from lmsys_ensemble.training import SeenRowsWarning, kfold, train
from lmsys_ensemble.training import adapter as adapter_module
from lmsys_ensemble.training.distillation import Distillation, Teachers, read_teachers, recipe_objective
from lmsys_ensemble.training.examples import CrossEntropy, Examples
from lmsys_ensemble.training.model import Trainee
from lmsys_ensemble.training.teacher_settings import DistillationSettings
from lmsys_ensemble.training.trainer import Data
from tests.training.fitting import build, gradients, make_examples, make_settings, recipe_of, relative_difference
from tests.training.staged import LEARNS, TABLE, write

N_ROWS = 6
ALL = np.arange(N_ROWS)
GENERATOR = np.random.default_rng(0)
LOGITS = GENERATOR.normal(size=(N_ROWS, 3))
HARD = np.eye(3)[[0, 1, 2, 2, 1, 0]]
WEIGHTS = np.array([1.0, 2.0, 0.5, 1.0, 3.0, 1.0])
BY_CLASS = np.array([1.0, 3.0, 0.25])
SAID = GENERATOR.normal(size=(N_ROWS, 2, 3), scale=2)
"""Logits of two teachers."""
SHARES = np.array([0.25, 0.75])


def make_teachers(logits=SAID, shares=SHARES):
    return Teachers(logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True)), np.asarray(shares))


def make_chosen(**values):
    return DistillationSettings.model_validate({"teachers": [{"file": "a.csv"}, {"file": "b.csv"}], **values})


def loss_and_gradient(teachers, chosen, labels=HARD, weights=WEIGHTS, parts=(ALL,), **options):
    """Return the loss of a step that is computed in parts, and its gradient in the logits."""
    logits = torch.tensor(LOGITS, dtype=torch.float32, requires_grad=True)
    objective = Distillation(labels, weights, teachers, chosen, **options)
    total = sum(objective(logits[rows], logits[rows], rows) for rows in parts) / (N_ROWS * objective.mean_weight)
    total.backward()
    return float(total.detach()), logits.grad.numpy()


@pytest.mark.parametrize("by_class", [None, BY_CLASS])
@pytest.mark.parametrize("term", ["kl", "soft"])
@pytest.mark.parametrize("mean", ["probabilities", "logits"])
def test_a_teacher_that_says_what_hard_labels_do_gives_the_same_gradient(term, mean, by_class):
    teachers = Teachers(np.log(np.maximum(HARD, 1e-15))[:, None], np.ones(1))
    loss, found = loss_and_gradient(teachers, make_chosen(terms={term: 3.0}, mean=mean), by_class=by_class)
    logits = torch.tensor(LOGITS, dtype=torch.float32, requires_grad=True)
    objective = CrossEntropy(HARD, WEIGHTS, by_class)
    expected = objective(logits, logits, ALL) / (N_ROWS * objective.mean_weight)
    expected.backward()
    np.testing.assert_allclose(found, logits.grad.numpy(), atol=1e-6)
    assert loss == pytest.approx(float(expected.detach()), abs=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
@pytest.mark.parametrize("mean", ["probabilities", "logits"])
def test_the_gradient_of_the_divergence_as_computed_by_hand(temperature, mean):
    """T**2 times (q - p) / T, for the teachers' mean p and the student's q at the temperature T."""
    if mean == "probabilities":
        target = sum(share * softmax(SAID[:, k], temperature) for k, share in enumerate(SHARES))
    else:
        target = softmax(np.einsum("k,nkc->nc", SHARES, SAID), temperature)
    said = softmax(LOGITS, temperature)
    expected = WEIGHTS[:, None] * temperature * (said - target) / WEIGHTS.sum()
    chosen = {"temperature": temperature, "mean": mean}
    loss, found = loss_and_gradient(make_teachers(), make_chosen(terms={"kl": 1}, **chosen))
    np.testing.assert_allclose(found, expected, atol=1e-6)
    divergence = temperature**2 * (target * np.log(target / said)).sum(axis=1)
    assert loss == pytest.approx((WEIGHTS * divergence).sum() / WEIGHTS.sum(), abs=1e-5)
    soft, same = loss_and_gradient(make_teachers(), make_chosen(terms={"soft": 1}, **chosen))
    np.testing.assert_allclose(same, found, atol=1e-6)
    entropy = -(temperature**2) * (target * np.log(target)).sum(axis=1)
    assert soft - loss == pytest.approx((WEIGHTS * entropy).sum() / WEIGHTS.sum(), abs=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_the_gradient_of_the_cosine_as_computed_by_hand(temperature):
    """For a unit vector u and what the student says, s: -(u - (u s / |s|) s / |s|) / |s|, mean over teachers."""
    units = softmax(SAID.reshape(-1, 3), temperature).reshape(SAID.shape)
    units /= np.linalg.norm(units, axis=-1, keepdims=True)
    said = softmax(LOGITS, temperature)
    expected = np.zeros_like(LOGITS)
    for row, share in np.ndindex(N_ROWS, 2):
        length = np.linalg.norm(said[row])
        unit, own = units[row, share], said[row] / length
        outer = -(unit - (unit @ own) * own) / length
        jacobian = (np.diag(said[row]) - np.outer(said[row], said[row])) / temperature
        expected[row] += SHARES[share] * jacobian @ outer * WEIGHTS[row] / WEIGHTS.sum()
    chosen = make_chosen(terms={"cosine": 1}, temperature=temperature)
    np.testing.assert_allclose(loss_and_gradient(make_teachers(), chosen)[1], expected, atol=1e-6)


def test_the_cosine_of_logits_sees_neither_their_sum_nor_their_size():
    chosen = make_chosen(terms={"cosine": 1}, cosine_of="logits", temperature=5.0)
    same = Teachers((LOGITS * 4 + 7)[:, None], np.ones(1))
    loss, found = loss_and_gradient(same, chosen)
    assert loss == pytest.approx(0, abs=1e-6)
    np.testing.assert_allclose(found, 0, atol=1e-6)
    assert loss_and_gradient(Teachers(-LOGITS[:, None], np.ones(1)), chosen)[0] == pytest.approx(2, abs=1e-6)


def test_the_default_is_the_loss_of_the_winners():
    """A divergence and a cosine of probabilities for each of two teachers, beside the cross-entropy, over five."""
    logits = torch.tensor(LOGITS, dtype=torch.float32, requires_grad=True)
    expected = functional.cross_entropy(logits, torch.tensor(HARD.argmax(axis=1)))
    ones = torch.ones(N_ROWS)
    for k in range(2):
        taught = torch.softmax(torch.tensor(SAID[:, k], dtype=torch.float32), dim=1)
        expected = expected + functional.kl_div(torch.log_softmax(logits, dim=1), taught, reduction="batchmean")
        expected = expected + functional.cosine_embedding_loss(taught, torch.softmax(logits, dim=1), ones)
    (expected / 5).backward()
    teachers = make_teachers(shares=[0.5, 0.5])
    _, found = loss_and_gradient(teachers, make_chosen(), weights=np.ones(N_ROWS))
    np.testing.assert_allclose(found, logits.grad.numpy(), atol=1e-6)


def test_the_hard_term_is_smoothed_and_weighted_as_without_teachers():
    options = {"by_class": BY_CLASS, "smoothing": 0.2}
    loss, found = loss_and_gradient(make_teachers(), make_chosen(terms={"hard": 2}), **options)
    logits = torch.tensor(LOGITS, dtype=torch.float32, requires_grad=True)
    objective = CrossEntropy(HARD, WEIGHTS, BY_CLASS, 0.2)
    expected = objective(logits, logits, ALL) / (N_ROWS * objective.mean_weight)
    expected.backward()
    assert loss == pytest.approx(float(expected.detach()), abs=1e-6)
    np.testing.assert_allclose(found, logits.grad.numpy(), atol=1e-6)


def test_terms_add_up_by_their_weights():
    terms = {"hard": 1.0, "soft": 0.5, "kl": 2.0, "cosine": 0.25}
    chosen = {"temperature": 2.0}
    alone = {name: loss_and_gradient(make_teachers(), make_chosen(terms={name: 1}, **chosen)) for name in terms}
    loss, found = loss_and_gradient(make_teachers(), make_chosen(terms=terms, **chosen))
    assert loss == pytest.approx(sum(terms[name] * alone[name][0] for name in terms) / 3.75, abs=1e-6)
    np.testing.assert_allclose(found, sum(terms[name] * alone[name][1] for name in terms) / 3.75, atol=1e-6)


def test_uneven_batches_give_the_gradient_of_one(checkpoints):
    chosen = make_chosen(temperature=2.0)
    whole = loss_and_gradient(make_teachers(), chosen)
    parted = loss_and_gradient(make_teachers(), chosen, parts=(ALL[:1], ALL[1:5], ALL[5:]))
    assert whole[0] == pytest.approx(parted[0], abs=1e-6)
    np.testing.assert_allclose(whole[1], parted[1], atol=1e-6)
    settings = make_settings()
    trainee = Trainee(build(checkpoints, settings), recipe_of(settings), settings)
    examples = make_examples(N_ROWS, weights=WEIGHTS)
    objective = Distillation(examples.labels, WEIGHTS, make_teachers(), chosen)
    one = gradients(trainee, Data(examples), objective, [ALL])
    many = gradients(trainee, Data(examples), objective, [ALL[:1], ALL[1:5], ALL[5:]])
    assert relative_difference(many, one) < 1e-5


def make_labelled(ids):
    texts = [("x",)] * len(ids)
    names = np.array(["x"] * len(ids), dtype=object)
    return Labelled(Battles(pd.Index(ids), texts, texts, texts), HARD[: len(ids)], names, names)


def table_of(values, ids, task=THREE_WAY):
    return pd.DataFrame(dict(zip(task.columns, values.T, strict=True)), index=pd.Index(ids, name="id")).reset_index()


@pytest.fixture
def files(tmp_path):
    """Write two teachers, one of probabilities, one of logits, whose rows are in another order and are more."""
    ids = [9, 5, 4, 3, 2, 1, 0]
    spare = np.array([[1.0, 2.0, 3.0]])
    table_of(np.concatenate([softmax(spare), softmax(SAID[::-1, 0])]), ids).to_csv(tmp_path / "a.csv", index=False)
    table_of(np.concatenate([spare, SAID[::-1, 1]]), ids).to_parquet(tmp_path / "b.parquet")
    return [
        {"file": str(tmp_path / "a.csv")},
        {"file": str(tmp_path / "b.parquet"), "values": "logits", "weight": 3.0},
    ]


def test_teachers_are_matched_to_rows_by_id(files):
    teachers = read_teachers(make_chosen(teachers=files), make_labelled(range(N_ROWS)), THREE_WAY)
    np.testing.assert_allclose(teachers.log_probabilities, make_teachers().log_probabilities, atol=1e-9)
    np.testing.assert_allclose(teachers.weights, SHARES)
    fewer = read_teachers(make_chosen(teachers=files), make_labelled([4, 1]), THREE_WAY)
    np.testing.assert_allclose(fewer.log_probabilities, make_teachers().log_probabilities[[4, 1]], atol=1e-9)


@pytest.mark.parametrize("both", [True, False])
def test_rows_in_both_orders_have_targets_in_both_orders(files, both):
    settings = make_settings(distillation={"teachers": files, "terms": {"soft": 1}}, swap_augmentation=both)
    make = recipe_objective(settings, make_labelled(range(N_ROWS)))
    labels = np.concatenate([HARD, swap_classes(HARD, THREE_WAY)]) if both else HARD
    objective = make(Examples(None, labels, np.tile(WEIGHTS, 1 + both)), None)
    target = sum(share * softmax(SAID[:, k]) for k, share in enumerate(SHARES))
    for rows, expected in ((ALL, target), (ALL + N_ROWS, swap_classes(target, THREE_WAY)))[: 1 + both]:
        logits = torch.zeros(N_ROWS, 3, requires_grad=True)
        objective(logits, logits, rows).backward()
        np.testing.assert_allclose(logits.grad.numpy(), WEIGHTS[:, None] * (1 / 3 - expected), atol=1e-6)


def test_without_teachers_there_is_no_other_loss():
    assert recipe_objective(make_settings(), make_labelled([0])) is None


@pytest.mark.parametrize(
    ("table", "task", "message"),
    [
        (table_of(HARD, ALL)[["id", *THREE_WAY.columns[:2]]], THREE_WAY, r"a\.csv lacks the columns winner_tie"),
        (table_of(HARD, ALL), TWO_WAY, r"a\.csv has a column winner_tie, but the recipe has 2 classes"),
        (table_of(HARD, ALL).drop(columns="id"), THREE_WAY, r"a\.csv lacks the columns id"),
        (table_of(HARD[:4], ALL[:4]), THREE_WAY, r"no probabilities for 2 of 6 ids: 4, 5\. .*predict the missing ones"),
        (table_of(HARD, [f"x{row}" for row in ALL]), THREE_WAY, "those of the rows that are learned from int64"),
        (table_of(HARD, [0, 0, 1, 2, 3, 4]), THREE_WAY, "1 ids occur more than once"),
        (table_of(HARD * 2, ALL), THREE_WAY, r"does not sum to 1; logits must go through softmax"),
    ],
)
def test_a_teacher_that_does_not_fit_is_refused_with_the_cure(tmp_path, table, task, message):
    table.to_csv(tmp_path / "a.csv", index=False)
    chosen = make_chosen(teachers=[{"file": str(tmp_path / "a.csv")}])
    with pytest.raises(InputError, match=message):
        read_teachers(chosen, make_labelled(range(N_ROWS)), task)


@pytest.mark.parametrize(
    ("values", "message"),
    [(np.where(HARD > 0, np.inf, 0.0), "6 of 6 rows are not finite: row 0, id 0"), (HARD, "every row sums to 1")],
)
def test_what_is_no_table_of_logits_is_refused(tmp_path, values, message):
    table_of(values, ALL).to_parquet(tmp_path / "a.parquet")
    chosen = make_chosen(teachers=[{"file": str(tmp_path / "a.parquet"), "values": "logits"}])
    with pytest.raises(InputError, match=message):
        read_teachers(chosen, make_labelled(range(N_ROWS)), THREE_WAY)


TEACHER = "teacher.csv"

SCORE = """
import sys
import numpy as np
import tests.tiny
from lmsys_ensemble.data.battles import parse_battles
from lmsys_ensemble.scorers.llama import LlamaScorer

base, adapter, table, output = sys.argv[1:]
with LlamaScorer(base, adapter=adapter, device="cpu") as scorer:
    np.save(output, scorer.score(parse_battles(table)))
"""


def taught(folder):
    """Write a teacher that is no friend of the labels: where they say A it says B, softly; return what it says."""
    said = 0.8 * swap_classes(parse_labels(TABLE), THREE_WAY) + 0.2 / 3
    TABLE[["id"]].assign(**dict(zip(THREE_WAY.columns, said.T, strict=True))).to_csv(folder / TEACHER, index=False)
    return said


def divergence(said, base, adapter):
    with LlamaScorer(str(base), adapter=str(adapter), device="cpu") as scorer:
        probabilities = softmax(scorer.score(parse_battles(TABLE)))
    return float((said * np.log(said / probabilities)).sum(axis=1).mean())


@pytest.fixture(scope="module")
def distilled(checkpoints, tmp_path_factory):
    """Train a student, once not at all and once on what a teacher says; returns the folder."""
    folder = tmp_path_factory.mktemp("distilled")
    base = checkpoints.base("llama")
    taught(folder)
    asked = {"teachers": [{"file": TEACHER}], "terms": {"kl": 1}, "temperature": 2.0}
    train(write(folder, base, "before.yaml"), output=folder / "before", device="cpu")
    path = write(folder, base, distillation=asked, optimizer=LEARNS)
    train(path, output=folder / "student", device="cpu")
    return folder


def test_a_student_learns_what_its_teacher_says_and_not_what_the_labels_do(distilled, checkpoints):
    base, said = checkpoints.base("llama"), taught(distilled)
    before, after = (divergence(said, base, distilled / name) for name in ("before", "student"))
    assert after < 0.5 * before
    losses = read_recipe(distilled / "student").training["losses"]
    assert losses[-1] < 0.5 * losses[0]
    log_loss = read_recipe(distilled / "student").validation["all"]["log_loss"]
    assert log_loss > read_recipe(distilled / "before").validation["all"]["log_loss"]


def test_the_student_scores_in_a_new_process_as_it_was_measured(distilled, checkpoints):
    base, adapter = checkpoints.base("llama"), distilled / "student"
    root = Path(__file__).parents[2]
    arguments = [str(base), str(adapter), str(distilled / "train.csv"), str(distilled / "logits.npy")]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    subprocess.run([sys.executable, "-c", SCORE, *arguments], check=True, cwd=root, env=environment, timeout=300)
    said, logits = taught(distilled), np.load(distilled / "logits.npy")
    found = float((said * np.log(said / softmax(logits))).sum(axis=1).mean())
    assert found == pytest.approx(divergence(said, base, adapter), abs=1e-5)


def test_what_is_recorded_names_the_teacher_its_hash_and_no_path(distilled):
    training = read_recipe(distilled / "student").training
    assert training["settings"]["distillation"]["teachers"] == [
        {"file": TEACHER, "values": "probabilities", "weight": 1.0, "unseen": False}
    ]
    assert training["inputs"] == {"teachers_sha256": [sha256_of(distilled / TEACHER)]}
    assert "inputs" not in read_recipe(distilled / "before").training
    card = (distilled / "student" / "README.md").read_text()
    assert f"- distilled from `{TEACHER}`: 1 kl, at temperature 2" in card
    for path in (distilled / "student").iterdir():
        assert str(distilled).encode() not in path.read_bytes()


def test_a_run_is_not_resumed_with_another_teacher(distilled, tmp_path):
    copy = shutil.copytree(distilled, tmp_path / "copy")
    train(copy / "train.yaml", output=copy / "student", device="cpu", resume=True)
    with (copy / TEACHER).open("a") as file:
        file.write("1000,1,0,0\n")
    with pytest.raises(ConfigError, match=r"is of another run: inputs\.teachers_sha256"):
        train(copy / "train.yaml", output=copy / "student", device="cpu", resume=True)


@pytest.mark.parametrize("run", [train, kfold])
@pytest.mark.parametrize(
    ("file", "error", "message"),
    [
        ("no.csv", ConfigError, r"teachers' files are not there: .*no\.csv; .*--data FOLDER"),
        ("few.csv", InputError, r"few\.csv has no probabilities for .* predict the missing ones"),
    ],
)
def test_a_teacher_that_lacks_rows_is_told_before_weights_are_loaded(
    checkpoints, tmp_path, monkeypatch, run, file, error, message
):
    said = {"winner_model_a": 1.0, "winner_model_b": 0.0, "winner_tie": 0.0}
    TABLE.head(20)[["id"]].assign(**said).to_csv(tmp_path / "few.csv", index=False)
    monkeypatch.setattr(adapter_module, "build_model", lambda *_: pytest.fail("loaded the weights first"))
    path = write(tmp_path, checkpoints.base("llama"), distillation={"teachers": [{"file": file}]})
    with pytest.raises(error, match=message):
        run(path, output=tmp_path / "student", device="cpu")


def test_folds_are_taught_and_are_not_gone_on_with_by_another_teacher(checkpoints, tmp_path):
    taught(tmp_path)
    optimizer = {**LEARNS, "epochs": 1}
    asked = {"teachers": [{"file": TEACHER}], "terms": {"kl": 1}}
    path = write(tmp_path, checkpoints.base("llama"), distillation=asked, optimizer=optimizer)
    with pytest.warns(SeenRowsWarning, match=r"teacher\.csv: no column 'fold' says that .* set unseen: true"):
        trained = kfold(path, n_splits=2, output=tmp_path / "folds", device="cpu")
    assert trained.finished == (1, 2)
    assert read_recipe(tmp_path / "folds" / "fold-1").training["inputs"] == {
        "teachers_sha256": [sha256_of(tmp_path / TEACHER)]
    }
    assert str(tmp_path).encode() not in (tmp_path / "folds" / "folds.json").read_bytes()
    with (tmp_path / TEACHER).open("a") as file:
        file.write("1000,1,0,0\n")
    path = write(
        tmp_path, checkpoints.base("llama"), optimizer=optimizer,
        distillation={**asked, "teachers": [{"file": TEACHER, "unseen": True}]},
    )  # fmt: skip
    with pytest.raises(ConfigError, match=r"is of another run: inputs\.teachers_sha256"):
        kfold(path, n_splits=2, output=tmp_path / "folds", device="cpu")
