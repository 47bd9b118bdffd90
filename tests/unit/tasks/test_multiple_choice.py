"""Multiple choice: the loss is each example's own over its choices, however many it has and whatever is beside it."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.builders import make_store, sentences

from pretextlm.batch import Batch
from pretextlm.data.examples import ExampleReader
from pretextlm.errors import UserError
from pretextlm.evaluation.task_evaluation import evaluate_task, predictions
from pretextlm.model.model_inputs import prepare
from pretextlm.tasks.multiple_choice import MultipleChoice
from pretextlm.tasks.registry import build
from pretextlm.training.corpus import open_corpus
from pretextlm.training.pretrain import pretrain
from pretextlm.training.recipe import Recipe
from pretextlm.training.run_directory import Run
from pretextlm.training.run_start import build_model

CPU = torch.device("cpu")
A, B = sentences(12, seed=1), sentences(60, seed=2)
SIZES = [2 + n % 4 for n in range(12)]
GIVEN = [B[5 * n : 5 * n + size] for n, size in enumerate(SIZES)]
RIGHT = [n % size for n, size in enumerate(SIZES)]
RECORDS = [{"premise": a, "choices": b, "answer": right} for a, b, right in zip(A, GIVEN, RIGHT, strict=True)]
TASK = {
    "name": "multiple_choice",
    "text": "premise",
    "label": "answer",
    "label_names": ["0", "1", "2", "3", "4"],
}


def opened(recipe):
    recipe, corpus = open_corpus(recipe)
    return recipe, corpus, build_model(recipe, CPU).eval()


def said(recipe, corpus, model, numbers=None):
    """(batch, scores of its choices, terms) of some examples in one pass."""
    numbers = np.arange(len(corpus.train)) if numbers is None else np.asarray(numbers)
    rows = ExampleReader(corpus.train).read(numbers, np.zeros_like(numbers), 0)
    batch = recipe.training_objective.collate(rows, recipe.vocabulary(corpus), None)
    outputs = model(prepare(batch, model.config, CPU, torch.float32))
    return (
        batch,
        recipe.training_objective.class_scores(outputs, batch),
        recipe.training_objective.terms(outputs, batch),
    )


def alone(recipe, corpus, model, index):
    """(K,) scores of an example's choices, each read by itself from the tokens that the examples have of it."""
    examples = corpus.train
    span = slice(*examples.offsets[index : index + 2])
    tokens, types, texts = examples.tokens[span], examples.types[span], examples.texts[span]
    found = []
    for one in range(texts.max() + 1):
        inside = texts == one
        decoder = model.config.architecture == "decoder"
        batch = Batch(
            input_ids=tokens[inside][None],
            token_type_ids=types[inside][None],
            attention="causal" if decoder else "bidirectional",
        )
        hidden_TD = model(prepare(batch, model.config, CPU, torch.float32)).hidden_BTD[0]
        found.append(model.heads["task"](hidden_TD[-1 if decoder else 0])[0])
    return torch.stack(found)


