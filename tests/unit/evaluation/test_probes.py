"""Probes read every layer of a frozen model, and are judged by texts they did not learn from."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from small_corpus import WORDS
from tests.builders import make_run

from pretextlm.batch import Batch
from pretextlm.errors import UserError
from pretextlm.evaluation.benchmarks.run import Opened
from pretextlm.evaluation.probes import ProbeSpec, evaluate_probe, layer_states
from pretextlm.model.model_inputs import prepare


@pytest.fixture(scope="module", params=["masked", "causal", "span_corruption"])
def run(request, store, tmp_path_factory) -> Path:
    return make_run(store, tmp_path_factory.mktemp("probes") / request.param, request.param, layers=2)


@pytest.fixture(scope="module")
def labelled(tmp_path_factory) -> Path:
    """The label is one word of the text: what a model reads tells it, however little it learnt."""
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("labelled") / "texts.jsonl"
    rows = []
    for _ in range(120):
        label = int(rng.integers(2))
        rows.append({"text": " ".join([*rng.choice(WORDS[10:20], 3), WORDS[label]]), "kind": ["b", "a"][label]})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_every_layer_tells_a_label_that_stands_in_the_text(run, labelled):
    (scores,) = evaluate_probe(run, f"{labelled}?text=text&label=kind", batch_size=7).values()
    assert list(scores["metrics"]) == ["layer_0", "layer_1", "layer_2"]
    assert all(metric["value"] == 1.0 and metric["n"] == 24 for metric in scores["metrics"].values())
    settings = scores["settings"]
    assert (settings["texts"], settings["judged"], settings["labels"]) == (96, 24, ["a", "b"])
    assert list(settings["data_sha256"]) == ["texts.jsonl"]
    assert "texts.jsonl:kind" in json.loads((run / "benchmarks.json").read_text())["probes"]


@pytest.mark.parametrize("pool", ["mean", "first", "last"])
def test_a_texts_vector_is_made_of_its_own_tokens_whatever_is_read_beside_it(run, pool):
    opened = Opened(run)
    texts = [" ".join(WORDS[:count]) for count in (1, 9, 4)]
    found = layer_states(opened, texts, pool, batch_size=2)
    model, frame = opened.model, opened.objective.frame(opened.texts.vocabulary)
    before = [token for token in (frame.lead, frame.begin) if token is not None]
    after = [] if frame.end is None or model.encoder is None else [frame.end]
    for number, text in enumerate(texts):
        row = [*before, *opened.texts.encode(text), *after]
        attention = "causal" if model.encoder is None else "bidirectional"
        inputs = prepare(
            Batch(input_ids=np.array([row], np.int32), attention=attention),
            model.config,
            torch.device("cpu"),
            torch.float32,
        )
        blocks = model.decoder if model.encoder is None else model.encoder
        kept = []
        handle = blocks[-1].register_forward_hook(lambda _, __, out, kept=kept: kept.append(out))
        with torch.no_grad():
            embedded = model.embed(inputs.tokens, torch.float32)[0]
            _ = model.decode(inputs, None) if model.encoder is None else model.encode(inputs)
        handle.remove()
        for layer, states in ((0, embedded), (-1, kept[0][0])):
            inner = states[len(before) : len(row) - len(after)]
            expected = {"mean": inner.mean(dim=0), "first": inner[0], "last": inner[-1]}[pool]
            assert found[layer][number] == pytest.approx(expected.numpy(), abs=1e-5)


def test_texts_to_be_judged_by_may_have_a_file_of_their_own(run, labelled, tmp_path):
    test = tmp_path / "test.tsv"
    test.write_text(f"text\tkind\n{WORDS[0]}\tb\n{WORDS[1]}\ta\n")
    (scores,) = evaluate_probe(run, f"{labelled}?text=text&label=kind&test={test}", limit=60).values()
    assert (scores["settings"]["texts"], scores["settings"]["judged"]) == (60, 2)


def test_a_limit_takes_a_sample_of_a_file_that_is_in_the_order_of_its_labels(run, tmp_path):
    file = tmp_path / "sorted.tsv"
    file.write_text("text\tkind\n" + "".join(f"{WORDS[n]}\t{'ab'[n // 20]}\n" for n in range(40)))
    (scores,) = evaluate_probe(run, f"{file}?text=text&label=kind", limit=20).values()
    assert (scores["settings"]["texts"], scores["settings"]["judged"]) == (16, 4)
    assert scores["settings"]["labels"] == ["a", "b"]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("texts.jsonl", "does not say what to probe"),
        ("texts.jsonl?text=a", "does not say what to probe"),
        ("texts.jsonl?text=a&label=b&lable=c", "does not say what to probe"),
        ("texts.jsonl?text=a&label=b&pool=max", "does not say what to probe"),
        ("nowhere.jsonl?text=a&label=b", "does not exist"),
    ],
)
def test_a_probe_that_says_too_little_is_refused(run, spec, message):
    with pytest.raises(UserError, match=message):
        evaluate_probe(run, spec)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"t": "x", "l": "a"}, {"t": " ", "l": "a"}], "line 2: t is empty"),
        ([{"t": "x", "l": "a"}, {"t": "x", "l": None}], "line 2: l is None, no label"),
        ([{"t": "x", "l": "a"}, {"t": "x"}], "line 2: no column 'l'"),
        ([{"t": "x", "l": "a"}] * 10, "8 training texts with 1 labels"),
    ],
)
def test_rows_without_text_or_label_are_named(run, tmp_path, rows, message):
    path = tmp_path / "bad.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(UserError, match=message):
        evaluate_probe(run, f"{path}?text=t&label=l")


def test_a_specification_reads_all_its_parts():
    found = ProbeSpec.parse("a?b.jsonl?text=sentence&label=y&test=c.jsonl&pool=last")
    assert found == ProbeSpec(Path("a?b.jsonl"), "sentence", "y", Path("c.jsonl"), "last")
