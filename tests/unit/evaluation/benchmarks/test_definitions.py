"""Every benchmark's file says what its prompts look like; the wording is that of the published evaluations."""

from __future__ import annotations

import pytest

from pretextlm.errors import UserError
from pretextlm.evaluation.benchmarks.definition import Benchmark, find, find_all, names
from pretextlm.evaluation.benchmarks.rows import Record
from pretextlm.evaluation.benchmarks.wording import Wording, shots_of

AB = {"choices": ["red", "blue"], "answer": 1}
MC1 = {"choices": ["Blue.", "Red.", "Green."], "labels": [1, 0, 0]}
MC2 = {"choices": ["Blue.", "Red.", "It is blue."], "labels": [1, 0, 1]}
SKY = ["Q: Where were the 1992 Olympics held?\nA: The 1992 Olympics were held in Barcelona, Spain.\n\nQ: Sky?\nA:"]
ROWS = {
    "arc_challenge": [
        {"question": "Sky?", **AB},
        {"question": "Sky?", "choices": {"text": ["red", "blue"], "label": ["1", "2"]}, "answerKey": "2"},
    ],
    "arc_easy": [
        {"question": "Sky?", **AB},
        {"question": "Sky?", "choices": {"text": ["red", "blue"], "label": ["A", "B"]}, "answerKey": "B"},
    ],
    "blimp": [{"sentence_good": "He runs.", "sentence_bad": "He run.", "UID": "agreement"}],
    "boolq": [
        {"question": "is it", "passage": "It is.", "label": 1},
        {"question": "is it", "passage": "It is.", "answer": True},
    ],
    "copa": [
        {"premise": "It fell.", "asks_for": "cause", "choices": ["I let go.", "I sat."], "answer": 0},
        {"premise": "It fell.", "question": "cause", "choice1": "I let go.", "choice2": "I sat.", "label": 0},
    ],
    "crows_pairs": [{"sent_more": "A is bad.", "sent_less": "B is bad.", "bias_type": "age", "": "0"}],
    "hellaswag": [
        {
            "activity_label": "Cooking",
            "ctx_a": "A man [header] cooks.",
            "ctx_b": "the man",
            "endings": ["eats. [title] Then", "sleeps."],
            "label": "0",
        }
    ],
    "kobest_boolq": [
        {"paragraph": "하늘은 푸르다.", "question": "푸른가?", "label": 1},
        {"Text": "하늘은 푸르다.", "Question": "푸른가?", "Answer": True},
    ],
    "kobest_copa": [
        {
            "premise": "비가 왔다.",
            "question": "결과",
            "alternative_1": "젖었다.",
            "alternative_2": "말랐다.",
            "label": 0,
        },
        {"sentence": "비가 왔다.", "question": "결과", "1": "젖었다.", "2": "말랐다.", "Answer": "1"},
    ],
    "kobest_hellaswag": [
        {"context": "공이 온다.", "ending_1": "가", "ending_2": "나", "ending_3": "다", "ending_4": "라", "label": 3},
        {"context": "공이 온다.", "choice1": "가", "choice2": "나", "choice3": "다", "choice4": "라", "label": "3"},
    ],
    "kobest_sentineg": [{"sentence": "좋아요", "label": 1}, {"Text": "좋아요", "Label": "1"}],
    "kobest_wic": [
        {"word": "배", "context_1": "[배]를 탔다.", "context_2": "[배]를 먹었다.", "label": 0},
        {"Target": "배", "SENTENCE1": "[배]를 탔다.", "SENTENCE2": "[배]를 먹었다.", "ANSWER": False},
    ],
    "lambada": [{"text": "She opened the door"}],
    "mmlu": [{"subject": "world_history", "question": " Who? ", "choices": ["a", "b", "c", "d"], "answer": 2}],
    "openbookqa": [
        {"question": "The sky is", **AB},
        {"question_stem": "The sky is", "choices": {"text": ["red", "blue"], "label": ["A", "B"]}, "answerKey": "B "},
    ],
    "piqa": [
        {"question": "Paint the sky", **AB},
        {"goal": "Paint the sky", "sol1": "red", "sol2": "blue", "label": 1},
    ],
    "truthfulqa_mc1": [{"question": "Sky?", "mc1_targets": MC1, "mc2_targets": MC2}],
    "truthfulqa_mc2": [{"question": "Sky?", "mc1_targets": MC1, "mc2_targets": MC2}],
    "winogrande": [
        {"question": "Ann told Eve that _ won.", "choices": ["Ann", "Eve"], "answer": 1},
        {"sentence": "Ann told Eve that _ won.", "option1": "Ann", "option2": "Eve", "answer": "2"},
    ],
}
WORDED = {
    "arc_challenge": (["Question: Sky?\nAnswer:"] * 2, [" red", " blue"], 1),
    "arc_easy": (["Question: Sky?\nAnswer:"] * 2, [" red", " blue"], 1),
    "blimp": ([""] * 2, [" He runs.", " He run."], 0),
    "boolq": (["It is.\nQuestion: is it?\nAnswer:"] * 2, [" no", " yes"], 1),
    "copa": (["It fell because"] * 2, [" i let go.", " i sat."], 0),
    "crows_pairs": ([""] * 2, ["A is bad.", "B is bad."], 0),
    "hellaswag": (["Cooking: A man cooks. The man"] * 2, [" eats.. Then", " sleeps."], 0),
    "kobest_boolq": (["하늘은 푸르다. 질문: 푸른가? 답변:"] * 2, [" 아니오", " 예"], 1),
    "kobest_copa": (["비가 왔다. 그래서"] * 2, [" 젖었다.", " 말랐다."], 0),
    "kobest_hellaswag": (["문장: 공이 온다."] * 4, [" 가", " 나", " 다", " 라"], 3),
    "kobest_sentineg": (["문장: 좋아요 긍부정:"] * 2, [" 부정", " 긍정"], 1),
    "kobest_wic": (
        ["문장1: [배]를 탔다. 문장2: [배]를 먹었다. 두 문장에서 배가 같은 뜻으로 쓰였나?"] * 2,
        [" 아니오", " 예"],
        0,
    ),
    "lambada": (["She opened the"], [" door"], 0),
    "mmlu": (
        [
            "The following are multiple choice questions (with answers) about world history.\n\n"
            "Who?\nA. a\nB. b\nC. c\nD. d\nAnswer:"
        ]
        * 4,
        [" A", " B", " C", " D"],
        2,
    ),
    "openbookqa": (["The sky is"] * 2, [" red", " blue"], 1),
    "piqa": (["Question: Paint the sky\nAnswer:"] * 2, [" red", " blue"], 1),
    "truthfulqa_mc1": (SKY * 3, [" Blue.", " Red.", " Green."], 0),
    "truthfulqa_mc2": (SKY * 3, [" Blue.", " Red.", " It is blue."], 0),
    "winogrande": (["Ann told Eve that Ann", "Ann told Eve that Eve"], [" won."] * 2, 1),
}


