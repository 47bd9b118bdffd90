"""Text in, answer out: published models with tokenizers of many settings answer as in transformers."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from tests.parity.fine_tuned import tuned
from tests.parity.texts import PLACES, TOKENIZERS, published, texts

from pretextlm.cli.fill import fill as command
from pretextlm.evaluation.benchmarks.request_scorer import Request
from pretextlm.evaluation.benchmarks.run import Opened
from pretextlm.evaluation.fill import fill, fill_blanks
from pretextlm.evaluation.generate import generate
from pretextlm.evaluation.predict import predict
from pretextlm.evaluation.trained_model import open_scorer
from pretextlm.hf.export_model import export_model
from pretextlm.hf.import_model import import_model
from pretextlm.model.families.registry import FAMILIES

transformers = pytest.importorskip("transformers", reason="parity is against transformers (extra hub)")

pytestmark = pytest.mark.slow

CLOSE = {"atol": 1e-4, "rtol": 0}
HEADS = [(family, kind) for family, one in FAMILIES.items() for kind in one.task_classes]
LABELS = {0: "O", 1: "B-X", 2: "I-X"}
UNIGRAM = ("xlm", "begins", "t5", "mbart", "other")


def chosen(family: str, count: int = 200) -> tuple[list[str], list[str]]:
    """Two columns of texts. A Unigram model has pieces for the names of special tokens, which are text to us."""
    pairs = zip(texts(count), texts(count, seed=1), strict=True)
    kept = [pair for pair in pairs if TOKENIZERS[family] not in UNIGRAM or "<" not in "".join(pair)]
    return [a for a, _ in kept], [b for _, b in kept]


class Theirs:
    """A model and its tokenizer as transformers loads them, for texts in which the names of special tokens are text."""

    def __init__(self, model, place):
        self.model, self.tokenizer = model, transformers.AutoTokenizer.from_pretrained(place)

    def size(self, *texts_):
        """Tokens of a text or a pair."""
        return len(self.tokenizer(*texts_, split_special_tokens=True).input_ids)

    def __call__(self, first, second=None, **options):
        """(encodings, outputs) of one padded batch."""
        options = {"truncation": True, "max_length": PLACES, "split_special_tokens": True, **options}
        batch = self.tokenizer(first, second, padding=True, padding_side="right", return_tensors="pt", **options)
        if "DistilBert" in type(self.model).__name__:
            batch.pop("token_type_ids", None)
        with torch.inference_mode():
            inputs = {name: value.long() for name, value in batch.items() if name != "offset_mapping"}
            return batch, self.model(**inputs)


def one_class_of_a_text_or_a_pair(theirs, run, family):
    first, second = chosen(family)
    if not theirs.tokenizer.num_special_tokens_to_add():  # transformers fails on a text without tokens
        kept = [n for n, text in enumerate(first) if text]
        first, second = [first[n] for n in kept], [second[n] for n in kept]
    for pairs, parse in ((False, False), (True, False), (True, True)):
        first, second = (column[: 40 if parse else None] for column in (first, second))
        _, found = theirs(first, second if pairs else None, split_special_tokens=not parse)
        rows = [{"text": a} | ({"text_pair": b} if pairs else {}) for a, b in zip(first, second, strict=True)]
        ours = np.array([[*one["probabilities"].values()] for one in predict(run, rows, parse_special_tokens=parse)])
        expected = found.logits.softmax(-1).numpy()
        assert np.ptp(expected, axis=0).max() > 0.05
        np.testing.assert_allclose(ours, expected, **CLOSE)


def a_choice(theirs, run, family):
    """Of short texts: longer choices are refused."""
    short = lambda text: bool(text.strip()) and theirs.size(text) < PLACES // 2 - 2  # noqa: E731
    first, second = (list(filter(short, column)) for column in chosen(family))
    count = min(len(first), len(second)) // 2
    questions, choices = first[:count], second[: 2 * count]
    options = {"padding": True, "split_special_tokens": True, "return_tensors": "pt"}
    flat = theirs.tokenizer([text for text in questions for _ in (0, 1)], choices, **options)
    if "DistilBert" in type(theirs.model).__name__:
        flat.pop("token_type_ids", None)
    with torch.inference_mode():
        logits = theirs.model(**{name: value.view(-1, 2, value.size(1)) for name, value in flat.items()}).logits
    text = next(name for role, name in run.recipe.task.input_columns().items() if role.startswith("text"))
    rows = [{text: one, "choices": choices[2 * n : 2 * n + 2]} for n, one in enumerate(questions)]
    ours = np.array([[*one["probabilities"].values()] for one in predict(run, rows)])
    np.testing.assert_allclose(ours, logits.softmax(-1).numpy(), **CLOSE)


def first_token(batch, row, text, character):
    """The first token of the word that begins at a character; it may be that of the space before it."""
    spans, texts_ = batch["offset_mapping"][row].tolist(), batch.sequence_ids(row)
    ends = [(n, *spans[n]) for n, which in enumerate(texts_) if which is not None]
    return next(n for n, begin, end in ends if end > character or (end == character and text[begin:end] in ("", " ")))


def tags_of_words(theirs, run, family):
    plain = [text for text in chosen(family, 50)[0] if text and text == " ".join(text.split())]
    some = [text for text in plain if theirs.size(text) < PLACES]
    batch, found = theirs(some, return_offsets_mapping=True)
    chances = found.logits.softmax(-1).numpy()
    compared = 0
    for row, one in enumerate(predict(run, some)):
        for tag, score, (start, _) in zip(one["answer"], one["scores"], one["offsets"], strict=True):
            if score is None:  # no token begins in the word
                continue
            expected = chances[row, first_token(batch, row, some[row], start)]
            assert tag == LABELS[int(expected.argmax())]
            assert abs(score - expected.max()) < CLOSE["atol"]
            compared += 1
    assert compared > 100


def a_span_of_a_text(theirs, run, family):
    pairs = list(zip(*chosen(family, 60), strict=True))
    fits = [pair for pair in pairs if all(pair) and theirs.size(*pair) <= PLACES]
    batch, found = theirs([a for a, _ in fits], [b for _, b in fits], return_offsets_mapping=True)
    longest = run.recipe.task.longest_answer
    for row, one in enumerate(predict(run, [{"question": a, "context": b} for a, b in fits])):
        inside = torch.tensor([text == 1 for text in batch.sequence_ids(row)])
        scores = found.start_logits[row][:, None] + found.end_logits[row][None]
        allowed = torch.ones_like(scores).triu().tril(longest - 1).bool() & inside & inside[:, None]
        start, end = divmod(int(scores.masked_fill(~allowed, -1e30).argmax()), scores.size(1))
        spans = batch["offset_mapping"][row]
        assert one["answer"].strip() == fits[row][1][spans[start][0] : spans[end][1]].strip()
    assert len(fits) > 20


CHECKS = {
    "sequence": one_class_of_a_text_or_a_pair,
    "choice": a_choice,
    "token": tags_of_words,
    "span": a_span_of_a_text,
}


@pytest.mark.parametrize(("family", "kind"), [head for head in HEADS if head[0] in TOKENIZERS])
def test_answers_are_those_of_transformers(family, kind, tmp_path):
    named = {"id2label": LABELS, "label2id": {v: k for k, v in LABELS.items()}} if kind in ("sequence", "token") else {}
    model = published(family, FAMILIES[family].task_classes[kind].theirs, tmp_path / "theirs", **named)
    run = import_model(str(tmp_path / "theirs"), tmp_path / "run")
    CHECKS[kind](Theirs(model, tmp_path / "theirs"), run, family)


@pytest.mark.parametrize("family", ["roberta", "electra", "qwen3"])
def test_a_fine_tuned_import_is_exported_with_its_tokenizer(family, tmp_path):
    """Trained on pairs, it reads pairs and texts as its tokenizer frames them, and so does its export."""
    name = next(one for one in FAMILIES[family].classes if "For" in one or "LMHead" in one)
    published(family, name, tmp_path / "theirs")
    start = import_model(str(tmp_path / "theirs"), tmp_path / "start")
    task = {"name": "text_classification", "text_pair": "pair"}
    run = tuned(tmp_path, start.directory, task, learning_rate=0.05)
    export_model(run.directory, tmp_path / "out")
    model = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    theirs = Theirs(model.eval(), tmp_path / "out")
    before = transformers.AutoTokenizer.from_pretrained(tmp_path / "theirs")
    for pair in (("the river", "bread"), ("a", None)):
        assert theirs.tokenizer(*pair)["input_ids"] == before(*pair)["input_ids"]
        assert theirs.tokenizer(*pair).get("token_type_ids") == before(*pair).get("token_type_ids")
    first, second = chosen(family, 60)
    _, found = theirs(first, second, max_length=32)
    rows = [{"text": a, "pair": b} for a, b in zip(first, second, strict=True)]
    ours = np.array([[*one["probabilities"].values()] for one in predict(run, rows)])
    assert np.ptp(ours, axis=0).max() > 0.01
    np.testing.assert_allclose(ours, found.logits.softmax(-1).numpy(), rtol=0, atol=1e-5)
    again = import_model(str(tmp_path / "out"), tmp_path / "again")
    assert again.vocabulary.template == run.vocabulary.template == start.vocabulary.template


TRANSLATIONS = [{"source": text, "target": other} for text, other in zip(*chosen("bart", 15), strict=True)]
TRANSLATIONS = [one for one in TRANSLATIONS if all(text.strip() for text in one.values())]
INSTRUCTIONS = [{"instruction": one["source"], "input": "", "output": one["target"]} for one in TRANSLATIONS]


@pytest.mark.parametrize("family", ["bart", "t5", "mbart"])
def test_a_fine_tuned_encoder_decoder_answers_once_exported(family, tmp_path):
    name = next(one for one in FAMILIES[family].classes if "ForConditional" in one)
    published(family, name, tmp_path / "theirs", decoder_start_token_id={"bart": 2, "mbart": 5, "t5": 0}[family])
    start = import_model(str(tmp_path / "theirs"), tmp_path / "start").directory
    task = {"name": "text_to_text", "longest_answer": 12}
    run = tuned(tmp_path, start, task, {"text_to_text": TRANSLATIONS}, learning_rate=0.003, budget_steps=4)
    export_model(run.directory, tmp_path / "out")
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "out").eval()
    theirs = Theirs(model, tmp_path / "out")
    sources = [text for text in chosen(family, 24)[0] if text.strip() and theirs.size(text) < 32]
    expected = [text.strip() for text in continued(theirs, sources, 12, split_special_tokens=True)]
    assert [one["answer"] for one in predict(run, [{"source": text} for text in sources])] == expected
    assert len(set(expected)) > 1


@pytest.mark.parametrize("family", ["gpt2", "mistral"])
def test_a_fine_tuned_decoder_follows_instructions_once_exported(family, tmp_path):
    name = next(one for one in FAMILIES[family].classes if "ForCausal" in one or "LMHead" in one)
    published(family, name, tmp_path / "theirs")
    start = import_model(str(tmp_path / "theirs"), tmp_path / "start").directory
    task = {"name": "instruction", "longest_answer": 8}
    run = tuned(tmp_path, start, task, {"instruction": INSTRUCTIONS}, learning_rate=0.01, budget_steps=4)
    export_model(run.directory, tmp_path / "out")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    theirs = Theirs(model, tmp_path / "out")
    asked = [text for text in chosen(family, 24)[0] if text.strip() and theirs.size(text) < 20]
    expected = continued(theirs, [f"{text}\n\n" for text in asked], 8, split_special_tokens=True)
    rows = [{"instruction": text, "input": ""} for text in asked]
    assert [one["answer"] for one in predict(run, rows)] == [text.strip() for text in expected]
    assert len(set(expected)) > 1


def continued(theirs, prompts, most, **options):
    """New text of each prompt, by transformers: prompts of one length at a time, so that none is padded."""
    encoded = [theirs.tokenizer(text, **options).input_ids for text in prompts]
    found = [""] * len(prompts)
    for length in sorted({len(ids) for ids in encoded}):
        numbers = [n for n, ids in enumerate(encoded) if len(ids) == length]
        ids = torch.tensor([encoded[n] for n in numbers])
        with torch.inference_mode():
            full = theirs.model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=most)
        for n, row in zip(numbers, full.tolist(), strict=True):
            if theirs.model.config.is_encoder_decoder:
                found[n] = theirs.tokenizer.decode(row, skip_special_tokens=True)
            else:
                before = theirs.tokenizer.decode(encoded[n], skip_special_tokens=True)
                found[n] = theirs.tokenizer.decode(row, skip_special_tokens=True)[len(before) :]
    return found


WRITERS = [
    (family, theirs)
    for family, one in FAMILIES.items()
    for theirs, architecture in one.classes.items()
    if family in TOKENIZERS and architecture != "encoder" and ("For" in theirs or "LMHead" in theirs)
]


@pytest.mark.parametrize(("family", "name"), WRITERS)
def test_prompts_are_continued_as_in_transformers(family, name, tmp_path):
    start = {"bart": 2, "mbart": 5, "t5": 0, "mt5": 0}
    started = {"decoder_start_token_id": start[family]} if family in start else {}
    theirs = Theirs(published(family, name, tmp_path / "theirs", **started), tmp_path / "theirs")
    run = import_model(str(tmp_path / "theirs"), tmp_path / "run")
    prompts = [text for text in chosen(family, 18)[0] if 0 < theirs.size(text) < PLACES - 8]
    for parse in (False, True):
        expected = continued(theirs, prompts, 6, split_special_tokens=not parse)
        found = generate(run, prompts, temperature=0.0, top_p=1.0, max_new_tokens=6, parse_special_tokens=parse)
        assert len(set(expected)) > 3
        assert found == expected


def scored(theirs, context, continuation):
    """Σ log p of the continuation's tokens, by transformers: after the context, in its place, or as an answer to it."""
    bare = {"add_special_tokens": False, "split_special_tokens": True}
    whole = theirs.tokenizer(context + continuation, **bare).input_ids
    before, framed_ = theirs.tokenizer(context, **bare).input_ids, theirs.tokenizer(context + continuation).input_ids
    opening = next(n for n in range(len(framed_)) if framed_[n : n + len(whole)] == whole)
    places = range(opening + len(before), opening + len(whole))
    with torch.inference_mode():
        if theirs.model.config.is_encoder_decoder:
            answer = theirs.tokenizer(continuation.strip(), **bare).input_ids
            start = theirs.model.generation_config.decoder_start_token_id
            source = torch.tensor([theirs.tokenizer(context).input_ids])
            logits = theirs.model(input_ids=source, decoder_input_ids=torch.tensor([[start, *answer[:-1]]])).logits[0]
            return float(logits.log_softmax(-1)[range(len(answer)), answer].sum())
        if theirs.tokenizer.mask_token is None:
            ids = [*framed_[:opening], *whole] if places[0] else [theirs.tokenizer.bos_token_id, *whole]
            shift = len(ids) - opening - len(whole)
            logs = theirs.model(torch.tensor([ids])).logits[0].log_softmax(-1)
            return float(sum(logs[place + shift - 1, framed_[place]] for place in places))
        total = 0.0
        for place in places:
            hidden = [*framed_[:place], theirs.tokenizer.mask_token_id, *framed_[place + 1 :]]
            total += float(theirs.model(torch.tensor([hidden])).logits[0, place].log_softmax(-1)[framed_[place]])
        return total


