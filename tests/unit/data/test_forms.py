"""Files exactly as their owners distribute them are read with the columns of the recipes for them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.builders import published

from pretextlm.config import read_toml
from pretextlm.data.forms.registry import FORMS
from pretextlm.data.records import read_records
from pretextlm.errors import UserError
from pretextlm.shipped_recipes import recipe_file
from pretextlm.training.recipe import Recipe

ARTICLES = {
    "version": "v2.0",
    "data": [
        {
            "title": "강",
            "paragraphs": [
                {
                    "context": "강물은 서쪽으로 흐른다.",
                    "qas": [
                        {"id": "a", "question": "어디로?", "answers": [{"text": "서쪽", "answer_start": 4}]},
                        {
                            "guid": "b",
                            "question": "왜?",
                            "is_impossible": True,
                            "answers": [{"text": "강물", "answer_start": 0}],
                            "plausible_answers": [],
                        },
                    ],
                },
                {"context": "Rome is old.", "qas": []},
            ],
        },
        {
            "title": "Oslo",
            "paragraphs": [
                {
                    "context": "She left Oslo.",
                    "qas": [{"id": "c", "question": "Where?", "answers": [{"text": "Oslo", "answer_start": 9}]}],
                }
            ],
        },
    ],
}
ANSWERED = {
    "question": ["어디로?", "왜?", "Where?"],
    "context": ["강물은 서쪽으로 흐른다."] * 2 + ["She left Oslo."],
    "answers": [["서쪽"], [], ["Oslo"]],
    "starts": [[4], [], [9]],
}
MNLI = "index promptID pairID genre sentence1_binary_parse sentence2_binary_parse sentence1_parse sentence2_parse"
STSB = "index genre filename year old_index source1 source2 sentence1 sentence2 score"


def tabs(*lines: str) -> str:
    """Lines whose columns are separated by " | "."""
    return "".join("\t".join(line.split(" | ")) + "\n" for line in lines)


def klue(*records: object) -> str:
    return json.dumps(records, ensure_ascii=False, indent=2)


OFFICIAL = {
    "cola": (tabs('gj04 | 1 |  | He said "Stop', "gj04 | 0 | * | They drank."), {"label": ["1", "0"]}),
    "sst2": (tabs("sentence | label", 'a "fine film | 1'), {"text": ['a "fine film'], "label": ["1"]}),
    "mrpc": (
        "\ufeff"
        + tabs("Quality | #1 ID | #2 ID | #1 String | #2 String", '1 | 7 | 8 | "So," he | He').replace("\n", "\r\n"),
        {"text": ['"So," he'], "text_pair": ["He"], "label": ["1"]},
    ),
    "qqp": (
        tabs("id | qid1 | qid2 | question1 | question2 | is_duplicate", "1 | 2 | 3 | How? | Why? | 0"),
        {"text": ["How?"], "text_pair": ["Why?"], "label": ["0"]},
    ),
    "stsb": (
        tabs(" | ".join(STSB.split()), "0 | g | f | 2012 | 1 | none | none | A plane. | An air plane. | 5.000"),
        {"text": ["A plane."], "text_pair": ["An air plane."], "label": ["5.000"]},
    ),
    "mnli": (
        tabs(
            " | ".join([*MNLI.split(), "sentence1", "sentence2", "label1", "gold_label"]),
            "0 | 1 | 2 | g | ( a | b | c | d | A. | He. | neutral | entailment",
        ),
        {"text": ["A."], "text_pair": ["He."], "label": ["entailment"]},
    ),
    "qnli": (
        tabs("index | question | sentence | label", "0 | When? | Now. | not_entailment"),
        {"text": ["When?"], "text_pair": ["Now."], "label": ["not_entailment"]},
    ),
    "rte": (
        tabs("index | sentence1 | sentence2 | label", "0 | A. | B. | entailment"),
        {"text": ["A."], "text_pair": ["B."], "label": ["entailment"]},
    ),
    "wnli": (tabs("index | sentence1 | sentence2 | label", "0 | A. | B. | 1"), {"text": ["A."], "label": ["1"]}),
    **{
        name: (json.dumps(ARTICLES, ensure_ascii=False), ANSWERED)
        for name in ("squad", "squad_v2", "korquad", "klue_mrc")
    },
    "klue_ynat": (
        klue({"guid": "1", "title": "유튜브", "label": "생활문화", "annotations": {"annotators": []}}),
        {"text": ["유튜브"], "label": ["생활문화"]},
    ),
    "klue_nli": (
        klue({"guid": "1", "premise": "하나", "hypothesis": "둘", "gold_label": "neutral", "label2": "entailment"}),
        {"text": ["하나"], "text_pair": ["둘"], "label": ["neutral"]},
    ),
    "klue_sts": (
        klue({"sentence1": "하나", "sentence2": "둘", "labels": {"label": 3.7, "real-label": 3.71, "binary-label": 1}}),
        {"text": ["하나"], "label": [3.7]},
    ),
    "klue_re": (
        klue(
            {
                "sentence": "조지 해리슨이 비틀즈에",
                "subject_entity": {"word": "비틀즈", "start_idx": 8, "end_idx": 10, "type": "ORG"},
                "object_entity": {"word": "조지 해리슨", "start_idx": 0, "end_idx": 5, "type": "PER"},
                "label": "no_relation",
            }
        ),
        {"text": ["조지 해리슨이 비틀즈에"], "mark 0 start": [8], "mark 1 end": [5], "label": ["no_relation"]},
    ),
    "klue_ner": (
        "## 토큰 구분자 : \\n\n## 컬럼명 : CHAR\tNE_TAG\n## 둘\n## klue-ner-v1_dev_00000\t<경찰:OG>\n"
        + tabs("경 | B-OG", "찰 | I-OG", "  | O", "# | O")
        + "\n",
        {"tokens": [["경", "찰", " ", "#"]], "tags": [["B-OG", "I-OG", "O", "O"]]},
    ),
    "nsmc": (
        tabs("id | document | label", '1 | "굿 | 1', "2 | 별로 | 0"),
        {"text": ['"굿', "별로"], "label": ["1", "0"]},
    ),
    "kornli": (
        tabs("sentence1 | sentence2 | gold_label", '그는 "무 | 그 | neutral'),
        {"text": ['그는 "무'], "label": ["neutral"]},
    ),
    "korsts": (
        tabs("genre | filename | year | id | score | sentence1 | sentence2", "g | f | 2012 | 1 | 5.000 | 가 | 나"),
        {"text": ["가"], "text_pair": ["나"], "label": ["5.000"]},
    ),
    "kobest_boolq": (
        tabs("ID | Text | Question | Answer", '1 | "그는 ""예""라 했다." | 예? | True', "2 | 가 | 나? | FALSE"),
        {"label": [1, 0]},
    ),
    "kobest_copa": (
        tabs("ID | sentence | question | 1 | 2 | Answer", "1 | 전쟁 | 결과 | 집 | 전투 | 2"),
        {"choice 1": ["집"], "choice 2": ["전투"], "label": [1]},
    ),
    "kobest_hellaswag": (
        tabs("context | choice1 | choice2 | choice3 | choice4 | label", "공 | 가 | 나 | 다 | 라 | 3"),
        {"choice 4": ["라"], "label": ["3"]},
    ),
    "kobest_sentineg": (tabs("ID | Text | Label", "1 | 만족 | 1"), {"text": ["만족"], "label": ["1"]}),
    "kobest_wic": (
        tabs(
            "ID | Target | SENTENCE1 | Dictionary 1 | SENTENCE2 | ANSWER", "1 | 실정 | [실정] | 1 | 그 [실정] | False"
        ),
        {"text": ["[실정]"], "text_pair": ["그 [실정]"], "label": [0]},
    ),
    "conll2003": (
        "-DOCSTART- -X- -X- O\n\nEU NNP B-NP B-ORG\nrejects VBZ B-VP O\n\n",
        {"tokens": [["EU", "rejects"]], "tags": [["B-ORG", "O"]]},
    ),
    "wnut17": (tabs("# | O", "Empire | B-location"), {"tokens": [["#", "Empire"]], "tags": [["O", "B-location"]]}),
}


@pytest.mark.parametrize("name", OFFICIAL)
@pytest.mark.parametrize("suffix", [".txt", ".TSV", ".json"])
def test_the_recipe_of_a_data_set_reads_its_owners_file(tmp_path, name, suffix):
    content, expected = OFFICIAL[name]
    file = tmp_path / f"official{suffix}"
    file.write_bytes(content.encode())
    task = Recipe.load(read_toml(recipe_file(f"tasks/{name}"))).task
    records = read_records(str(file), task.columns(), form=name)
    found = {role.partition(":")[0]: values for role, values in records.columns.items()}
    assert {role: found[role] for role in expected} == expected
    assert read_records(f"{file}?form={name}", task.columns()).columns == records.columns
    assert task.fit_labels(records) if name in ("cola", "nsmc", "klue_ner") else True


def test_answers_of_articles_are_also_columns_of_their_own(tmp_path):
    (tmp_path / "train.json").write_text(json.dumps(ARTICLES))
    found = read_records(f"{tmp_path}/train.json?form=squad", {"answers": "answer", "starts": "start"}).columns
    assert found == {role: ANSWERED[role] for role in ("answers", "starts")}


def test_every_form_is_tested_and_listed():
    shown = (Path(__file__).parents[3] / "docs/finetuning.md").read_text()
    assert {"klue_dp", "conllu", "csv", "tsv", "quoted_tsv", "jsonl", "json", *OFFICIAL} == set(FORMS)
    assert all(f"`{name}`" in shown for name in FORMS)


def test_klue_dp_and_conllu_are_sentences_of_words(tmp_path):
    file = tmp_path / "trees"
    comments = "## 토큰, 레이블 구분자 : \\t\n## klue-dp-v1_dev_00000\t유희열이 울었다.\n"
    file.write_text(
        comments + tabs("1 | 유희열이 | 유희열 이 | NNP+JKS | 2 | NP_SBJ", "2 | 울었다. | 울 었다 . | VV | 0 | VP")
    )
    wanted = {"words": "word_form", "head": "head", "deprel": "deprel"}
    found = read_records(f"{file}?form=klue_dp", wanted).columns
    assert found == {"words": [["유희열이", "울었다."]], "head": [["2", "0"]], "deprel": [["NP_SBJ", "VP"]]}
    file.write_text(
        "# text = one two three four five six seven\n#no space\n"
        + tabs("1-2 | im | _ | _ | _ | _ | _ | _ | _ | _", "1 | in | in | ADP | _ | _ | 3 | case | _ | _")
        + tabs("2 | dem | der | DET | _ | _ | 3 | det | _ | _", "2.1 | e | _ | _ | _ | _ | _ | _ | _ | _")
        + tabs("3 | Haus | Haus | NOUN | _ | _ | 0 | root | _ | _")
    )
    found = read_records(f"{file}?form=conllu", {"words": "tokens", "tags": "upos"}).columns
    assert found == {"words": [["in", "dem", "Haus"]], "tags": [["ADP", "DET", "NOUN"]]}


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("csv", 'text,label\n"A ""fine"", film",good\n'),
        ("quoted_tsv", 'text\tlabel\n"A ""fine"", film"\tgood\n'),
        ("tsv", 'text\tlabel\nA "fine", film\tgood\n'),
        ("jsonl", '{"text": "A \\"fine\\", film", "label": "good"}\n'),
        ("json", '[{"text": "A \\"fine\\", film", "label": "good"}]'),
    ],
)
def test_a_form_comes_before_the_suffix(tmp_path, form, text):
    file = tmp_path / "some.conll"
    file.write_text(text)
    found = read_records(str(file), {"text": "text", "label": "label"}, form=form)
    assert found.columns == {"text": ['A "fine", film'], "label": ["good"]}


def test_bad_and_empty_rows_are_left_out_and_counted_when_asked(tmp_path):
    file = tmp_path / "ratings_train.txt"
    file.write_text(tabs("id | document | label", "1 | 굿 | 1", "2 |  | 0", "3 | 별로 | 0", "4 | 셋", "5 | 좋다 | "))
    columns = {"text": "document", "label": "label"}
    records = read_records(str(file), columns, form="nsmc", on_error="skip")
    assert records.columns == {"text": ["굿", "별로"], "label": ["1", "0"]}
    assert (records.rows.tolist(), records.skipped) == ([2, 4], 3)
    with pytest.raises(UserError, match=r"line 5: 2 fields, the header has 3"):
        read_records(str(file), columns, form="nsmc")
    file.write_text(tabs("id | document | label", "2 |  | 0"))
    with pytest.raises(UserError, match=r"line 2: the column 'document' is empty") as told:
        read_records(str(file), columns, form="nsmc").texts("text")
    assert 'data.on_error="skip"' in told.value.hint
    with pytest.raises(UserError, match="no rows but the 1 that are left out"):
        read_records(str(file), columns, form="nsmc", on_error="skip")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ('{"data": [{"title": "a"}]}', r"data\[0\] has no 'paragraphs'"),
        ('{"data": {}}', r"'data' is no list"),
        ("[]", r"has no 'data'"),
        ('{"data": [1]}', r"data\[0\] is no object"),
        (
            '{"data": [{"paragraphs": [{"context": "a", "qas": [{"question": "b", "answers": [{"text": "a"}]}]}]}]}',
            "start",
        ),
        ('{"data"', "not JSON"),
    ],
)
def test_a_file_of_another_form_is_refused_by_the_place(tmp_path, content, told):
    file = tmp_path / "train.json"
    file.write_text(content)
    with pytest.raises(UserError, match=told):
        read_records(str(file), {"question": "question"}, form="squad")


def test_an_unknown_form_and_a_form_of_the_hub_are_refused(tmp_path):
    (tmp_path / "a.json").write_text("[]")
    with pytest.raises(UserError, match="no form 'squda'") as told:
        read_records(str(tmp_path / "a.json"), {"question": "question"}, form="squda")
    assert "squad" in told.value.hint
    with pytest.raises(UserError, match="is no file"):
        read_records("hf:nyu-mll/glue:sst2?split=train", {"text": "sentence"}, form="sst2")


@pytest.mark.parametrize(
    ("cells", "answers", "starts"),
    [
        ("Oslo,14", ["Oslo"], [14]),
        ('"[""Oslo"", ""to Oslo""]","14, 11"', ["Oslo", "to Oslo"], [14, 11]),
        ('"[""Oslo"", ""to Oslo""]","[14, 11]"', ["Oslo", "to Oslo"], [14, 11]),
        ("[3],2", ["[3]"], [2]),
        (",", [], []),
        ("[],[]", [], []),
    ],
)
def test_answers_and_places_in_tables(tmp_path, cells, answers, starts):
    file = tmp_path / "qa.csv"
    file.write_text(f"answer,start\n{cells}\n")
    records = read_records(str(file), {"answer": "answer", "start": "start"})
    assert records.text_lists("answer") == [answers]
    assert records.integer_lists("start") == [starts]


@pytest.mark.parametrize("cell", ["1.5", "one", "1;2", "1e3", "1,,2"])
def test_what_is_no_whole_number_is_no_place(tmp_path, cell):
    file = tmp_path / "qa.tsv"
    file.write_text(f"start\n{cell}\n")
    with pytest.raises(UserError, match="not a list of whole numbers"):
        read_records(str(file), {"start": "start"}).integer_lists("start")


def test_klues_own_files():
    ner, dp = (published(f"tasks/klue-dev/klue-{name}-v1.1_dev.tsv.gz") for name in ("ner", "dp"))
    assert len(read_records(str(ner), {"tokens": "char", "tags": "ne_tag"}, form="klue_ner")) == 5000
    assert len(read_records(str(dp), {"tokens": "word_form", "tags": "deprel"}, form="klue_dp")) == 2000
