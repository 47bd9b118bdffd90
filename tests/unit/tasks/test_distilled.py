"""Tasks learnt from a fine-tuned teacher: its answers count by the formula, and its classes are the same."""

from __future__ import annotations

import shutil

import pytest
import torch
from tests.builders import sentences
from tests.unit.tasks.test_text_tasks import gradients
from torch.nn import functional

from pretextlm.errors import UserError
from pretextlm.evaluation.task_evaluation import evaluate_task
from pretextlm.training.corpus import open_corpus
from pretextlm.training.distributed import SINGLE_PROCESS
from pretextlm.training.plan import make_loader, make_plan
from pretextlm.training.pretrain import pretrain
from pretextlm.training.progress import Silent
from pretextlm.training.recipe import Recipe
from pretextlm.training.run_directory import Run
from pretextlm.training.run_setup import set_up
from pretextlm.training.runtime import Runtime
from pretextlm.training.trainer import Trainer

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
TEXTS = sentences(40)
SIDES = [{"text": text, "label": ["left", "right"][n % 2]} for n, text in enumerate(TEXTS)]
TAGS = [{"tokens": t.split(), "tags": ["B-A" if w[0].isupper() else "O" for w in t.split()]} for t in TEXTS]
KINDS = {"text_classification": (SIDES, "class"), "token_classification": (TAGS, "tag")}


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture
def taught(recipe, written, tmp_path):
    """(recipe of a student, run of its teacher)."""

    def make(kind, records=None, **task):
        place = written(KINDS[kind][0])
        teacher = pretrain(recipe({"name": kind}, place, learning_rate=1e-2), tmp_path / "teacher")
        student = {"name": kind, "teacher": str(teacher.directory), **task}
        return recipe(student, written(records, "student.jsonl") if records else place), teacher

    return make


def test_the_loss_is_that_of_the_labels_and_the_divergence_from_the_teacher(taught, tmp_path, kind):
    chosen, teacher = taught(kind, temperature=3.0, weight_soft=0.7, weight_hard=0.2)
    chosen, corpus = open_corpus(chosen)
    plan = make_plan(chosen, corpus, CPU)
    trainer = Trainer(Run(tmp_path, chosen), corpus, plan, Runtime.choose(chosen.training, 0.0), Silent())
    theirs = Run.open(teacher.directory).load_model()
    assert torch.equal(theirs.heads["task"].out.weight, trainer.forward.models["teacher"].heads["task"].out.weight)
    task = chosen.training_objective
    with torch.no_grad():  # heads as initialised answer almost evenly: their divergence is near the rounding of fp32
        for role, seed in (("model", 1), ("teacher", 2)):
            out = trainer.forward.models[role].heads["task"].out
            out.weight += 8 * torch.randn(out.weight.shape, generator=torch.Generator().manual_seed(seed))
    with make_loader(chosen, corpus, None) as loader:
        (batch,) = loader.step(0, plan.rows, plan.micro_rows)
    terms = task.step(trainer.forward, batch)
    trainer.close()
    own, wanted = (task.class_scores(trainer.forward(batch, role), batch).double() for role in ("model", "teacher"))
    expected = 9 * functional.kl_div((own / 3).log_softmax(1), (wanted / 3).softmax(1), reduction="sum")
    name = KINDS[kind][1]
    assert expected > 1  # far above the rounding of its few hundred terms of size 1, some 1e-5
    assert terms["soft"].total.item() == pytest.approx(expected.item(), rel=1e-5, abs=0)
    assert {key: term.coefficient for key, term in terms.items()} == {name: 0.2, "soft": 0.7}
    assert {key: term.count for key, term in terms.items()} == task.counts(batch)
    alone = task.at_evaluation().step(trainer.forward, batch)
    assert list(alone) == [name]
    assert alone[name].total.item() == pytest.approx(terms[name].total.item(), rel=1e-5)


def test_a_step_has_one_gradient_however_it_is_cut(taught, tmp_path, kind):
    chosen, _ = taught(kind)
    whole_loss, whole = gradients(chosen, 8, tmp_path)
    assert set(whole_loss) == {KINDS[kind][1], "soft"}
    scale = max(float(g.abs().max()) for g in whole.values())
    for rows in (1, 3):
        loss, cut = gradients(chosen, rows, tmp_path)
        assert loss == pytest.approx(whole_loss, rel=1e-5, abs=1e-9)
        assert all(torch.allclose(cut[n], g, rtol=0, atol=2e-6 * scale) for n, g in whole.items())


def test_a_student_is_scored_when_its_teacher_is_gone(taught, tmp_path, kind):
    chosen, teacher = taught(kind)
    run = pretrain(chosen, tmp_path / "student")
    assert {"soft_loss", f"{KINDS[kind][1]}_loss"} <= set(run.metrics()[-1])
    shutil.rmtree(teacher.directory)
    assert evaluate_task(Run.open(run.directory))["settings"]["records"] == 40


def test_a_teacher_of_other_classes_or_another_task_is_refused(taught, recipe, written, start):
    other = [{**record, "label": record["label"].replace("left", "up")} for record in SIDES]
    chosen, teacher = taught("text_classification", other)
    with pytest.raises(UserError, match="has the labels left, right; the task has right, up"):
        set_up(chosen, SINGLE_PROCESS)
    tags = {"name": "token_classification", "teacher": str(teacher.directory)}
    with pytest.raises(UserError, match="not for the task 'token_classification'"):
        set_up(recipe(tags, written(TAGS)), SINGLE_PROCESS)
    with pytest.raises(UserError, match="was trained by 'masked'"):
        set_up(recipe({"name": "text_classification", "teacher": str(start)}, written(SIDES)), SINGLE_PROCESS)


def test_a_teacher_with_too_short_a_table_of_positions_is_refused(taught):
    chosen, teacher = taught("text_classification")
    short = Run.open(teacher.directory).recipe.dump()
    short["model"]["positions"] |= {"kind": "learned", "max_position_embeddings": 32}
    Run(teacher.directory, Recipe.load(short)).update()
    with pytest.raises(UserError, match=r"the teacher .* has a table of 32 positions"):
        set_up(chosen, SINGLE_PROCESS)