@pytest.mark.parametrize(
    ("family", "name"),
    [
        ("gpt2", "GPT2LMHeadModel"),
        ("mistral", "MistralForCausalLM"),
        ("qwen3", "Qwen3ForCausalLM"),
        ("t5", "T5ForConditionalGeneration"),
        ("electra", "ElectraForMaskedLM"),
        ("roberta", "RobertaForMaskedLM"),
    ],
)
def test_continuations_are_scored_as_by_transformers(family, name, tmp_path):
    started = {"decoder_start_token_id": 0} if family == "t5" else {}
    theirs = Theirs(published(family, name, tmp_path / "theirs", **started), tmp_path / "theirs")
    run = import_model(str(tmp_path / "theirs"), tmp_path / "run")
    contexts = ["The river carries", "Nobody", "def add(a, b):", "나는 어제"]
    requests = [(context, more) for context in contexts for more in (" the letters", " bread in 2")]
    found = Opened(run.directory).scorer("auto", 4).score([Request(*one) for one in requests])
    expected = [scored(theirs, *one) for one in requests]
    np.testing.assert_allclose([one.log_likelihood for one in found], expected, atol=1e-3)


MASKED = [
    (family, theirs)
    for family, one in FAMILIES.items()
    for theirs in one.classes
    if theirs.endswith("ForMaskedLM") and family in TOKENIZERS and family != "longformer"
]
"""Longformer's first token is global to us, as in its classifiers; the pipeline makes none global."""