@pytest.fixture(params=["encoder", "decoder"])
def drawn(request, recipe, written, tmp_path):
    """(recipe, corpus, model) of an encoder that is started from, and of a decoder from scratch."""
    if request.param == "encoder":
        return opened(recipe(TASK, written(RECORDS)))
    place = written(RECORDS)
    values = {
        "data": {"train": place, "validation": place, "length": 48, "tokenizer": str(make_store(tmp_path / "s").path)},
        "task": TASK,
        "model": {"architecture": "decoder", "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2},
        "training": {"budget_steps": 2, "batch_rows": 4, "dtype": "fp32", "compile": "off"},
    }
    return opened(Recipe.load(values))


def test_the_loss_is_the_sum_of_each_examples_own_over_its_choices(drawn):
    recipe, corpus, model = drawn
    batch, scores, terms = said(*drawn)
    expected = [alone(recipe, corpus, model, index) for index in range(12)]
    for index, own in enumerate(expected):
        assert torch.allclose(scores[index, : SIZES[index]], own, atol=1e-5)
        assert (scores[index, SIZES[index] :] == -1e30).all()
    term = terms["choice"]
    losses = [-own.log_softmax(0)[right] for own, right in zip(expected, RIGHT, strict=True)]
    assert recipe.training_objective.counts(batch) == {"choice": 12} == {"choice": term.count}
    assert term.total.item() == pytest.approx(sum(losses).item(), rel=1e-5)
    assert term.correct.item() == sum(own.argmax().item() == r for own, r in zip(expected, RIGHT, strict=True))


def test_an_example_of_two_choices_is_the_same_beside_one_of_five(drawn):
    both, few = said(*drawn, numbers=[0, 3])[1], said(*drawn, numbers=[0])[1]
    assert few.shape == (1, 2)
    assert torch.allclose(both[0, :2], few[0], atol=1e-5)


def test_choices_in_another_order_have_their_scores_in_that_order(recipe, written):
    turned = [{**r, "choices": r["choices"][::-1], "answer": len(r["choices"]) - 1 - r["answer"]} for r in RECORDS]
    (_, first, one), (_, second, other) = (
        said(*opened(recipe(TASK, written(records, name))))
        for records, name in ((RECORDS, "a.jsonl"), (turned, "b.jsonl"))
    )
    for index, size in enumerate(SIZES):
        assert torch.allclose(first[index, :size], second[index, :size].flip(0), atol=1e-6)
    assert one["choice"].total.item() == pytest.approx(other["choice"].total.item(), rel=1e-6)


class Told(MultipleChoice):
    """Whose scores are what the model returns."""

    def head_scores(self, outputs, batch):
        return outputs[:, None]


ragged = st.lists(st.lists(st.floats(-8, 8, width=32), min_size=2, max_size=6), min_size=1, max_size=12)


@given(ragged, st.randoms(use_true_random=False))
def test_ragged_scores_have_the_cross_entropy_and_the_answers_of_each_by_itself(scores, random):
    labels = [random.randrange(len(one)) for one in scores]
    flat = torch.tensor([score for one in scores for score in one], requires_grad=True)
    batch = Batch(input_ids=None, row_labels=np.array([[a, len(b)] for a, b in zip(labels, scores)], np.int32))
    term = Told().terms(flat, batch)["choice"]
    own = torch.cat([flat[None, a:b] for a, b in _spans(scores)], 1)  # keeps the graph
    expected = sum(-own[0, a:b].log_softmax(0)[label] for (a, b), label in zip(_spans(scores), labels))
    torch.testing.assert_close(term.total, expected, rtol=1e-5, atol=1e-6)
    found, wanted = (torch.autograd.grad(loss, flat, retain_graph=True)[0] for loss in (term.total, expected))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)
    chances = Told().predict(flat.detach(), batch)
    assert np.allclose(chances, torch.cat([torch.tensor(one).softmax(0) for one in scores]), atol=1e-6)


@given(ragged)
def test_a_teachers_answers_are_compared_choice_by_choice(scores):
    flat = torch.tensor([score for one in scores for score in one])
    batch = Batch(input_ids=None, row_labels=np.array([[0, len(one)] for one in scores], np.int32))
    terms = Told(teacher="runs/large").step(lambda batch, role="model": -flat if role == "teacher" else flat, batch)
    expected = 0.0
    for a, b in _spans(scores):
        student, teacher = (flat[a:b] / 2).log_softmax(0), (-flat[a:b] / 2).log_softmax(0)
        expected += 4 * (teacher.exp() * (teacher - student)).sum().item()
    assert terms["soft"].total.item() == pytest.approx(expected, rel=1e-3, abs=1e-4)
    assert terms["soft"].count == terms["choice"].count == len(scores)


def _spans(scores):
    ends = np.cumsum([len(one) for one in scores]).tolist()
    return list(zip([0, *ends[:-1]], ends, strict=True))


def test_a_text_of_columns_and_words_and_a_choice_in_its_place(recipe, written):
    records = [
        {"premise": "I ran.", "asks_for": why, "start": "They", "1": "saw it.", "2": "left.", "label": "B"}
        for why in ("cause", "effect")
    ]
    task = {
        **TASK,
        "text": "{premise} {asks_for}",
        "text_pair": "{start} {choice}",
        "wording": {"asks_for": {"cause": "What was the cause?", "effect": "What happened then?"}},
        "choices": "1,2",
        "label": "label",
        "label_names": ["A", "B"],
    }
    whole, corpus = open_corpus(recipe(task, written(records)))
    from pretextlm.data.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(corpus.path / "tokenizer.json")
    examples, known = corpus.train, whole.vocabulary(corpus)
    expected = [
        f"I ran. {why}{end}"
        for why in ("What was the cause?", "What happened then?")
        for end in ("They saw it.", "They left.")
    ]
    starts = np.flatnonzero(examples.tokens == known.cls)
    read = [tokenizer.decode(part.tolist()) for part in np.split(examples.tokens, starts[1:])]
    assert [text.replace(" ", "") for text in read] == [text.replace(" ", "") for text in expected]
    assert examples.labels.tolist() == [[1, 2], [1, 2]]


def test_a_long_text_loses_the_same_tokens_before_all_choices_and_no_choice_is_cut(recipe, written):
    records = [{"premise": "The river. " * 40, "choices": ["A law.", "A law of the river."], "answer": 0}] * 2
    whole, corpus = open_corpus(recipe(TASK, written(records)))
    examples, sep = corpus.train, whole.vocabulary(corpus).sep
    first = slice(0, int(examples.offsets[1]))
    parts = [examples.tokens[first][examples.texts[first] == one].tolist() for one in (0, 1)]
    assert len(parts[1]) == 48
    contexts = [part[: part.index(sep)] for part in parts]
    assert contexts[0] == contexts[1]