def question(benchmark: Benchmark, row: dict, shown: tuple = ()):
    wording = Wording(benchmark)
    values = wording.values([Record("a.jsonl, line 1", row), *(Record("a.jsonl, line 2", one) for one in shown)])
    return wording.question(values[0], values[1:])


def test_every_benchmark_is_worded_here():
    assert names() == sorted(ROWS) == sorted(WORDED)


@pytest.mark.parametrize(("name", "nth"), [(name, nth) for name, rows in ROWS.items() for nth in range(len(rows))])
def test_rows_of_every_form_become_the_same_question(name, nth):
    asked = question(find(name), ROWS[name][nth])
    contexts, continuations, answer = WORDED[name]
    found = [text[-len(end) :] for text, end in zip(asked.contexts, contexts, strict=True)]
    assert (found, list(asked.continuations), asked.answer) == (contexts, continuations, answer)
    assert "truthfulqa" in name or list(asked.contexts) == contexts
    assert asked.sizes == tuple(len(one.removeprefix(find(name).delimiter)) for one in asked.continuations) or (
        name == "lambada"
    )


@pytest.mark.parametrize("name", ROWS)
def test_what_lm_eval_gets_is_a_row_as_the_hub_has_it(name):
    """Of the forms, one is the hub's; written back, the row says the same in it."""
    benchmark = find(name)
    wording = Wording(benchmark)
    (values,) = wording.values([Record("", ROWS[name][0])])
    written = wording.harness_row(values)
    first, second = wording.question(values), question(benchmark, written)
    assert first == second


def test_examples_are_shown_with_their_answers_and_an_empty_line_after_each():
    asked = question(find("piqa"), ROWS["piqa"][0], (ROWS["piqa"][0],))
    assert asked.contexts[0] == "Question: Paint the sky\nAnswer: blue\n\nQuestion: Paint the sky\nAnswer:"
    asked = question(find("winogrande"), ROWS["winogrande"][0], (ROWS["winogrande"][0],))
    assert asked.contexts[0] == "Ann told Eve that Eve won.\n\nAnn told Eve that Ann"
    asked = question(find("lambada"), ROWS["lambada"][0], ({"text": "He left the room"},))
    assert asked.contexts[0] == "He left the room\n\nShe opened the"


def test_a_description_stands_once_before_the_examples():
    asked = question(find("mmlu"), ROWS["mmlu"][0], (ROWS["mmlu"][0],))
    assert asked.contexts[0].count("The following are") == 1
    assert asked.contexts[0].endswith("Answer: C\n\nWho?\nA. a\nB. b\nC. c\nD. d\nAnswer:")


