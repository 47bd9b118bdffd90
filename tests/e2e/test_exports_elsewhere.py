"""Every fine-tuned kind, exported and asked in a process that has no pretextlm: text in, the run's answers out."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from tests.foreign import bert_directory, word_pieces
from tests.parity.families import randomised
from tests.parity.fine_tuned import LLAMA, ROWS, tuned

from pretextlm.evaluation.predict import predict
from pretextlm.hf.export_model import export_model
from pretextlm.hf.import_model import import_model
from pretextlm.hf.peft_adapter import export_adapter

transformers = pytest.importorskip("transformers", reason="it is the reader (extra hub)")
pytest.importorskip("sentence_transformers", reason="it is a reader (extra dev)")
pytest.importorskip("peft", reason="it is a reader (extra lora)")
pytest.importorskip("lm_eval", reason="it is a reader (extra harness)")

pytestmark = pytest.mark.slow

T5 = {"vocab_size": 64, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4, "pad_token_id": 0}
TEXTS = ["the old ship sails", "A river?", "the ship, the old river. 배 🚢 def f(x):", "the ship " * 40]
MORE = {
    "multiple_choice": [
        {"text": f"the ship {i}", "choices": ["it sails", "a river", "the old cat"][: 2 + i % 2], "label": i % 2}
        for i in range(6)
    ],
    "sentence_embedding": [{"anchor": f"the ship {i}", "positive": f"a ship {i} sails"} for i in range(6)],
    "text_to_text": [{"source": f"the ship {i}", "target": "it sails"} for i in range(6)],
    "instruction": [{"instruction": f"the ship {i}", "input": "", "output": "it sails"} for i in range(6)],
}
RECORDS = {
    "text_classification": TEXTS,
    "text_regression": TEXTS,
    "token_classification": [{"tokens": text.split()} for text in TEXTS[:3]],
    "multiple_choice": [{"text": text, "choices": ["it sails", "a river"]} for text in TEXTS[:3]],
    "question_answering": [{"question": "what sails?", "context": text} for text in TEXTS[:3]],
    "sentence_embedding": TEXTS,
    "text_to_text": TEXTS[:3],
    "instruction": [{"instruction": text, "input": ""} for text in TEXTS[:2]],
}
READER = """
import json, sys
sys.modules["pretextlm"] = None  # importing it fails
import numpy as np, torch, transformers as t
from lm_eval.models.huggingface import HFLM
from peft import AutoPeftModelForSequenceClassification
from sentence_transformers import SentenceTransformer

t.logging.set_verbosity_error()
place, records = sys.argv[1], json.loads(sys.argv[2])
found = {}

def opened(name, cls):
    return t.AutoTokenizer.from_pretrained(f"{place}/{name}"), cls.from_pretrained(f"{place}/{name}").eval()

def scores(tokenizer, model, *texts):
    with torch.inference_mode():
        read = tokenizer(*texts, truncation=True, max_length=32, return_tensors="pt")
        return model(**read).logits[0]

tokenizer, model = opened("text_classification", t.AutoModelForSequenceClassification)
texts = records["text_classification"]
def classified(model):
    chances = [scores(tokenizer, model, text).softmax(0) for text in texts]
    return [{model.config.id2label[i]: float(p) for i, p in enumerate(one)} for one in chances]
found["text_classification"] = classified(model)
labels = {"num_labels": 3, "id2label": model.config.id2label, "label2id": model.config.label2id}
adapted = AutoPeftModelForSequenceClassification.from_pretrained(f"{place}/adapter", **labels).eval()
tokenizer = t.AutoTokenizer.from_pretrained(f"{place}/adapter")
found["adapter"] = classified(adapted)

tokenizer, model = opened("text_regression", t.AutoModelForSequenceClassification)
found["text_regression"] = [float(scores(tokenizer, model, text)[0]) for text in texts]

tokenizer, model = opened("token_classification", t.AutoModelForTokenClassification)
found["token_classification"] = []
for one in records["token_classification"]:
    read = tokenizer(one["tokens"], is_split_into_words=True, return_tensors="pt")
    tags = model(**read).logits[0].argmax(1).tolist()
    words = read.word_ids()
    firsts = [words.index(n) for n in range(len(one["tokens"]))]
    found["token_classification"].append([model.config.id2label[tags[place]] for place in firsts])

tokenizer, model = opened("multiple_choice", t.AutoModelForMultipleChoice)
found["multiple_choice"] = []
for one in records["multiple_choice"]:
    read = tokenizer([one["text"]] * 2, one["choices"], padding=True, return_tensors="pt")
    found["multiple_choice"].append(str(int(model(**{k: v[None] for k, v in read.items()}).logits.argmax())))

