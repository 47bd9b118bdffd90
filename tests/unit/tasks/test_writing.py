"""Answers that are written: labels are the answers' tokens alone, and a text depends on its own prompt alone."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.builders import make_store, sentences

from pretextlm.batch import IGNORE
from pretextlm.data.examples import ExampleReader
from pretextlm.data.offset_mapping import OffsetTokenizer
from pretextlm.errors import UserError
from pretextlm.evaluation.predict import predict
from pretextlm.evaluation.task_evaluation import evaluate_task, predictions, task_records, unanswered
from pretextlm.objectives.registry import build
from pretextlm.tasks.base import Task
from pretextlm.tasks.registry import build as build_task
from pretextlm.training.corpus import open_corpus
from pretextlm.training.plan import make_loader, make_plan
from pretextlm.training.pretrain import pretrain
from pretextlm.training.progress import Silent
from pretextlm.training.recipe import Recipe
from pretextlm.training.run_directory import Run
from pretextlm.training.runtime import Runtime
from pretextlm.training.trainer import Trainer

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
SHAPE = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
ASKED, SAID = sentences(24, seed=1), sentences(24, seed=2)
RECORDS = [{"instruction": a, "input": "" if n % 2 else b, "output": b} for n, (a, b) in enumerate(zip(ASKED, SAID))]
INSTRUCTION = {"name": "instruction"}
TRANSLATION = {"name": "text_to_text", "source": "instruction", "target": "output", "prefix": "Say: "}
KINDS = [(INSTRUCTION, "decoder"), (TRANSLATION, "encoder_decoder"), (TRANSLATION, "decoder")]
EVERY_KIND = pytest.mark.parametrize(("task", "architecture"), KINDS)


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("writing") / "store")


@pytest.fixture
def scratch(store, written):
    """A recipe of a task on these records, from scratch."""

    def make(task, architecture="decoder", records=RECORDS, length=48, model=None, **training):
        place = written(records)
        return Recipe.load(
            {
                "data": {"train": place, "validation": place, "length": length, "tokenizer": str(store.path)},
                "task": task,
                "model": {**SHAPE, "architecture": architecture, **(model or {})},
                "training": {"budget_steps": 2, "batch_rows": 8, "dtype": "fp32", "compile": "off", **training},
            }
        )

    return make


def batch_of(recipe):
    recipe, corpus = open_corpus(recipe)
    task, vocabulary = recipe.training_objective, recipe.vocabulary(corpus)
    reader = ExampleReader(corpus.train)
    rows = reader.read(np.arange(len(corpus.train)), np.zeros(len(corpus.train), np.int64), 0)
    return task.collate(rows, vocabulary, None), vocabulary, corpus


def tokens_of(store, text):
    return store_encoder(store).encode([text]).tokens.tolist()


def store_encoder(store):
    from pretextlm.data.tokenizer import load_tokenizer

    return OffsetTokenizer(load_tokenizer(store.path / "tokenizer.json"))


def rows_of_examples(batch, count, decoder=False):
    """(ids, labels) of each example, in order."""
    ids, labels, segments = batch.input_ids, batch.labels, batch.segment_ids
    if decoder:
        ids, labels, segments = batch.decoder_input_ids, batch.decoder_labels, batch.decoder_segment_ids
    found = [
        (
            ids[row][segments[row] == one].tolist(),
            None if labels is None else labels[row][segments[row] == one].tolist(),
        )
        for row in range(len(ids))
        for one in range(segments[row].max() + 1)
    ]
    assert len(found) == count
    return found


def test_an_instructions_loss_is_on_its_answer_and_end_token_alone(scratch, store):
    batch, vocabulary, _ = batch_of(scratch(INSTRUCTION, length=96))
    assert batch.attention == "causal"
    for record, (ids, labels) in zip(RECORDS, rows_of_examples(batch, 24), strict=True):
        prompt = record["instruction"] + "\n\n" + (record["input"] + "\n\n" if record["input"] else "")
        asked, said = tokens_of(store, prompt), tokens_of(store, record["output"])
        assert ids == [vocabulary.bos, *asked, *said]
        assert labels == [IGNORE] * len(asked) + [*said, vocabulary.eos]


def test_spaces_at_the_end_of_a_template_belong_to_the_answer(scratch, store):
    task = {"name": "instruction", "prompt": "{{Q}} {instruction} A: "}
    batch, vocabulary, _ = batch_of(scratch(task, length=96))
    ids, _ = rows_of_examples(batch, 24)[0]
    assert ids == [vocabulary.bos, *tokens_of(store, f"{{Q}} {ASKED[0]} A:"), *tokens_of(store, " " + SAID[0])]


def test_a_prompt_is_cut_at_its_beginning_and_a_cut_answer_does_not_end(scratch, store):
    long = [{"instruction": " ".join(sentences(9)), "input": "", "output": " ".join(sentences(9, seed=5))}]
    batch, vocabulary, _ = batch_of(scratch(INSTRUCTION, records=long, length=32))
    ids, labels = rows_of_examples(batch, 1)[0]
    asked, said = (tokens_of(store, long[0][key]) for key in ("instruction", "output"))
    asked += tokens_of(store, "\n\n")
    assert ids == [vocabulary.bos, *asked[-16:], *said[:15]]
    assert labels == [IGNORE] * 16 + said[:16]


def test_an_encoder_reads_the_source_and_a_decoder_writes_the_target(scratch, store):
    batch, vocabulary, _ = batch_of(scratch(TRANSLATION, "encoder_decoder"))
    sources, targets = rows_of_examples(batch, 24), rows_of_examples(batch, 24, decoder=True)
    for record, (read, _), (begun, labels) in zip(RECORDS, sources, targets, strict=True):
        said = tokens_of(store, record["output"])
        assert read == [*tokens_of(store, "Say: " + record["instruction"]), vocabulary.eos]
        assert begun == [vocabulary.start, *said]
        assert labels == [*said, vocabulary.eos]
    assert (batch.segment_ids[:, -1] == -1).all()
    assert (batch.decoder_segment_ids[:, -1] == -1).all()
    assert batch.example_ids.tolist() == list(range(24))


def test_a_decoder_reads_the_source_as_a_prefix(scratch, store):
    batch, vocabulary, _ = batch_of(scratch(TRANSLATION, "decoder", length=96))
    assert batch.attention == "prefix"
    for record, (ids, labels) in zip(RECORDS, rows_of_examples(batch, 24), strict=True):
        asked, said = tokens_of(store, "Say: " + record["instruction"]), tokens_of(store, record["output"])
        assert ids == [*asked, vocabulary.eos, *said, vocabulary.eos]
        assert labels == [IGNORE] * len(asked) + [*said, vocabulary.eos, IGNORE]
    first = batch.segment_ids[0] == 0
    assert set(batch.prefix[0][first].tolist()) == {len(tokens_of(store, "Say: " + ASKED[0])) + 1}


@pytest.mark.parametrize("side", ["instruction", "output"])
def test_sides_of_any_length_share_rows_without_losing_a_token(scratch, side):
    records = [{**record, side: " ".join([record[side]] * (1 + n % 3))} for n, record in enumerate(RECORDS)]
    batch, _, corpus = batch_of(scratch(TRANSLATION, "encoder_decoder", records))
    rows_of_examples(batch, 24)
    read = int((batch.segment_ids >= 0).sum()) + int((batch.decoder_segment_ids >= 0).sum())
    assert read == corpus.train.num_tokens


def gradients(recipe, micro_rows, tmp_path):
    recipe, corpus = open_corpus(recipe)
    plan = replace(make_plan(recipe, corpus, CPU), micro_rows=micro_rows)
    trainer = Trainer(Run(tmp_path, recipe), corpus, plan, Runtime.choose(recipe.training, 0.0), Silent())
    generator = torch.Generator().manual_seed(0)
    for parameter in trainer.model.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    with make_loader(recipe, corpus, None) as loader:
        losses = trainer.gradients(list(loader.step(0, plan.rows, micro_rows)))
    trainer.close()
    return losses, {name: p.grad for name, p in trainer.model.named_parameters() if p.grad is not None}


@EVERY_KIND
def test_a_step_has_one_gradient_however_it_is_cut(scratch, tmp_path, task, architecture):
    recipe = scratch(task, architecture, dropout=0.1)
    whole_loss, whole = gradients(recipe, 8, tmp_path)
    scale = max(float(g.abs().max()) for g in whole.values())
    assert scale > 1e-3
    for rows in (1, 3):
        loss, cut = gradients(recipe, rows, tmp_path)
        assert loss == pytest.approx(whole_loss, rel=1e-5)
        assert all(torch.allclose(cut[n], g, rtol=0, atol=2e-6 * scale) for n, g in whole.items())


@EVERY_KIND
def test_what_is_written_depends_on_its_own_prompt_alone(scratch, tmp_path, task, architecture):
    recipe = scratch({**task, "longest_answer": 6}, architecture, learning_rate=1e-2)
    run = pretrain(recipe, tmp_path / "run")
    _, corpus = open_corpus(run.recipe)
    model, task = run.load_model(), run.recipe.training_objective
    together = predictions(model, task, corpus.train, run)
    encoder = OffsetTokenizer(run.tokenizer, run.vocabulary)
    for index in (0, 5, 23):
        alone = task.examples(corpus.records[0].take([index]), encoder, model.config, 48)
        assert predictions(model, task, alone, run)[0] == together[index]


@EVERY_KIND
def test_a_model_that_has_learnt_its_records_writes_their_answers(scratch, tmp_path, task, architecture):
    if task["name"] != "instruction":
        pytest.importorskip("sacrebleu", reason="texts are compared by BLEU (extra scores)")
    records = [{"instruction": f"Say {n}.", "input": "", "output": n} for n in ("one", "two", "three")] * 8
    recipe = scratch(
        task, architecture, records, budget_steps=60, learning_rate=1e-2, schedule="wsd", validations=0, warmup=0.1
    )
    found = evaluate_task(pretrain(recipe, tmp_path / "run"))["metrics"]
    assert found["exact_match"]["value"] == 1.0
    assert found["answer_loss"]["value"] < 0.1
    assert found["answer_perplexity"]["value"] == pytest.approx(np.exp(found["answer_loss"]["value"]))
    assert found["answer_loss"]["n"] == sum(len(r) for r in scratch_targets(recipe))


def scratch_targets(recipe):
    batch, _, _ = batch_of(recipe)
    return [row[row != IGNORE].tolist() for row in batch.targets]


def test_a_table_of_positions_ends_an_answer(scratch, tmp_path):
    model = {"positions": {"kind": "learned", "max_position_embeddings": 48}}
    run = pretrain(scratch({**INSTRUCTION, "longest_answer": 60}, length=48, model=model), tmp_path / "run")
    _, corpus = open_corpus(run.recipe)
    found = predictions(run.load_model(), run.recipe.training_objective, corpus.train, run)
    sizes = [len(prompt) for prompt in run.recipe.training_objective.prompts(corpus.train)]
    assert all(len(text) <= 49 - size for text, size in zip(found, sizes, strict=True))


@pytest.mark.parametrize(
    ("task", "record", "told"),
    [
        (INSTRUCTION, {"instruction": "a", "input": "", "output": " "}, "line 25: the column 'output' is empty"),
        (INSTRUCTION, {"instruction": "", "input": " ", "output": "a"}, "line 25: every column of the prompt is empty"),
        (INSTRUCTION, {"instruction": None, "input": "", "output": "a"}, "line 25: the column 'instruction' is null"),
        (INSTRUCTION, {"instruction": "a", "output": "a"}, "line 25: no column 'input'"),
        (TRANSLATION, {"instruction": " ", "output": "a"}, "line 25: the column 'instruction' is empty"),
        (TRANSLATION, {"instruction": "a", "output": 3}, "line 25: the column 'output' is 3"),
    ],
)
def test_wrong_records_are_refused_by_row(scratch, task, record, told):
    with pytest.raises(UserError) as caught:
        open_corpus(scratch(task, records=[*RECORDS, record]))
    assert told in caught.value.message


@pytest.mark.parametrize("prompt", ["no column", "{}", "{a!r}", "{a:3}", "{a"])
def test_a_template_that_names_no_columns_is_refused(prompt):
    with pytest.raises(UserError, match="prompt"):
        build_task("instruction", {"prompt": prompt})


def test_an_objective_and_a_task_may_share_a_name(scratch):
    recipe = scratch(TRANSLATION, "encoder_decoder")
    assert Recipe.load(recipe.dump()) == recipe
    assert recipe.task is not None
    assert not isinstance(build("text_to_text"), Task)


def test_a_score_whose_library_is_missing_is_refused_before_training(monkeypatch):
    from pretextlm.evaluation.scores import table

    monkeypatch.setattr(table, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="sacrebleu"):
        table.score_named("bleu")
    assert table.score_named("exact_match") is table.SCORES["exact_match"]


@pytest.mark.parametrize("task", [INSTRUCTION, TRANSLATION])
def test_what_a_model_reads_does_not_depend_on_the_right_answer(scratch, tmp_path, task):
    """A prompt that is longer than an example is truncated alike, whatever the length of the answer."""
    run = pretrain(scratch({**task, "longest_answer": 3}, architecture="decoder"), tmp_path / "run")
    prompt = " ".join(f"the {n} boats" for n in range(60))
    found = []
    for number, answer in enumerate(("a", " ".join(["a long answer"] * 40))):
        place = tmp_path / f"{number}.jsonl"
        place.write_text(json.dumps({"instruction": prompt, "input": "", "output": answer}) + "\n")
        evaluate_task(run, str(place))
        found.append(json.loads((run.directory / f"predictions-{number}.jsonl").read_text())["answer"])
    place.write_text(json.dumps({"instruction": prompt, "input": ""}) + "\n")
    (alone,) = predict(run, file=str(place))
    assert found == [alone["answer"]] * 2
    task, model = run.recipe.training_objective, run.load_model()
    records = task_records(run, str(tmp_path / "0.jsonl"))[1]
    (asked,) = task.prompts(unanswered(model, task, run, records))
    assert run.recipe.data.length - 3 <= len(asked) <= run.recipe.data.length
