"""Runs of the default trunk, exported and read where pretextlm cannot be imported: the same answers to the texts."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from tests.builders import make_store
from tests.parity.families import our_states, randomised
from tokenizers import Tokenizer

from pretextlm.evaluation.fill import fill
from pretextlm.evaluation.generate import generate
from pretextlm.evaluation.predict import predict
from pretextlm.hf import custom_code
from pretextlm.hf.export_model import export_model
from pretextlm.hf.import_model import import_model
from pretextlm.objectives.registry import OBJECTIVES as REGISTRY
from pretextlm.training import checkpoint as checkpoints
from pretextlm.training.recipe import Recipe
from pretextlm.training.run_directory import Run
from pretextlm.training.run_start import build_model
from pretextlm.training.state import TrainerState

pytest.importorskip("transformers", reason="it is the reader (extra hub)")
pytestmark = pytest.mark.slow

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
OBJECTIVES = {
    "masked": ("encoder", {"name": "masked"}),
    "target": ("encoder_decoder", {"name": "text_to_text", "unsupervised": 0.0}),
    "prefix": ("decoder", {"name": "prefix"}),
    "source": ("decoder", {"name": "text_to_text", "layout": "prefix", "unsupervised": 0.0}),
    "mntp": ("decoder", {"name": "masked", "predict": "next"}),
    "replaced": ("encoder", {"name": "replaced_token"}),
}
LABELS = ["bad", "so so", "good"]
TASKS = {
    "classes": ("encoder", {"name": "text_classification", "labels": LABELS, "text_pair": "pair"}),
    "number": ("encoder", {"name": "text_regression", "mean": 3.0, "spread": 2.0, "head": "gelu"}),
    "tags": ("encoder", {"name": "token_classification", "labels": ["O", "B-x", "I-x", "B-y"]}),
    "answer": ("encoder", {"name": "question_answering"}),
    "choice": ("encoder", {"name": "multiple_choice", "label_names": ["0", "1"]}),
    "plain": ("decoder", {"name": "text_classification", "labels": LABELS}),
}
TEXTS = ["The river carries the letters.", "Nobody opens warm bread before dawn, 강가에서.", "Winter"]
BLANK = "The river [MASK] the letters."
PAIRS = ["Winter", "The law remembers her brother.", "강가에서 the law"]
PROMPTS = ["The river", "Every child remembers", "Nobody"]
NEW = 8


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("data") / "store", train=40, validation=10, pairs=10)


def untrained(store, directory, kind, **learns):
    """A run whose every parameter is random, as if it had been trained."""
    place = str(store.path)
    labelled = {"train": "rows.jsonl", "validation": "rows.jsonl", "tokenizer": place}
    data = labelled if "task" in learns else {"store": place}
    name = learns.get("objective", {}).get("name")
    types = REGISTRY[name]().num_token_types() if name else 0
    values = {
        "data": {**data, "length": 64},
        "model": {"architecture": kind, "type_vocab_size": types, **SMALL},
        "training": {"budget_steps": 2},
        **learns,
    }
    recipe = Recipe.load(values).with_vocabulary(store.vocabulary)
    run = Run.create(directory, recipe, {}, store.path / "tokenizer.json")
    model = randomised(build_model(recipe, torch.device("cpu")))
    checkpoints.save(run.checkpoints, 2, model.state_dict(), {}, vars(TrainerState(step=2)), keep=1)
    return run


@pytest.fixture(scope="module")
def exported(store, tmp_path_factory):
    """(runs, directories) by name."""
    place, runs = tmp_path_factory.mktemp("exported"), {}
    for name, (kind, learns) in (OBJECTIVES | TASKS).items():
        runs[name] = untrained(store, place / name, kind, **{"objective" if name in OBJECTIVES else "task": learns})
        export_model(runs[name], place / "out" / name, check=False)
    return runs, place / "out"


READER = """
import json, sys
sys.modules["pretextlm"] = None  # importing it fails
import torch, transformers
place, wanted = sys.argv[1], json.loads(sys.argv[2])
trust = {"trust_remote_code": True}

def loaded(name, kind):
    tokenizer = transformers.AutoTokenizer.from_pretrained(f"{place}/{name}", **trust)
    return tokenizer, getattr(transformers, f"AutoModel{kind}").from_pretrained(f"{place}/{name}", **trust).eval()

