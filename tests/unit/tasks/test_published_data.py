"""The shipped recipes read the published sets: their columns, the order of their classes, and real records."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest
from tests.builders import FIXTURES, make_store, published

from pretextlm.config import apply_overrides, read_toml
from pretextlm.data.offset_mapping import OffsetTokenizer
from pretextlm.data.records import read_records
from pretextlm.data.streams import open_bytes
from pretextlm.data.tokenizer import load_tokenizer
from pretextlm.errors import UserError
from pretextlm.evaluation.scores.table import SCORES
from pretextlm.evaluation.task_evaluation import check_scores
from pretextlm.model.config import ModelConfig
from pretextlm.training.recipe import Recipe

PLACE = Path(__file__).parents[3] / "recipes" / "tasks"
PAIR = {"sentence1": "A plane takes off.", "sentence2": "It flies.", "idx": 0}
NLI = {"premise": "A plane takes off.", "hypothesis": "It flies.", "idx": 0}
WORD = {"word": "bank", "sentence1": "By the bank.", "sentence2": "A bank.", "start1": 7, "end1": 11, "start2": 2}
PRONOUN = {"text": "Ann saw Bo when she ran.", "span1_index": 0, "span1_text": "Ann", "span2_index": 4}
ANSWER = {"paragraph": "Ann ran. Bo sat.", "question": "Who ran?", "answer": "Ann"}
NAMES = {"subject_entity": {"word": "이순신", "start_idx": 0, "end_idx": 2, "type": "PER"}}
NAMES |= {"object_entity": {"word": "서울", "start_idx": 5, "end_idx": 6, "type": "LOC"}}
ASKED = {"context": "Ann ran. Bo sat.", "question": "Who ran?"}
FOUND = {"text": ["Ann"], "answer_start": [0]}


def numbered(record, names):
    """One record for each class, labelled as the hub does: by number; and the names they have, in order."""
    return [{**record, "label": number} for number in range(len(names))], names


RELATIONS = {0: "no_relation", 12: "per:date_of_birth", 29: "per:title"}
PUBLISHED = {
    "cola": ("glue/cola", *numbered({"sentence": "It is.", "idx": 0}, ["unacceptable", "acceptable"])),
    "sst2": ("glue/sst2", *numbered({"sentence": "It is.", "idx": 0}, ["negative", "positive"])),
    "mrpc": ("glue/mrpc", *numbered(PAIR, ["different", "same"])),
    "stsb": ("glue/stsb", [{**PAIR, "label": 2.5}], [2.5]),
    "qqp": (
        "glue/qqp",
        *numbered({"question1": "Why?", "question2": "How?", "idx": 0}, ["not_duplicate", "duplicate"]),
    ),
    "mnli": ("glue/mnli", *numbered(NLI, ["entailment", "neutral", "contradiction"])),
    "qnli": ("glue/qnli", *numbered({"question": "Why?", "sentence": "So."}, ["entailment", "not_entailment"])),
    "rte": ("glue/rte", *numbered(PAIR, ["entailment", "not_entailment"])),
    "wnli": ("glue/wnli", *numbered(PAIR, ["not_entailment", "entailment"])),
    "boolq": ("super_glue/boolq", *numbered({"question": "is it", "passage": "It is."}, ["False", "True"])),
    "cb": ("super_glue/cb", *numbered(NLI, ["entailment", "contradiction", "neutral"])),
    "multirc": (
        "super_glue/multirc",
        *numbered({**ANSWER, "idx": {"paragraph": 0, "question": 3, "answer": 1}}, ["False", "True"]),
    ),
    "wic": ("super_glue/wic", *numbered({**WORD, "end2": 6}, ["False", "True"])),
    "wsc": ("super_glue/wsc", *numbered({**PRONOUN, "span2_text": "she"}, ["False", "True"])),
    "klue_ynat": (
        "klue/ynat",
        *numbered({"title": "제목"}, ["IT과학", "경제", "사회", "생활문화", "세계", "스포츠", "정치"]),
    ),
    "klue_sts": (
        "klue/sts",
        [{**PAIR, "labels": {"label": 3.7, "real-label": 3.714, "binary-label": 1}}],
        [3.7],
    ),
    "klue_nli": ("klue/nli", *numbered(NLI, ["entailment", "neutral", "contradiction"])),
    "klue_ner": (
        "klue/ner",
        [{"sentence": "서울 가", "char": ["서", "울", " ", "가"], "ne_tag": [2, 3, 12, 12]}],
        [["B-LC", "I-LC", "O", "O"]],
    ),
    "klue_re": (
        "klue/re",
        [{"sentence": "이순신은 서울에서", **NAMES, "label": number} for number in RELATIONS],
        [*RELATIONS.values()],
    ),
    "klue_mrc": (
        "klue/mrc",
        [{**ASKED, "answers": FOUND, "is_impossible": False}, {**ASKED, "answers": FOUND, "is_impossible": True}],
        [["Ann"], []],
    ),
    "squad": ("squad", [{**ASKED, "id": "1", "title": "A", "answers": FOUND}], [["Ann"]]),
    "squad_v2": (
        "squad",
        [{**ASKED, "answers": FOUND}, {**ASKED, "answers": {"text": [], "answer_start": []}}],
        [["Ann"], []],
    ),
    "korquad": ("korquad", [{**ASKED, "answers": FOUND}], [["Ann"]]),
    "kobest_boolq": ("kobest/boolq", *numbered({"paragraph": "글", "question": "물음"}, ["False", "True"])),
    "kobest_sentineg": ("kobest/sentineg", *numbered({"sentence": "좋다"}, ["negative", "positive"])),
    "kobest_wic": (
        "kobest/wic",
        *numbered({"word": "눈", "context_1": "[눈]이 온다", "context_2": "[눈]을 떴다"}, ["False", "True"]),
    ),
    "nsmc": ("nsmc", *numbered({"id": "1", "document": "좋다"}, ["negative", "positive"])),
    "kornli": ("kornli", [{**PAIR, "gold_label": "neutral"}], ["neutral"]),
    "korsts": ("korsts", [{**PAIR, "score": 5.0}], [5.0]),
    "wnut17": ("wnut17", [{"tokens": ["Ann", "ran"], "tags": ["B-person", "O"]}], [["B-person", "O"]]),
    "conll2003": ("conll2003", [{"tokens": ["Ann", "ran"], "tags": ["I-PER", "O"]}], [["I-PER", "O"]]),
}
"""Recipe → what it is judged by, records as they are published, and what their labels mean."""

BENCHMARKS = {
    "glue/cola": ("matthews", "accuracy"),
    "glue/sst2": ("accuracy",),
    "glue/mrpc": ("f1", "accuracy"),
    "glue/qqp": ("f1", "accuracy"),
    "glue/stsb": ("pearson", "spearman"),
    "glue/mnli": ("accuracy",),
    "glue/qnli": ("accuracy",),
    "glue/rte": ("accuracy",),
    "glue/wnli": ("accuracy",),
    "glue/ax": ("matthews",),
    "super_glue/boolq": ("accuracy",),
    "super_glue/cb": ("f1_macro", "accuracy"),
    "super_glue/multirc": ("group_f1", "group_accuracy"),
    "super_glue/rte": ("accuracy",),
    "super_glue/wic": ("accuracy",),
    "super_glue/wsc": ("accuracy",),
    "klue/ynat": ("f1_macro",),
    "klue/nli": ("accuracy",),
    "klue/sts": ("pearson", "f1_at_3"),
    "klue/ner": ("entity_f1", "character_f1"),
    "klue/re": ("f1_micro", "auprc"),
    "klue/mrc": ("klue_exact_match", "klue_rouge_w"),
    "kobest/boolq": ("f1_macro", "accuracy"),
    "kobest/sentineg": ("f1_macro", "accuracy"),
    "kobest/wic": ("f1_macro", "accuracy"),
    "kornli": ("accuracy",),
    "korsts": ("spearman", "pearson"),
    "nsmc": ("accuracy",),
    "squad": ("squad_exact_match", "squad_f1"),
    "korquad": ("korquad_exact_match", "korquad_f1"),
    "conll2003": ("span_f1",),
    "wnut17": ("span_f1",),
}
"""Benchmark → the scores that it reports, its main score first."""

LOCAL = {
    "cola": ("glue/cola/dev.jsonl", []),
    "sst2": ("glue/sst2/dev.jsonl.gz", []),
    "stsb": ("glue/stsb/dev.jsonl.gz", ["task.label=score"]),
    "mrpc": ("glue-babylm/mrpc/valid.jsonl", []),
    "rte": ("glue-babylm/rte/valid.jsonl", []),
    "mnli": ("glue-babylm/mnli/valid.jsonl.gz", []),
    "boolq": ("boolq/train.jsonl.gz", []),
    "klue_ner": ("klue-dev/klue-ner-v1.1_dev.tsv.gz?conll=char,ne_tag", []),
    "kobest_boolq": (
        "kobest/BoolQ/dev.jsonl.gz",
        ["task.text=Question", "task.text_pair=Text", "task.label=Answer"],
    ),
    "kobest_sentineg": ("kobest/SentiNeg/dev.jsonl", ["task.text=Text", "task.label=Label"]),
    "kobest_wic": (
        "kobest/WiC/dev.jsonl.gz",
        ["task.text=SENTENCE1", "task.text_pair=SENTENCE2", "task.label=ANSWER"],
    ),
    "korsts": ("korsts/dev.jsonl.gz", []),
    "kornli": ("kornli-xnli-ko/dev.jsonl.gz", []),
    "korquad": ("korquad1-dev/dev.jsonl.gz", []),
    "squad": ("squad-shifts/train_newwiki.jsonl.gz", ["task.misplaced=skip"]),
    "wnut17": ("wnut17/dev.jsonl.gz", []),
    "nsmc": ("nsmc-rebuilt/train.jsonl.gz", ["task.text=text"]),
}
"""Recipe → a real file of its set, and how its columns are called there."""


def recipe_named(name, overrides=()):
    return Recipe.load(apply_overrides(read_toml(PLACE / f"{name}.toml"), overrides), where=name)


@pytest.fixture(scope="session")
def encoder(tmp_path_factory):
    store = make_store(tmp_path_factory.mktemp("published") / "store")
    encoder = OffsetTokenizer(load_tokenizer(store.path / "tokenizer.json"))
    return encoder, ModelConfig.parse({"vocab_size": encoder.vocabulary.size})


def read(task, source):
    """(all records, those that are used, the task that knows their labels where it needs to)."""
    records = read_records(source, task.validation_columns())
    used = task.filter_records(records)
    knows = getattr(task, "labels", ("",)) or task.name == "text_regression"
    return records, used, task if knows else task.fit_labels(used)


def test_benchmarks_report_scores_of_the_table():
    assert {name for names in BENCHMARKS.values() for name in names} <= set(SCORES)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_recipe_reads_records_as_they_are_published(name, written, encoder):
    benchmark, published, wanted = PUBLISHED[name]
    recipe = recipe_named(name)
    records, used, task = read(recipe.training_objective, written(published))
    examples = task.examples(used, *encoder, recipe.data.length)
    assert task.references(used) == wanted
    assert set(examples.records.tolist()) == set(range(len(records)))
    assert task.metric_names == BENCHMARKS[benchmark]
    check_scores(task)


def test_the_hubs_mark_of_a_missing_label_is_refused_by_row_and_explained(written, encoder):
    task = recipe_named("mnli").training_objective
    records = read_records(written([{**NLI, "label": 0}, {**NLI, "label": -1}]), task.columns())
    with pytest.raises(UserError, match=r"line 2: the label '-1' is none of entailment.*\n?.*The hub writes -1"):
        task.references(records)


def check_file(name, source, mark, overrides, encoder):
    """Every usable record of the file becomes an example with a label. Returns the number of records."""
    recipe = recipe_named(name, overrides)
    records, used, task = read(recipe.training_objective, source + mark)
    examples = task.examples(used, *encoder, recipe.data.length)
    assert len(set(examples.records.tolist())) == len(used) == len(task.references(used))
    check_scores(task)
    return len(records)


@pytest.mark.parametrize("name", LOCAL)
def test_a_recipe_reads_a_file_of_the_published_form(name, encoder):
    (path, mark, conll), overrides = LOCAL[name][0].partition("?"), LOCAL[name][1]
    source = FIXTURES / "tasks" / f"{name}{'.tsv' if '.tsv' in path else '.jsonl'}"
    lines = source.read_text(encoding="utf-8").splitlines()
    expected = sum(line.startswith("## own-") for line in lines) if mark else len(lines)
    assert check_file(name, str(source), mark + conll, overrides, encoder) == expected >= 6


@pytest.mark.parametrize("name", LOCAL)
def test_a_recipe_reads_published_records(name, tmp_path, encoder):
    (path, mark, conll), overrides = LOCAL[name][0].partition("?"), LOCAL[name][1]
    source = beginning(published(f"tasks/{path}"), tmp_path)
    assert check_file(name, source, mark + conll, overrides, encoder) >= 100


def beginning(path, place):
    """A file of the first lines of another, up to the end of a sentence."""
    with open_bytes(path) as stream:
        lines = list(islice(stream, 300 if ".jsonl" in path.name else 10_000))
    if ".tsv" in path.name:
        lines = lines[: len(lines) - lines[::-1].index(b"\n")]
    copy = place / path.name.removesuffix(".gz")
    copy.write_bytes(b"".join(lines))
    return str(copy)


def test_every_recipe_that_takes_text_for_classes_numbers_tags_or_stretches_is_looked_at():
    kinds = {"text_classification", "text_regression", "token_classification", "question_answering"}
    recipes = {path.stem for path in PLACE.glob("*.toml") if recipe_named(path.stem).training_objective.name in kinds}
    assert recipes == {*PUBLISHED, "sst2_distilled"}
