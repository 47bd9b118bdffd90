"""Answers are stretches of the text: from characters to tokens of a window, and back to the same characters."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.builders import sentences

from pretextlm.data.offset_mapping import OffsetTokenizer
from pretextlm.data.records import read_records
from pretextlm.errors import UserError
from pretextlm.evaluation.task_evaluation import predictions
from pretextlm.tasks.question_answering import QuestionAnswering
from pretextlm.training.run_directory import Run


def record(text, start, end, question="Who carries the letters?"):
    return {"question": question, "context": text, "answers": {"text": [text[start:end]], "answer_start": [start]}}


def examples_of(task, start, file, length=32):
    run = Run.open(start)
    encoder = OffsetTokenizer(run.tokenizer, run.vocabulary)
    records = task.filter_records(read_records(file, task.columns()))
    return task.examples(records, encoder, run.recipe.model, length), encoder, records


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
@given(st.integers(0, 50), st.integers(1, 6), st.data())
def test_an_answer_of_whole_words_comes_back_to_the_character_from_every_window_that_holds_it(
    start, written, seed, n, data
):
    text = " ".join(sentences(n, seed))
    words = [i for i, c in enumerate(text) if i == 0 or text[i - 1] == " "]
    first = data.draw(st.integers(0, len(words) - 1))
    last = data.draw(st.integers(first, min(first + 2, len(words) - 1)))
    end = text.find(" ", words[last])
    file = written([record(text, words[first], len(text) if end < 0 else end)])
    task = QuestionAnswering(stride=8)
    examples, encoder, records = examples_of(task, start, file)
    held = examples.labels[:, 0] > 0
    (answer,), offsets = records.text_lists("answers")[0], encoder.tokenizer.encode(text).offsets
    tokens = sum(a < words[first] + len(answer) and b > words[first] for a, b in offsets)
    assert held.any() or tokens > task.stride  # windows overlap by more; a longer answer may be cut by each
    for window in np.flatnonzero(held):
        said = np.column_stack([np.full(len(examples), -9.0), examples.labels, np.zeros(len(examples))])
        said[window, 0] = 1.0
        assert task.answers(said, examples, encoder, records) == [answer]


def test_windows_overlap_and_together_hold_every_token_of_the_text(start, written):
    text = " ".join(sentences(8))
    task = QuestionAnswering(stride=8)
    examples, encoder, _ = examples_of(task, start, written([record(text, 0, 3)]))
    assert np.diff(examples.offsets).max() <= 32
    seen = examples.places[examples.places[:, 1] > 0]
    covered = set(map(tuple, seen.tolist()))
    assert covered == set(map(tuple, encoder.encode([text]).places.tolist()))


def test_the_best_stretch_is_that_of_a_slow_search_over_all(start, written):
    file = written([record(" ".join(sentences(3, seed)), 0, 3) for seed in range(4)])
    task = QuestionAnswering(longest_answer=5)
    examples, _, _ = examples_of(task, start, file, length=64)
    run = Run.open(start)
    from pretextlm.model.transformer import Transformer

    torch.manual_seed(0)
    model = Transformer(run.recipe.model, task.heads(run.recipe.model)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.3)
    found = predictions(model, task, examples, run)
    for window in range(len(examples)):
        begin, end = examples.offsets[window], examples.offsets[window + 1]
        scores = _scores(model, run, examples.tokens[begin:end], examples.types[begin:end])
        inside = np.flatnonzero(examples.types[begin:end] == 1)[:-1]
        best = max((scores[a, 0] + scores[b, 1], -b + a, a, b) for a in inside for b in inside if a <= b < a + 5)
        assert found[window, 0] == pytest.approx(best[0], abs=1e-4)
        assert found[window, 3] == pytest.approx(scores[0].sum(), abs=1e-4)


def _scores(model, run, tokens, types):
    from pretextlm.batch import Batch
    from pretextlm.model.model_inputs import prepare

    batch = Batch(input_ids=tokens[None], token_type_ids=types[None], labels=np.full((1, len(tokens)), -100, np.int32))
    with torch.inference_mode():
        hidden = model(prepare(batch, model.config, torch.device("cpu"), torch.float32)).hidden_BTD[0]
        return model.heads["task"](hidden).numpy()


def test_where_no_answer_is_likelier_in_every_window_none_is_given(start, written):
    file = written([record(" ".join(sentences(6)), 0, 3)])
    task = QuestionAnswering(stride=8, no_answer=True)
    examples, encoder, records = examples_of(task, start, file)
    said = np.column_stack([np.zeros(len(examples)), examples.labels, np.full(len(examples), 1.0)])
    assert task.answers(said, examples, encoder, records) == [""]
    said[0, 3] = -1.0
    assert task.answers(said, examples, encoder, records) != [""]


def test_answers_out_of_place_and_missing_ones_are_refused_by_row_or_left_out(start, written):
    good = record("The river carries the letters.", 0, 9)
    misplaced = {**good, "answers": {"text": ["the law"], "answer_start": [4]}}
    none = {**good, "answers": {"text": [], "answer_start": []}}
    with pytest.raises(UserError, match=r"line 2: the answer 'the law' is not at character 4"):
        examples_of(QuestionAnswering(), start, written([good, misplaced]))
    with pytest.raises(UserError, match=r"line 2: the question has no answer"):
        examples_of(QuestionAnswering(), start, written([good, none]))
    _, _, records = examples_of(QuestionAnswering(misplaced="skip"), start, written([good, misplaced, good]))
    assert records.rows.tolist() == [1, 3]
    examples, _, _ = examples_of(QuestionAnswering(no_answer=True), start, written([good, none]))
    assert examples.labels.tolist()[1][:2] == [0, 0]