found = {}
for name, kind in (("target", "ForSeq2SeqLM"), ("prefix", "ForCausalLM"), ("source", "ForCausalLM")):
    tokenizer, model = loaded(name, kind)
    tokenizer.padding_side = "left"
    ends = {tokenizer.eos_token_id}
    never = [i for i, token in tokenizer.added_tokens_decoder.items() if token.special and i not in ends]
    batch = tokenizer(wanted["prompts"], padding=True, return_tensors="pt")
    for beams in (1, 2):
        out = model.generate(**batch, max_new_tokens=8, do_sample=False, suppress_tokens=never, num_beams=beams)
        begin = 0 if name == "target" else batch["input_ids"].shape[1]
        found[f"{name} {beams}"] = tokenizer.batch_decode(out[:, begin:], skip_special_tokens=True)
for name, kind in (("masked", "ForMaskedLM"), ("mntp", ""), ("replaced", "")):
    tokenizer, model = loaded(name, kind)
    batch = tokenizer(wanted["texts"], padding=True, return_tensors="pt")
    with torch.inference_mode():
        found[name] = [row[mask == 1].tolist() for row, mask in zip(model(**batch)[0], batch["attention_mask"])]
    model.save_pretrained(f"{place}/again")
    again = getattr(transformers, f"AutoModel{kind}").from_pretrained(f"{place}/again", **trust)
    found[name + " again"] = type(again).__name__

tokenizer, model = loaded("masked", "ForMaskedLM")
answers = transformers.pipeline("fill-mask", model=model, tokenizer=tokenizer, top_k=100)(wanted["blank"])
found["fill"] = {one["token_str"]: one["score"] for one in answers}

def scores(name, kind, *texts):
    tokenizer, model = loaded(name, kind)
    batch = tokenizer(*texts, padding=True, return_tensors="pt")
    with torch.inference_mode():
        return model(**batch), model.config

texts, pairs = wanted["texts"], wanted["pairs"]
for name, read in (("classes", (texts, pairs)), ("plain", (texts,))):
    out, config = scores(name, "ForSequenceClassification", *read)
    found[name] = [{config.id2label[i]: p for i, p in enumerate(row)} for row in out.logits.softmax(1).tolist()]
found["number"] = scores("number", "ForSequenceClassification", texts)[0].logits[:, 0].tolist()
out, _ = scores("answer", "ForQuestionAnswering", pairs, texts)
found["answer"] = (out.start_logits[:, 0] + out.end_logits[:, 0]).tolist()
tokenizer, model = loaded("tags", "ForTokenClassification")
tag = transformers.pipeline("token-classification", model=model, tokenizer=tokenizer, ignore_labels=[])
found["tags"] = [[(one["start"], one["end"], one["entity"]) for one in tag(text)] for text in texts]
tokenizer, model = loaded("choice", "ForMultipleChoice")
batch = tokenizer(texts * 2, [pairs[0]] * len(texts) + [pairs[1]] * len(texts), padding=True, return_tensors="pt")
batch = {key: rows.view(2, len(texts), -1).transpose(0, 1) for key, rows in batch.items()}
with torch.inference_mode():
    found["choice"] = model(**batch).logits.softmax(1).tolist()
if "lm_eval" in wanted["tools"]:
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM
    for name, backend in (("target", "seq2seq"), ("prefix", "causal")):
        harness = HFLM(pretrained=f"{place}/{name}", backend=backend, device="cpu", dtype="float32", **trust)
        asked = [Instance("loglikelihood", {}, (prompt, " the letters"), 0) for prompt in wanted["prompts"]]
        found["harness " + name] = [score for score, _ in harness.loglikelihood(asked, disable_tqdm=True)]
