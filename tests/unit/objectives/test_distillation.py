"""Distillation: the divergence and its gradient are the formula's, and the student begins as its teacher's layers."""

from __future__ import annotations

import json

import pytest
import torch
from tests.builders import make_model, make_store
from tests.unit.objectives.hand_rows import framed, keyed, vocabulary
from torch.nn import functional

from pretextlm.errors import UserError
from pretextlm.model.loss import linear_divergence
from pretextlm.objectives.distillation import copy_layers
from pretextlm.objectives.registry import build
from pretextlm.training.pretrain import pretrain
from pretextlm.training.recipe import Recipe
from pretextlm.training.run_directory import Run
from pretextlm.training.run_start import build_model

V = vocabulary()


class TwoModels:
    """Student and teacher, without run directories."""

    def __init__(self, student, teacher):
        self.models = {"model": student, "teacher": teacher}

    def __call__(self, batch, role="model"):
        from pretextlm.model.model_inputs import prepare

        model = self.models[role]
        return model(prepare(batch, model.config, torch.device("cpu"), torch.float32))


def encoder(seed, **fields):
    return make_model(seed, architecture="encoder", vocab_size=V.size, **fields)


def distillation(**options):
    return build("distillation", {"teacher": "somewhere", **options})


def batch_of(objective):
    rows = framed(4, 30, V)
    return objective.collate(rows, V, keyed(rows))


@pytest.mark.parametrize("temperature", [1.0, 2.0, 5.0])
@pytest.mark.parametrize("softcaps", [(0.0, 0.0), (3.0, 2.0)])
@pytest.mark.parametrize("with_biases", [False, True])
def test_the_divergence_and_its_gradient_are_those_of_the_formula(temperature, softcaps, with_biases):
    generator = torch.Generator().manual_seed(0)
    hidden, wanted = (torch.randn(2100, width, generator=generator) for width in (16, 24))  # three chunks
    weight, teacher = (torch.randn(50, width, generator=generator) for width in (16, 24))
    hidden.requires_grad_()
    weight.requires_grad_()
    learned = [hidden, weight]
    biases = (None, None)
    if with_biases:
        biases = torch.randn(50, generator=generator, requires_grad=True), torch.randn(50, generator=generator)
        learned.append(biases[0])
    total = linear_divergence(hidden, weight, wanted, teacher, temperature, softcaps, *biases)
    found = torch.autograd.grad(3 * total, learned)

    def scores(states, table, softcap, bias):
        plain = states @ table.T + (0 if bias is None else bias)
        return (softcap * torch.tanh(plain / softcap) if softcap else plain) / temperature

    expected = temperature**2 * functional.kl_div(
        scores(hidden, weight, softcaps[0], biases[0]).log_softmax(1),
        scores(wanted, teacher, softcaps[1], biases[1]).log_softmax(1),
        reduction="sum",
        log_target=True,
    )
    assert total.item() == pytest.approx(expected.item(), rel=1e-5)
    for mine, theirs in zip(found, torch.autograd.grad(3 * expected, learned), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-3)


def test_a_student_equal_to_its_teacher_has_nothing_left_to_learn_from_it():
    objective = distillation()
    terms = objective.step(TwoModels(encoder(1), encoder(1)), batch_of(objective))
    assert terms["soft"].total.item() == pytest.approx(0, abs=1e-3)
    assert terms["cosine"].total.item() == pytest.approx(0, abs=1e-3)
    assert terms["lm"].total.item() > 1


@pytest.mark.parametrize("positions", ["all", "labelled"])
@pytest.mark.parametrize("bias", [False, True])
def test_the_terms_and_their_counts_by_hand(positions, bias):
    objective = distillation(positions=positions, temperature=3.0)
    batch = batch_of(objective)
    student, teacher = (encoder(seed, head={"bias": bias}) for seed in (1, 2))
    for model in (student, teacher) if bias else ():
        torch.nn.init.normal_(model.head_layers.bias, generator=torch.Generator().manual_seed(3))
    terms = objective.step(TwoModels(student, teacher), batch)
    assert {name: term.count for name, term in terms.items()} == objective.counts(batch)
    assert {name: term.coefficient for name, term in terms.items()} == {"lm": 2.0, "soft": 5.0, "cosine": 1.0}
    own, wanted = (TwoModels(student, teacher)(batch, role).hidden_BTD.flatten(0, 1) for role in ("model", "teacher"))
    at = torch.from_numpy((batch.labels.reshape(-1) != -100) | (positions == "all"))
    assert terms["soft"].count == int(at.sum())
    logs, soft = (m.logits(h[at]).div(3).log_softmax(1) for m, h in ((student, own), (teacher, wanted)))
    expected = 9 * functional.kl_div(logs, soft, reduction="sum", log_target=True)
    assert terms["soft"].total.item() == pytest.approx(expected.item(), rel=1e-4)
    angle = (1 - functional.cosine_similarity(own[at], wanted[at])).sum()
    assert terms["cosine"].total.item() == pytest.approx(angle.item(), rel=1e-5)