@pytest.mark.parametrize(("family", "name"), MASKED)
def test_masks_are_filled_as_in_transformers(family, name, tmp_path):
    """By the pipeline fill-mask, which reads the names of special tokens as those tokens."""
    theirs = Theirs(published(family, name, tmp_path / "theirs"), tmp_path / "theirs")
    run = import_model(str(tmp_path / "theirs"), tmp_path / "run")
    mask, names = theirs.tokenizer.mask_token, theirs.tokenizer.all_special_tokens
    pipeline = transformers.pipeline("fill-mask", model=theirs.model, tokenizer=theirs.tokenizer, top_k=3)
    some = [text for text in chosen(family, 14)[0] if theirs.size(text) < PLACES - 10 and "[MASK]" not in text]
    cuts = [len(text) * (number % 5) // 4 for number, text in enumerate(some)]
    masked = [f"{text[:cut]}{mask}{text[cut:]}" for text, cut in zip(some, cuts, strict=True)]
    scorers = {parse: open_scorer(run, None, parse) for parse in (False, True)}
    for text, expected in zip(masked, pipeline(masked), strict=True):
        kinds = (True,) if any(name in text.replace(mask, "") for name in names) else (False, True)
        for parse in kinds:
            (blank,) = fill_blanks(scorers[parse], text, top=3).blanks
            shown = [one["token_str"].strip().removeprefix("##") for one in expected]
            found = [answer.removeprefix("##") for answer, _ in blank.answers]
            assert all(a == b or not b for a, b in zip(found, shown, strict=True)), (text, found, shown)
            np.testing.assert_allclose(
                np.exp([score for _, score in blank.answers]), [one["score"] for one in expected], **CLOSE
            )


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("bert", {"tokenizer_class": "BertTokenizer", "do_lower_case": False}),
        ("bert", {"tokenizer_class": "BertTokenizerFast", "do_lower_case": True, "strip_accents": False}),
        ("roberta", {"tokenizer_class": "RobertaTokenizer", "add_prefix_space": True}),
        ("gpt2", {"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": True}),
        ("gpt2", {"tokenizer_class": "PreTrainedTokenizerFast", "add_prefix_space": True}),
    ],
)
def test_options_of_a_tokenizer_class_replace_those_of_the_file(family, settings, tmp_path):
    published(family, FAMILIES[family].task_classes["sequence"].theirs, tmp_path / "theirs")
    (tmp_path / "theirs/tokenizer_config.json").write_text(json.dumps(settings))
    run = import_model(str(tmp_path / "theirs"), tmp_path / "run")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "theirs")
    for text in ("The river", "ÄÖÜ naïve café", "two"):
        around = run.vocabulary.template.around(run.tokenizer.encode(text, add_special_tokens=False).ids)
        assert around == tokenizer(text).input_ids


def test_the_command_line_parses_special_tokens_on_request(tmp_path, capsys):
    theirs = Theirs(published("roberta", "RobertaForMaskedLM", tmp_path / "theirs"), tmp_path / "theirs")
    run = import_model(str(tmp_path / "theirs"), tmp_path / "run").directory
    text = "The river</s></s>carries <mask> in the village."
    found = fill(run, text, parse_special_tokens=True, top=1)
    assert found != fill(run, text, top=1)
    command(run, text, top=1, parse_special_tokens=True, as_json=True)
    assert json.loads(capsys.readouterr().out)["text"] == found.text
    pipeline = transformers.pipeline("fill-mask", model=theirs.model, tokenizer=theirs.tokenizer, top_k=1)
    assert np.exp(found.blanks[0].answers[0][1]) == pytest.approx(pipeline(text)[0]["score"], abs=1e-4)