print(json.dumps(found))
"""


def read(place, **wanted):
    """What the reader prints of the directories."""
    environment = {**os.environ, "HF_HOME": str(place / "hub"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", READER, str(place), json.dumps(wanted)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_the_same_answers_without_pretextlm(exported):
    runs, place = exported
    tools = [name for name in ("lm_eval",) if importlib.util.find_spec(name)]
    found = read(place, prompts=PROMPTS, texts=TEXTS, pairs=PAIRS, blank=BLANK, tools=tools)
    for name in ("target", "prefix", "source"):
        for beams in (1, 2):
            expected = generate(runs[name], PROMPTS, temperature=0.0, max_new_tokens=NEW, beams=beams)
            assert found[f"{name} {beams}"] == expected
            assert len(set(expected)) > 1
    filled = fill(runs["masked"], BLANK, max_new_tokens=1).blanks[0].answers
    assert len(filled) == 5
    for answer, score_of in filled:  # " the", which takes up the space before it, or the piece of a word "the"
        theirs = [math.log(found["fill"][form]) for form in (f" {answer}", answer) if form in found["fill"]]
        assert score_of == pytest.approx(min(theirs, key=lambda x: abs(x - score_of)), abs=1e-5)
    for name, attention in (("masked", "bidirectional"), ("mntp", "bidirectional"), ("replaced", "bidirectional")):
        model = runs[name].load_model()
        tokenizer = Tokenizer.from_file(str(place / name / "tokenizer.json"))
        for text, states in zip(TEXTS, found[name], strict=True):
            expected = our_states(model, input_ids=[tokenizer.encode(text).ids], attention=attention)[0]
            with torch.inference_mode():
                expected = model.logits(expected) if name == "masked" else expected
            np.testing.assert_allclose(states, expected.numpy(), atol=1e-5, rtol=1e-5)
        assert found[f"{name} again"] == json.loads((place / name / "config.json").read_text())["architectures"][0]

    both = [{"text": a, "pair": b} for a, b in zip(TEXTS, PAIRS, strict=True)]
    for name, records in (("classes", both), ("plain", TEXTS)):
        for theirs, one in zip(found[name], predict(runs[name], records), strict=True):
            assert one["probabilities"] == pytest.approx(theirs, abs=1e-5)
    assert [one["answer"] for one in predict(runs["number"], TEXTS)] == pytest.approx(found["number"], abs=1e-5)
    for theirs, one in zip(found["tags"], predict(runs["tags"], TEXTS), strict=True):
        if not one["text"].isascii():  # a character may be several tokens there
            continue
        first = [next(tag for a, b, tag in theirs if a <= start < b) for start, _ in one["offsets"]]
        assert one["answer"] == first
    choices = [{"text": text, "choices": PAIRS[:2]} for text in TEXTS]
    for theirs, one in zip(found["choice"], predict(runs["choice"], choices), strict=True):
        assert list(one["probabilities"].values()) == pytest.approx(theirs, abs=1e-5)
    for name in ("target", "prefix") if "lm_eval" in tools else ():
        np.testing.assert_allclose(found[f"harness {name}"], [score(runs[name], one) for one in PROMPTS], rtol=1e-5)


def score(run, prompt):
    """The log-likelihood of " the letters" after a prompt, or as its target, by our model."""
    known, architecture = run.vocabulary, run.recipe.model.architecture
    ids, answer = (run.tokenizer.encode(text, add_special_tokens=False).ids for text in (prompt, " the letters"))
    if architecture == "encoder_decoder":
        rows = {"input_ids": [[*ids, known.eos]], "decoder_input_ids": [[known.start, *answer[:-1]]]}
    else:
        rows = {"input_ids": [[known.bos, *ids, *answer[:-1]]], "attention": "causal"}
    with torch.inference_mode():
        logits = run.load_model().logits(our_states(run.load_model(), **rows)[0, -len(answer) :])
        return logits.log_softmax(-1)[range(len(answer)), answer].sum().item()


@pytest.mark.parametrize(
    "name", ["masked", "target", "prefix", "mntp", "replaced", "classes", "number", "plain", "answer"]
)
def test_an_export_comes_back_bit_for_bit(exported, tmp_path, name):
    runs, place = exported
    back = import_model(place / name, tmp_path / "back")
    expected = runs[name].load_model().state_dict()
    if name == "number":  # its mean and spread are in the weights
        found, wanted = ([one["answer"] for one in predict(run, TEXTS)] for run in (back, runs[name]))
        assert found == pytest.approx(wanted, abs=1e-5)
    for key, tensor in back.load_model().state_dict().items():
        if not (name == "number" and key.startswith("heads.task.out")):
            assert torch.equal(tensor, expected[key]), key
    found, wanted = back.recipe.training_objective, runs[name].recipe.training_objective
    assert type(found) is type(wanted) or name in ("target", "replaced")
    assert found.decoder_attention == wanted.decoder_attention or name in ("target", "replaced")
    export_model(back, tmp_path / "again", check=False)
    for file in ("model.safetensors", "config.json", "tokenizer.json", custom_code.CODE):
        assert (tmp_path / "again" / file).read_bytes() == (place / name / file).read_bytes(), file


@pytest.mark.parametrize(("name", "kind"), [(n, k) for n, c in REGISTRY.items() for k in c.architectures])
def test_a_run_of_every_objective_leaves_and_computes_the_same(store, tmp_path, name, kind):
    options = {"layout": kind if kind == "encoder_decoder" else "prefix"}
    options = options if "layout" in REGISTRY[name].model_fields and kind != "encoder" else {}
    options |= {"predict": "next"} if (name, kind) == ("masked", "decoder") else {}
    inner = {"inner": {"name": {"decoder": "causal", "encoder": "masked"}.get(kind, "span_corruption")}}
    options |= {**inner, "teacher": "runs/none"} if name == "distillation" else {}
    run = untrained(store, tmp_path / "run", kind, objective={"name": name, **options})
    done = export_model(run, tmp_path / "out")
    assert done.family == ("nanochat" if done.architecture == "NanoChatForCausalLM" else "pretextlm")
    assert done.checked.startswith("checked: ")