def test_examples_are_drawn_by_the_seed_and_never_are_the_question():
    pool = [{"number": number} for number in range(10)]

    def drawn(number: int, seed: int, count: int = 4):
        return [one["number"] for one in shots_of(find("piqa"), pool, number, pool[number], count, seed, same=True)]

    assert drawn(3, 0) == drawn(3, 0)
    assert drawn(3, 0) != drawn(3, 1)
    assert drawn(3, 0) != drawn(4, 0)
    assert all(n not in drawn(n, 0) and len(set(drawn(n, 0))) == 4 for n in range(10))
    assert sorted(drawn(3, 0, 9)) == [0, 1, 2, 4, 5, 6, 7, 8, 9]
    with pytest.raises(UserError, match="10 examples are to be shown, and there are 9"):
        drawn(3, 0, 10)


def test_first_examples_are_those_of_the_questions_group():
    pool = [{"group": group, "number": number} for number, group in enumerate("aabab")]
    found = shots_of(find("mmlu"), pool, 0, {"group": "b"}, 2, 7, same=False)
    assert [one["number"] for one in found] == [2, 4]


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ({"question": "Sky?", "choices": ["red"], "answer": 0}, "there are not at least two choices"),
        ({"question": "Sky?", "choices": ["red", " "], "answer": 0}, "a choice is empty or no text"),
        ({"question": "Sky?", "choices": ["red", 7], "answer": 0}, "a choice is empty or no text"),
        ({"question": "Sky?", "choices": ["red", "blue"], "answer": 2}, "the answer 2 is none of the 2 choices"),
        ({"question": "Sky?", "choices": ["red", "blue"], "answer": "B"}, "the answer 'B' is none of the 2 choices"),
        ({"question": "Sky?", "choices": ["red", "blue"], "answer": None}, "there is no answer"),
        ({"question": "Sky?", "choices": ["red", "blue"]}, "there is no answer"),
    ],
)
def test_a_bad_row_is_named_by_file_and_line(row, what):
    records = [Record("a.jsonl, line 1", ROWS["arc_easy"][0]), Record("a.jsonl, line 2", row)]
    with pytest.raises(UserError, match=f"a.jsonl, line 2: {what}"):
        Wording(find("arc_easy")).values(records)


def test_an_answer_that_is_no_choice_of_the_row_is_named_by_line():
    row = {**ROWS["arc_easy"][1], "answerKey": "Z"}
    with pytest.raises(UserError, match=r"a\.jsonl, line 1: answer cannot be read"):
        Wording(find("arc_easy")).values([Record("a.jsonl, line 1", row)])


def test_columns_that_fit_no_form_are_listed_with_those_that_are_read():
    with pytest.raises(UserError, match="the columns ask, options are not those of arc_easy") as caught:
        Wording(find("arc_easy")).values([Record("a.jsonl, line 1", {"ask": "Sky?", "options": []})])
    assert caught.value.hint == "It reads answer, choices, question or answerKey, choices, question."


def test_names_are_found_by_their_beginning_and_unknown_ones_refused(tmp_path):
    assert [one.name for one in find_all("piqa, kobest_*")] == ["piqa", *(n for n in names() if n.startswith("kobest"))]
    for spec, message in (
        ("arc_eesy", "no benchmark named 'arc_eesy'"),
        ("x*", "No benchmark begins"),
        (",", "No benc"),
    ):
        with pytest.raises(UserError, match=message):
            find_all(spec)


def test_a_users_own_file_is_a_benchmark_and_its_faults_are_named(tmp_path):
    path = tmp_path / "colours.toml"
    form = '[[forms]]\nsky = "sky"\nchoices = "[one, two]"\nanswer = "right"\n'
    path.write_text(f'title = "Colours"\nprompt = "{{{{ sky }}}} is"\n{form}')
    benchmark = find(str(path))
    asked = question(benchmark, {"sky": "It", "one": "red", "two": "blue", "right": 1})
    assert (benchmark.name, asked.contexts[0], asked.continuations) == ("colours", "It is", (" red", " blue"))
    path.write_text(f'title = "Colours"\nprompt = "{{{{ sky"\n{form}')
    with pytest.raises(UserError, match="is no template"):
        Wording(find(str(path)))
    path.write_text('title = "Colours"\n[[forms]]\nchoices = "x"\n')
    with pytest.raises(UserError, match="a form lacks answer"):
        find(str(path))


def test_a_definition_is_changed_by_the_options_after_its_name():
    plain = find("blimp?delimiter=&by_length=true")
    assert (plain.name, plain.delimiter, plain.by_length) == ("blimp?delimiter=&by_length=true", "", True)
    assert question(plain, ROWS["blimp"][0]).continuations == ("He runs.", "He run.")
    assert [one.name for one in find_all("blimp,blimp?delimiter=")] == ["blimp", "blimp?delimiter="]
    with pytest.raises(UserError, match="Unknown key 'leading' in the benchmark blimp"):
        find("blimp?leading=false")


def test_labels_of_which_none_is_true_are_named_by_line():
    row = {"question": "Sky?", "mc2_targets": {"choices": ["Red.", "Green."], "labels": [0, 0]}}
    with pytest.raises(UserError, match=r"a\.jsonl, line 1: the labels \[0, 0\]"):
        question(find("truthfulqa_mc2"), row)