def test_no_gradient_reaches_the_teacher():
    objective = distillation()
    student, teacher = encoder(1), encoder(2)
    terms = objective.step(TwoModels(student, teacher), batch_of(objective))
    sum(term.total for term in terms.values()).backward()
    assert all(p.grad is None for p in teacher.parameters())
    assert all(p.grad is not None for p in student.parameters())


def test_a_weight_of_nought_leaves_a_term_out():
    objective = distillation(weight_hard=0.0, weight_cosine=0.0)
    batch = batch_of(objective)
    terms = objective.step(TwoModels(encoder(1), encoder(2, hidden_size=16, num_attention_heads=2)), batch)
    assert set(terms) == set(objective.counts(batch)) == {"soft"}


def test_the_student_begins_as_every_other_layer_of_its_teacher():
    teacher, student = encoder(1, num_hidden_layers=6), encoder(2, num_hidden_layers=3)
    copy_layers(teacher, student)
    assert torch.equal(student.embed_tokens.weight, teacher.embed_tokens.weight)
    for own, whose in enumerate((0, 2, 4)):
        for name, weight in student.encoder[own].state_dict().items():
            assert torch.equal(weight, teacher.encoder[whose].state_dict()[name])
    with pytest.raises(UserError, match="another shape"):
        copy_layers(teacher, encoder(2, hidden_size=16, num_attention_heads=2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"inner": {"name": "replaced_token"}}, "cannot be distilled"),
        ({"weight_soft": 0.0, "weight_hard": 0.0, "weight_cosine": 0.0}, "must be above 0"),
        ({"temperature": 0.0}, "temperature"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(options, message):
    with pytest.raises(UserError, match=message):
        distillation(**options)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("data") / "store")


def recipe(store, objective, layers, **training):
    return Recipe.load(
        {
            "data": {"store": str(store.path), "length": 64},
            "objective": objective,
            "model": {"hidden_size": 32, "num_hidden_layers": layers, "num_attention_heads": 2},
            "training": {"budget_steps": 5, "batch_tokens": 512, "dtype": "fp32", "validations": 2, **training},
        }
    )


@pytest.mark.slow
def test_a_run_is_distilled_from_another_and_is_a_run_without_its_teacher(store, tmp_path):
    teacher = pretrain(recipe(store, {"name": "masked"}, 4, budget_steps=30), tmp_path / "teacher")
    chosen = recipe(store, {"name": "distillation", "teacher": str(tmp_path / "teacher")}, 2)
    run = pretrain(chosen, tmp_path / "student")
    (first, *_, last) = [m for m in run.metrics() if m["kind"] == "validation"]
    untaught = recipe(store, {"name": "distillation", "teacher": str(tmp_path / "teacher"), "start": "random"}, 2)
    other = pretrain(untaught, tmp_path / "untaught").metrics()
    assert first["soft_loss"] < next(m for m in other if m["kind"] == "validation")["soft_loss"]
    assert last["loss"] < first["loss"]
    bare = build_model(recipe(store, {"name": "masked"}, 2).with_vocabulary(store.vocabulary), torch.device("cpu"))
    assert Run.open(tmp_path / "student").load_model().state_dict().keys() == bare.state_dict().keys()
    costs = [json.loads((r.directory / "cost.json").read_text()) for r in (teacher, run)]
    assert costs[1]["flops"] / costs[1]["steps"] > 0.5 * costs[0]["flops"] / costs[0]["steps"]


def test_a_teacher_that_is_missing_or_reads_other_tokens_is_refused_before_any_work(store, tmp_path):
    with pytest.raises(UserError, match="needs a teacher"):
        pretrain(recipe(store, {"name": "distillation"}, 2), tmp_path / "student")
    with pytest.raises(UserError, match="not a run directory"):
        pretrain(recipe(store, {"name": "distillation", "teacher": str(tmp_path / "no")}, 2), tmp_path / "student")
    other = make_store(tmp_path / "other", vocab_size=400)
    pretrain(recipe(other, {"name": "masked"}, 2, budget_steps=1), tmp_path / "foreign")
    chosen = recipe(store, {"name": "distillation", "teacher": str(tmp_path / "foreign")}, 2)
    with pytest.raises(UserError, match="another tokenizer"):
        pretrain(chosen, tmp_path / "student")
    assert not (tmp_path / "student").exists()
