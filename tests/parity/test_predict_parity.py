"""`predict` of imported models answers a text as transformers' pipelines do."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.foreign import word_pieces
from tests.parity.fine_tuned import foreign
from tests.parity.texts import PLACES, published, texts
from tokenizers.processors import TemplateProcessing

from pretextlm.data.word_boundaries import is_white
from pretextlm.evaluation.predict import predict
from pretextlm.hf.import_model import import_model
from pretextlm.model.families.registry import FAMILIES

transformers = pytest.importorskip("transformers", reason="parity is against transformers (extra hub)")

pytestmark = pytest.mark.slow

TEXTS = [
    "the old ship sails.",
    "a ship, the river?  sailed",
    "old",
    "the river [a ship], the old, old ship.",
    "\nriver.",
]
TAGS = ["O", "B-x", "I-x", "I-y"]
BARE = ["O", "x", "y", "z"]


def their_tokenizer():
    tokenizer = word_pieces()
    pieces = {name: tokenizer.token_to_id(name) for name in ("[CLS]", "[SEP]")}
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=list(pieces.items())
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="[UNK]",
        pad_token="[PAD]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


@pytest.mark.parametrize("tags", [TAGS, BARE], ids=["iob", "bare"])
def test_names_and_their_characters_are_those_of_the_token_classification_pipeline(tmp_path, tags):
    model = foreign("bert", "token", tmp_path / "theirs", id2label=dict(enumerate(tags)), label2id={})
    read = their_tokenizer()(TEXTS, padding=True, return_tensors="pt")
    with torch.inference_mode():
        usual = model(**read).logits[read["attention_mask"] == 1].mean(0)
    model.classifier.bias.data -= usual  # else every token has the same tag
    model.save_pretrained(tmp_path / "theirs")
    pipeline = transformers.pipeline(
        "token-classification", model=model, tokenizer=their_tokenizer(), aggregation_strategy="first"
    )
    run = import_model(str(tmp_path / "theirs"), tmp_path / "run")
    found = predict(run.directory, TEXTS)
    expected = pipeline(TEXTS)
    assert sum(map(len, expected)) > 5
    for one, theirs in zip(found, expected, strict=True):
        ours = [(name["type"], name["start"], name["end"]) for name in one["names"]]
        assert ours == [(name["entity_group"], name["start"], name["end"]) for name in theirs]
        assert [n["score"] for n in one["names"]] == pytest.approx([float(n["score"]) for n in theirs], abs=1e-5)
        assert all(name["text"] == one["text"][name["start"] : name["end"]] for name in one["names"])


def test_an_imported_classifier_reads_two_texts_whatever_they_are_called(tmp_path):
    model = foreign("bert", "sequence", tmp_path / "theirs")
    pipeline = transformers.pipeline("text-classification", model=model, tokenizer=their_tokenizer(), top_k=None)
    run = import_model(str(tmp_path / "theirs"), tmp_path / "run").directory
    a, b = "the old ship sails.", "a river"
    expected = {one["label"]: one["score"] for one in pipeline({"text": a, "text_pair": b})}
    for given in ([f"premise={a}", f"hypothesis={b}"], [f"text={a}", f"text_pair={b}"], {"text": a, "text_pair": b}):
        (found,) = predict(run, given)
        assert found["probabilities"] == pytest.approx(expected, abs=1e-5)
    alone = predict(run, [a, "x=1", "y=2"])
    assert len(alone) == 3
    (expected,) = pipeline([a])
    assert alone[0]["probabilities"] == pytest.approx({one["label"]: one["score"] for one in expected}, abs=1e-5)


def test_an_import_reads_as_many_tokens_as_the_pipeline(tmp_path):
    model = foreign("bert", "sequence", tmp_path / "theirs", max_position_embeddings=700)
    pipeline = transformers.pipeline("text-classification", model=model, tokenizer=their_tokenizer(), top_k=None)
    run = import_model(str(tmp_path / "theirs"), tmp_path / "run").directory
    text = "the old ship " + "a river " * 290 + "sails"  # more tokens than `data.length` of an import, 512
    found, longer = predict(run, [text, text + " the ship" * 100])
    assert "note" not in found
    assert "700 of 787 tokens" in longer["note"]
    (expected,) = pipeline([text])
    assert found["probabilities"] == pytest.approx({one["label"]: one["score"] for one in expected}, abs=1e-5)


SPACES = "".join(map(chr, np.flatnonzero(is_white()).tolist()))
"""That ours leaves out at the ends of what it shows; transformers keeps it."""
TAGGERS = ["albert", "roberta", "llama"]
"""Families with a Unigram tokenizer, a byte-level one, and one of a decoder."""


@pytest.mark.parametrize("family", TAGGERS)
def test_a_word_has_the_tag_that_transformers_gives_to_its_first_token(family, tmp_path):
    named = {"id2label": dict(enumerate(TAGS)), "label2id": {}}
    model = published(family, FAMILIES[family].task_classes["token"].theirs, tmp_path / "theirs", **named)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "theirs")
    run = import_model(str(tmp_path / "theirs"), tmp_path / "run").directory
    checked, tags = 0, set()
    plain = [text for text in texts(60) if "<" not in text and "[" not in text]
    kept = [text for text in plain if len(tokenizer(text).input_ids) < PLACES]
    for text, ours in zip(kept, predict(run, kept), strict=True):
        if not tokenizer(text).input_ids:
            continue
        read = tokenizer(text, return_offsets_mapping=True, return_special_tokens_mask=True, return_tensors="pt")
        places, special = read.pop("offset_mapping")[0].tolist(), read.pop("special_tokens_mask")[0].tolist()
        with torch.inference_mode():
            chances = model(**read).logits[0].softmax(-1)
        theirs = {}
        for (begin, end), apart, chance in zip(places, special, chances, strict=True):
            seen = text[begin:end].strip(SPACES)
            begin = text.index(seen, begin) if seen else end if text[begin:end].endswith(" ") else begin
            if not apart:
                theirs.setdefault(begin, chance)
        for (begin, _), tag, score in zip(ours["offsets"], ours["answer"], ours["scores"], strict=True):
            if score is None or begin not in theirs:
                continue
            assert tag == TAGS[int(theirs[begin].argmax())]
            assert score == pytest.approx(float(theirs[begin].max()), abs=1e-4)
            checked, tags = checked + 1, tags | {tag}
    blank, nothing = predict(run, [" ", ""])
    assert blank["answer"] == nothing["answer"] == predict(run, "")[0]["answer"] == []
    assert checked > 200
    assert len(tags) > 1


@pytest.mark.parametrize("family", ["roberta"])
def test_an_answer_is_the_span_that_transformers_finds_likeliest(family, tmp_path):
    model = published(family, FAMILIES[family].task_classes["span"].theirs, tmp_path / "theirs")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "theirs")
    run = import_model(str(tmp_path / "theirs"), tmp_path / "run").directory
    kept = [text for text in texts(80) if "<" not in text and "[" not in text and text.strip()]
    asked = [pair for pair in zip(kept[::2], kept[1::2], strict=False) if len(tokenizer(*pair).input_ids) < PLACES]
    *found, empty = predict(run, [{"question": q, "context": c} for q, c in [*asked, ("Who?", "")]])
    assert (empty["answer"], empty["start"], empty["end"]) == ("", None, None)
    assert len(found) > 20
    for (question, context), ours in zip(asked, found, strict=True):
        read = tokenizer(question, context, return_offsets_mapping=True, return_tensors="pt")
        places, of = read.pop("offset_mapping")[0].tolist(), read.sequence_ids(0)
        with torch.inference_mode():
            scores = model(**read)
        inside = [n for n, text in enumerate(of) if text == 1]
        spans = [(a, b) for a in inside for b in inside if a <= b < a + 30]
        first, last = max(spans, key=lambda span: scores.start_logits[0][span[0]] + scores.end_logits[0][span[1]])
        begin, end = places[first][0], places[last][1]
        seen = context[begin:end].strip(SPACES)
        begin = context.index(seen, begin)
        end = begin + len(seen)
        assert (ours["answer"], ours["start"], ours["end"]) == (context[begin:end], begin, end)