def test_answers_are_the_names_that_each_record_gives_its_choices(recipe, written, tmp_path):
    letters = [{**r, "names": list("abcde"[: len(r["choices"])]), "answer": "abcde"[r["answer"]]} for r in RECORDS]
    task = {**TASK, "label_names": "names"}
    run = pretrain(recipe(task, written(letters), batch_rows=4), tmp_path / "run")
    again = Run.open(run.directory)
    assert again.recipe.training_objective.label_names == "names"
    found = evaluate_task(again)
    assert found["metrics"]["accuracy"]["n"] == 12
    lines = [json.loads(line) for line in (run.directory / "predictions.jsonl").read_text().splitlines()]
    assert [line["wanted"] for line in lines] == [record["answer"] for record in letters]
    corpus = open_corpus(again.recipe)[1]
    chances = predictions(again.load_model(), again.recipe.training_objective, corpus.train, again)
    best = [int(np.argmax(chances[a:b])) for a, b in _spans(GIVEN)]
    assert [line["answer"] for line in lines] == ["abcde"[place] for place in best]


def test_other_columns_can_be_named_when_a_run_is_evaluated(recipe, written, tmp_path):
    run = pretrain(recipe(TASK, written(RECORDS)), tmp_path / "run")
    two = [
        {"t": r["premise"], "x": r["choices"][0], "y": r["choices"][1], "right": 1 + n % 2}
        for n, r in enumerate(RECORDS)
    ]
    place = written(two, "two.jsonl")
    found = evaluate_task(run, f"{place}?text=t&choices=x,y&label=right&label_names=1,2")
    assert found["metrics"]["accuracy"]["n"] == 12


@pytest.mark.slow
def test_it_learns_which_choice_is_right(recipe, written, tmp_path):
    chosen = recipe(TASK, written(RECORDS), batch_rows=12, budget_steps=60, learning_rate=3e-3, validations=0)
    run = pretrain(chosen, tmp_path / "run")
    assert evaluate_task(run)["metrics"]["accuracy"]["value"] > 0.9


GOOD = RECORDS[0]


@pytest.mark.parametrize(
    ("record", "task", "told"),
    [
        ({**GOOD, "choices": ["one"]}, {}, "line 13: the column 'choices' has 1 choice."),
        ({**GOOD, "choices": []}, {}, "line 13: the column 'choices' has 0 choices."),
        ({**GOOD, "choices": ["one", " "]}, {}, "line 13: choice 2 of 2 is empty"),
        ({**GOOD, "choices": ["one", None]}, {}, "line 13: the column 'choices' is null"),
        ({**GOOD, "answer": 2}, {}, "line 13: the label '2' is none of its choices 0, 1"),
        ({**GOOD, "answer": None}, {}, "line 13: the column 'answer' is null"),
        ({**GOOD, "premise": ""}, {}, "line 13: the column 'premise' is empty"),
        ({**GOOD, "choices": ["a"] * 6}, {}, "line 13: there are 6 choices, and task.label_names has 5 names"),
        ({**GOOD, "choices": ["a", "river " * 60]}, {}, "leaves no room for a text"),
        (GOOD, {"label_names": []}, "does not name the choices as the column 'answer' does"),
        (GOOD, {"choices": ["one", "two"]}, "line 1: no column 'one'"),
        (GOOD, {"label_names": "names"}, "line 1: no column 'names'"),
        (GOOD, {"wording": {"premise": {"x": "y"}}}, "line 1: the column 'premise' is"),
    ],
)
def test_wrong_records_are_refused_by_file_and_row(recipe, written, record, task, told):
    with pytest.raises(UserError) as caught:
        open_corpus(recipe({**TASK, **task}, written([*RECORDS, record])))
    assert told in caught.value.message


def test_names_of_a_record_that_do_not_fit_its_choices_are_refused(recipe, written):
    records = [{**r, "names": list("abcde"[: len(r["choices"])]), "answer": "a"} for r in RECORDS]
    records[4]["names"] = ["a", "a"]
    with pytest.raises(UserError, match="line 5: there are 2 choices, and their names are a, a"):
        open_corpus(recipe({**TASK, "label_names": "names"}, written(records)))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"text_pair": "{premise}"}, "does not name {choice}"),
        ({"choices": ["one"]}, "at least two columns"),
        ({"choices": "one,one"}, "a name occurs twice"),
        ({"text": "{a!r}"}, "a brace holds the name of a column"),
        ({"text": "{{a}}"}, "names no column"),
        (
            {"wording": {"other": {"a": "b"}}},
            "'wording' in task 'multiple_choice': there are words for the column 'other'",
        ),
        ({"wording": {"choice": {"a": "b"}}}, "not for a choice"),
        ({"marks": [{"of": "text_pair", "start": "a", "end": "b"}]}, "not for a choice"),
    ],
)
def test_options_that_say_nothing_are_refused(options, told):
    with pytest.raises(UserError) as caught:
        build("multiple_choice", options)
    assert told in caught.value.message