tokenizer, model = opened("question_answering", t.AutoModelForQuestionAnswering)
found["question_answering"] = []
for one in records["question_answering"]:
    read = tokenizer(one["question"], one["context"], return_tensors="pt", return_offsets_mapping=True)
    spans = read.pop("offset_mapping")[0].tolist()
    inside = [n for n, part in enumerate(read.sequence_ids()) if part == 1]
    out = model(**read)
    start, end = out.start_logits[0], out.end_logits[0]
    pairs = [(i, j) for i in inside for j in inside if i <= j < i + 30]
    i, j = max(pairs, key=lambda pair: float(start[pair[0]] + end[pair[1]]))
    found["question_answering"].append(one["context"][spans[i][0] : spans[j][1]])

model = SentenceTransformer(f"{place}/sentence_embedding", device="cpu")
found["sentence_embedding"] = model.encode(records["sentence_embedding"]).tolist()

def written(name, cls, prompts):
    tokenizer, model = opened(name, cls)
    answers = []
    for prompt in prompts:
        read = tokenizer(prompt, return_tensors="pt")
        ids = model.generate(**read, max_new_tokens=6, do_sample=False, num_beams=1)[0]
        ids = ids if model.config.is_encoder_decoder else ids[read["input_ids"].shape[1] :]
        answers.append(tokenizer.decode(ids, skip_special_tokens=True).strip())
    return answers

found["text_to_text"] = written("text_to_text", t.AutoModelForSeq2SeqLM, records["text_to_text"])
prompts = [one["instruction"] + "\\n\\n" for one in records["instruction"]]
found["instruction"] = written("instruction", t.AutoModelForCausalLM, prompts)
harness = HFLM(pretrained=f"{place}/instruction", device="cpu", dtype="float32")
found["lm_eval"] = harness.max_length > 0
json.dump(found, open(sys.argv[3], "w"))
"""


def encoder(place):
    return import_model(bert_directory(place / "published"), place / "start").directory


def decoder(place):
    return import_of(place, transformers.LlamaForCausalLM(transformers.LlamaConfig(**LLAMA)))


def encoder_decoder(place):
    return import_of(place, transformers.T5ForConditionalGeneration(transformers.T5Config(**T5)))


def import_of(place, model):
    randomised(model).save_pretrained(place / "published")
    word_pieces().save(str(place / "published" / "tokenizer.json"))
    return import_model(place / "published", place / "start").directory


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """({kind: the run's own answers}, {kind: those of the exported directory, elsewhere})."""
    place, ours = tmp_path_factory.mktemp("runs"), {}
    out = place / "out"
    starts = {"instruction": decoder, "text_to_text": encoder_decoder}
    for kind, records in RECORDS.items():
        (place / kind).mkdir()
        options = {"longest_answer": 6} if kind in starts else {}
        options |= {"label_names": ["0", "1", "2"]} if kind == "multiple_choice" else {}
        start = starts.get(kind, encoder)(place / kind)
        run = tuned(place / kind, start, {"name": kind, **options}, rows_of={**ROWS, **MORE}, learning_rate=0.01)
        assert export_model(run.directory, out / kind).checked.startswith("checked")
        ours[kind] = predict(run, records)
    (place / "adapted").mkdir()
    lora = {"lora": {"rank": 4, "targets": ["q_proj", "up_proj"]}}
    start = encoder(place / "adapted")
    run = tuned(place / "adapted", start, {"name": "text_classification"}, tuning=lora, learning_rate=0.05)
    export_adapter(run.directory, out / "adapter")
    ours["adapter"] = predict(run, RECORDS["text_classification"])
    found = place / "found.json"
    environment = {**os.environ, "PYTHONPATH": "", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", READER, str(out), json.dumps(RECORDS), str(found)]
    done = subprocess.run(command, env=environment, cwd=place, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return ours, json.loads(found.read_text())


@pytest.mark.parametrize("kind", ["text_classification", "adapter"])
def test_classes_have_the_same_names_and_probabilities(answers, kind):
    ours, theirs = answers[0][kind], answers[1][kind]
    for one, other in zip(ours, theirs, strict=True):
        assert other == pytest.approx(one["probabilities"], abs=1e-4)


@pytest.mark.parametrize("kind", ["text_regression", "sentence_embedding"])
def test_numbers_are_the_same(answers, kind):
    for one, other in zip(answers[0][kind], answers[1][kind], strict=True):
        assert other == pytest.approx(one["answer"], abs=1e-4)


@pytest.mark.parametrize(
    "kind", ["token_classification", "multiple_choice", "question_answering", "text_to_text", "instruction"]
)
def test_answers_are_the_same(answers, kind):
    ours = [one["answer"] for one in answers[0][kind]]
    assert [one.strip() if isinstance(one, str) else one for one in ours] == answers[1][kind]


def test_the_harness_loads_a_decoder(answers):
    assert answers[1]["lm_eval"]
