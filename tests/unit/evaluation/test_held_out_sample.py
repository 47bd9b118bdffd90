"""What evaluation reads: documents of every source, with errors over documents that cover the value on all text."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from small_corpus import VOCAB_SIZE, WORDS

from pretextlm.data.encode import TextEncoder
from pretextlm.data.manifest import SourceRecord
from pretextlm.data.seeded_sample import sample_documents, sampled
from pretextlm.data.store import Store
from pretextlm.data.tokenizer import train_tokenizer
from pretextlm.data.writer import StoreWriter
from pretextlm.evaluation.evaluate import evaluate
from pretextlm.evaluation.held_out_metrics import HeldOut
from pretextlm.metric import Clusters, ratio
from pretextlm.model.config import ModelConfig
from pretextlm.model.transformer import Transformer
from pretextlm.objectives.registry import build
from pretextlm.training.pretrain import pretrain
from pretextlm.training.recipe import Recipe

SIZES = {"plain": 120, "long": 40, "rare": 2}


def texts(seed: int, sizes: dict[str, int]) -> list[tuple[str, str]]:
    """Documents of three sources, with a character each: short ones, long ones, and two of words in odd orders."""
    rng = np.random.default_rng(seed)
    found = []
    for source, count in sizes.items():
        for _ in range(count):
            favourites = rng.permutation(len(WORDS))[: rng.integers(3, 12)]
            length = int(rng.lognormal(2.5 if source == "plain" else 4, 0.8)) + 3
            words = [WORDS[i] for i in (rng.choice(favourites, length) if source != "rare" else rng.permutation(60))]
            found.append((source, " ".join(words) + "."))
    return found


@pytest.fixture(scope="module")
def three(tmp_path_factory) -> Store:
    place = tmp_path_factory.mktemp("three") / "store"
    splits = {"train": texts(1, {"plain": 30, "long": 10, "rare": 1}), "validation": texts(2, SIZES)}
    tokenizer = train_tokenizer("bpe", [text for _, text in splits["train"]], VOCAB_SIZE, sentinels=20)
    writer = StoreWriter(place.with_suffix(".work"), tokenizer.get_vocab_size(), tokenizer.to_str())
    encoder = TextEncoder(tokenizer)
    names = list(SIZES)
    for split, documents in splits.items():
        chunk = encoder.encode([text for _, text in documents], [names.index(source) for source, _ in documents])
        writer.splits[split].append(chunk)
    records = [SourceRecord(name=n, licence="CC0", sha256="0" * 64, bytes=1, documents=SIZES[n]) for n in names]
    writer.commit(place, records, {}, "bpe", True)
    return Store.open(place)


@pytest.fixture(scope="module")
def model(three) -> Transformer:
    """A decoder whose losses differ from document to document."""
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = Transformer(ModelConfig(architecture="decoder", vocab_size=three.vocabulary.size, **shape)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.5)
    return model


def held_out(three, model, split) -> HeldOut:
    return HeldOut(model, build("causal"), three.vocabulary, split, 32, 5, full_split=three.validation)


def test_a_loss_on_sampled_documents_is_made_of_theirs_and_weighted_by_source(three, model):
    every = held_out(three, model, three.validation)
    totals, counts = every.sums("lm")
    documents = every.rows.clusters.documents
    assert len(set(documents.tolist())) > 60
    alone = {}  # long documents are clusters of their own
    for document, total, count in zip(documents.tolist(), totals, counts, strict=True):
        old = alone.get(document, (0.0, 0))
        alone[document] = old[0] + total, old[1] + count
    some = sample_documents(three.validation, 25, 0, seed=1)
    assert np.bincount(some.document_sources).tolist() == [18, 6, 1]
    found = held_out(three, model, some)
    sums = [[0.0, 0.0] for _ in range(3)]
    totals, counts = found.sums("lm")
    for source, total, count in zip(found.rows.clusters.sources.tolist(), totals, counts, strict=True):
        sums[source][0] += total
        sums[source][1] += count
    weights = [120 / 18, 40 / 6, 2 / 1]
    expected = [sum(w * s[i] for w, s in zip(weights, sums, strict=True)) for i in (0, 1)]
    assert found.loss.value == pytest.approx(expected[0] / expected[1])
    assert found.loss.n == some.num_tokens + some.num_documents
    for document in range(some.num_documents):
        tokens = some.document(document).tolist()
        original = next(i for i in range(162) if three.validation.document(i).tolist() == tokens)
        if len(tokens) > 60:
            one = found.rows.clusters.documents == document
            assert found.sums("lm")[0][one].sum() == pytest.approx(alone[original][0], rel=1e-4)


def test_intervals_hold_the_value_on_all_text_as_often_as_they_say(three, model):
    """The losses of all documents of a real model on a real store; 200 samples of a tenth of them."""
    every = held_out(three, model, three.validation)
    clusters, (totals, counts) = every.rows.clusters, every.sums("lm")
    inside = within(totals, counts, clusters.documents, clusters.sources, 40)
    assert 0.92 <= inside <= 0.98


@pytest.mark.parametrize("lengths", ["equal", "lognormal"])
def test_intervals_of_simulated_documents_hold_the_value_on_all_text(lengths):
    """2,000 documents of two sources, each with a loss of its own and pieces around it; 200 samples of 60."""
    rng = np.random.default_rng(3)
    pieces = np.full(2000, 6) if lengths == "equal" else 1 + rng.lognormal(1, 0.7, 2000).astype(int)
    documents = np.repeat(np.arange(2000), pieces)
    sources = (documents >= 1400).astype(int)
    counts = rng.integers(20, 40, len(documents))
    losses = (3 + sources + rng.normal(0, 0.5, 2000)[documents] + rng.normal(0, 0.3, len(documents))) * counts
    assert 0.92 <= within(losses, counts, documents, sources, 60) <= 0.98
    # Rows are not independent: errors over rows hold the value far less often.
    assert within(losses, counts, documents, sources, 60, by_document=False) < 0.9


def within(totals, counts, documents, sources, size, by_document=True) -> float:
    """The share of 200 samples of `size` documents whose interval of ± 1.96 errors holds the value on all."""
    truth = totals.sum() / counts.sum()
    names, first = np.unique(documents, return_index=True)
    of = sources[first]
    inside = 0
    for seed in range(200):
        chosen = np.isin(documents, names[sampled(of, size, seed)])
        weights = np.array([np.mean(of == s) * size for s in range(of.max() + 1)])
        weights /= np.bincount(of[sampled(of, size, seed)], minlength=len(weights))
        where = documents[chosen], sources[chosen], weights[sources[chosen]]
        clusters = Clusters(*where) if by_document else Clusters(np.arange(chosen.sum()), *where[1:])
        found = ratio(totals[chosen], counts[chosen], "nats", "lower", clusters)
        inside += abs(found.value - truth) <= 1.96 * found.stderr
    return inside / 200


def train(store: Store, directory, **training) -> object:
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    values = {"budget_steps": 2, "batch_tokens": 128, "dtype": "fp32", "compile": "off", "validations": 0} | training
    recipe = {
        "data": {"store": str(store.path), "length": 32},
        "objective": "causal",
        "model": shape,
        "training": values,
        "evaluation": {"blanks": 4, "prompts": 1, "tokens": 1500},
    }
    return pretrain(Recipe.load(recipe), directory)


@pytest.fixture(scope="module")
def run(three, tmp_path_factory):
    return train(three, tmp_path_factory.mktemp("run") / "run", validations=2, validation_rows=16)


def test_an_evaluation_says_what_it_read_and_reports_every_source(run, three):
    found = evaluate(run)
    settings = found["settings"]
    assert (settings["documents_total"], settings["tokens_total"]) == (162, three.validation.num_tokens)
    assert 0.1 < settings["tokens"] / settings["tokens_total"] < 0.5
    assert list(found["sources"]) == list(SIZES)
    for name, source in found["sources"].items():
        assert source["documents_total"] == SIZES[name]
        assert 1 <= source["documents"] < source["documents_total"]
        assert set(source["metrics"]) == {"loss", "bits_per_byte"}
    assert sum(source["tokens"] for source in found["sources"].values()) == settings["tokens"]
    assert found["sources"]["rare"]["metrics"]["loss"]["stderr"] is None  # one document
    assert found["metrics"]["loss"]["stderr"] > 0
    everything = evaluate(run, tokens=0)
    assert everything["settings"]["documents"] == 162
    parts = [source["metrics"]["loss"] for source in everything["sources"].values()]
    mean = sum(part["value"] * part["n"] for part in parts) / sum(part["n"] for part in parts)
    assert everything["metrics"]["loss"]["value"] == pytest.approx(mean)
    assert everything["metrics"]["bits_per_byte"]["n"] == three.validation.text_bytes


def test_training_validates_on_the_same_rows_of_every_source(run, three, monkeypatch):
    from pretextlm.training.callbacks.validation import ValidationLoss

    read = []
    from pretextlm.data.document_rows import DocumentRows

    original = DocumentRows.read

    def reading(self, numbers, *rest, **named):
        read.extend(self.sources(numbers, 0).tolist())
        return original(self, numbers, *rest, **named)

    monkeypatch.setattr(DocumentRows, "read", reading)
    again = train(three, run.directory.with_name("again"), validations=2, validation_rows=16)
    assert len(read) == 3 * 16  # before the first step, and twice
    assert read[:16] == read[16:32] == read[32:]
    assert set(read) == {0, 1, 2}
    losses = [[line["loss"] for line in r.metrics() if line["kind"] == "validation"] for r in (run, again)]
    assert losses[0] == losses[1]
    assert ValidationLoss


def test_results_on_another_store_do_not_touch_the_runs_own(run, three, tmp_path):
    import shutil

    own = evaluate(run)
    files = ["evaluation.json", "samples.jsonl"]
    before = [(run.directory / name).read_bytes() for name in files]
    places = [tmp_path / "a" / "other.store", tmp_path / "b" / "other"]
    for place in places:
        shutil.copytree(three.path, place)
        evaluate(run, store=place, documents=20)
    assert [(run.directory / name).read_bytes() for name in files] == before
    names = ["evaluation-other.json", "evaluation-other-2.json"]
    for name, place in zip(names, places, strict=True):
        written = json.loads((run.directory / name).read_text())
        assert written["settings"]["store"] == str(place)
        assert written["settings"]["file"] == name
        assert written["settings"]["documents"] == 20
    assert evaluate(run, store=places[0], documents=21)["settings"]["file"] == names[0]
    assert evaluate(run, store=three.path) == own
